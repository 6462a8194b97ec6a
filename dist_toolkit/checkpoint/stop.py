"""What a checkpointer needs of whoever is asked to stop the run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol


class StopSource(Protocol):
    """Where requests to stop come from."""

    def poll(self, trouble: bool = False) -> Any:
        """Whether all ranks are to stop after this step, and whether some rank said `trouble`. Collective."""
        ...

    def asked_by_now(self) -> bool:
        """Whether all ranks are to stop. Collective; waits for the others."""
        ...

    def noting(self) -> AbstractContextManager[None]:
        """A context in which requests end nobody; they are there to be asked for later."""
        ...

    def __enter__(self) -> Any: ...

    def __exit__(self, *exception: Any) -> None: ...
