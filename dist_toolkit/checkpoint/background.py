"""One piece of work at a time, in a thread, whose failure is raised in the thread that waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Background:
    """Runs a job while training goes on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._started = self._ended = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a job was started and not yet waited for."""
        return self._thread is not None

    @property
    def has_failed(self) -> bool:
        """Whether a job has failed, and `wait` will raise."""
        return self._error is not None

    @property
    def seconds(self) -> float:
        """How long the last job took that has ended."""
        return self._ended - self._started

    def start(self, job: Callable[[], None]) -> None:
        """Begin. The job before must have been waited for."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._run, args=(job,), name=self._name, daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the job has ended within `timeout` seconds (None: wait for it). Raises what it raised, once."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True

    def _run(self, job: Callable[[], None]) -> None:
        self._started = time.monotonic()
        try:
            job()
        except BaseException as error:  # raised again where it is waited for
            self._error = error
        finally:
            self._ended = time.monotonic()
