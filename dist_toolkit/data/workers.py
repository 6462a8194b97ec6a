"""Loader workers: how torch's loader starts and ends them, and that a signal to all processes of a job spares them.

torch's workers die of a SIGTERM, and the rank dies of their death before it could save. So they heed neither SIGTERM
nor SIGUSR1 until the rank says that it ends them. From their first instruction on: both are held back as they start.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker, util
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any, TypedDict

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data._utils import worker as worker_state

from dist_toolkit.signals import STOP_SIGNALS

_LAST_WAIT = 1.0  # seconds that a worker which is still there at the interpreter's end has to end by itself


class WorkerOptions(TypedDict, total=False):
    """What is handed to torch's DataLoader as it is; see its documentation."""

    num_workers: int
    collate_fn: Callable[[list[Any]], Any] | None
    pin_memory: bool
    timeout: float
    worker_init_fn: Callable[[int], None] | None
    multiprocessing_context: Any
    prefetch_factor: int | None
    persistent_workers: bool


class Workers(DataLoader[Any]):
    """torch's loader, whose workers outlive the signals that ask the rank to save."""

    def __iter__(self) -> Any:
        if self.num_workers == 0:
            return super().__iter__()
        if isinstance(self.worker_init_fn, WorkerInit):
            self.worker_init_fn.ending.value = 0
        with _signals_held(self.multiprocessing_context):
            return super().__iter__()


class WorkerInit:
    """Starts a loader worker: in a process group of its own, and deaf to the signals that are the rank's alone.

    While the user's function runs, get_worker_info().dataset is the user's data set, of which torch has a wrapper here.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then
        self.ending: Any = RawValue("b", 0)
        """Shared with the workers: nonzero when the rank ends them."""

    def __call__(self, worker_id: int) -> None:
        """Run in the worker, before its first batch."""
        os.setpgid(0, 0)
        rank = os.getppid()

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.ending.value or os.getppid() != rank:
                os._exit(0)  # as torch's own handler; another code is an error to it

        for number in STOP_SIGNALS:
            signal.signal(number, on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        if self.then is None:
            return
        info: Any = get_worker_info()
        wrapper = info.dataset
        describe = getattr(wrapper, "starting_worker", _as_numbered)
        try:
            worker_state._worker_info = describe(info, wrapper.dataset)
            self.then(worker_id)
        finally:
            worker_state._worker_info = info


def torch_loader(dataset: Dataset[Any], requests: Any, options: WorkerOptions) -> DataLoader[Any]:
    """torch's loader, fetching from `dataset` what `requests` names."""
    if options.get("num_workers", 0) > 0:
        start = WorkerInit(options.get("worker_init_fn"))
        _end_at_exit(start)
        options = {**options, "worker_init_fn": start}
    # A generator of its own: torch's loader draws a seed from it at each epoch, which must not move the training's.
    return Workers(dataset, batch_sampler=requests, generator=torch.Generator(), **options)


def end_workers(loader: DataLoader[Any]) -> None:
    """End the workers of torch's loader, if any are running."""
    start: Any = loader.worker_init_fn
    if isinstance(start, WorkerInit):
        start.ending.value = 1
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None and hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()
    loader._iterator = None


_ends_daemons_of: int | None = None
"""The process that has been told to."""


def _end_at_exit(start: WorkerInit) -> None:
    """Before multiprocessing sends SIGTERM to daemons at the process's end, and waits for them for ever."""
    global _ends_daemons_of
    util.Finalize(start, _say_ended, (start.ending,), exitpriority=20)
    if _ends_daemons_of != os.getpid():
        _ends_daemons_of = os.getpid()
        util.Finalize(None, _end_daemons, exitpriority=10)


def _say_ended(ending: Any) -> None:
    ending.value = 1


def _end_daemons() -> None:
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(_LAST_WAIT)
        if worker.is_alive():
            worker.kill()


@contextmanager
def _signals_held(context: Any) -> Iterator[None]:
    """Processes that are started in the body start with SIGTERM and SIGUSR1 blocked; this one gets them afterwards.

    Not where a server forks them: it would start with them blocked too, and so would whatever else it forks.
    """
    method = context.get_start_method() if context is not None else multiprocessing.get_start_method()
    if method == "forkserver":
        yield
        return
    resource_tracker.ensure_running()  # else it is started below, and unblocks SIGTERM
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _as_numbered(info: Any, dataset: Any) -> Any:
    return worker_state.WorkerInfo(id=info.id, num_workers=info.num_workers, seed=info.seed, dataset=dataset)
