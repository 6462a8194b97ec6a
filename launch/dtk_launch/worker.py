"""The bootstrap that torchrun runs, by path, in every rank: `worker.py [-m] SCRIPT ARGS...`.

It ties the rank's life to torchrun's, sends its output to the run directory when dtk follows it there, records start
and exit in `ranks/<rank>.json` (docs/wire.md), and then runs the script as `python SCRIPT ARGS...` would run it.
Standard library only, and nothing of this folder on sys.path: a user's plan.py or config.py is the user's.
"""

from __future__ import annotations

import sys

if sys.path and sys.path[0] == __file__.rpartition("/")[0]:
    del sys.path[0]  # Python puts the folder of worker.py there; before any further import

import builtins
import contextlib
import faulthandler
import importlib.machinery
import importlib.util
import io
import os
import runpy
import signal
import time
from types import CodeType, FrameType, ModuleType, TracebackType

TYPE_CHECKING = False  # typing is a quarter of what a rank waits for before its script; nothing of it is needed to run
if TYPE_CHECKING:
    from typing import Any


def _load(name: str) -> ModuleType:
    """A file of this folder, by path and not in sys.modules, so that no name of ours is left for the script to find."""
    path = os.path.join(os.path.dirname(__file__), f"{name}.py")  # noqa: PTH118, PTH120
    spec = importlib.util.spec_from_file_location(f"_dtk_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def die_with_torchrun(supervisor: str | None) -> None:
    """Ask for SIGKILL when torchrun ends, and end now if it has ended before it could be asked for."""
    hostos = _load("hostos")
    parent = os.getppid()
    if not hostos.die_with_parent():
        return
    orphaned = os.getppid() != parent
    if supervisor is not None:  # torchrun is the supervisor's child; whoever adopted us is not
        orphaned = orphaned or hostos.parent_of(os.getppid()) != int(supervisor.rpartition(":")[2])
    if orphaned:
        os.kill(os.getpid(), signal.SIGKILL)


def bind_cpus(shares: str | None) -> None:
    """Stay on this rank's CPUs of `0-3;4-7`, with every thread and process to come. What cannot be is left as it is."""
    if shares and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            runs = [run.split("-") for run in shares.split(";")[int(os.environ["LOCAL_RANK"])].split(",")]
            os.sched_setaffinity(0, {cpu for run in runs for cpu in range(int(run[0]), int(run[-1]) + 1)})


def redirect(folder: str, rank: str) -> None:
    """Append stdout and stderr to the rank's files, children's output included."""
    for target, suffix in ((1, "log"), (2, "err")):
        path = os.path.join(folder, f"{rank}.{suffix}")  # noqa: PTH118
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, target)
        os.close(descriptor)


def note_early_stop() -> None:
    """Have SIGUSR1, which dtk starts ranks with ignored, noted for `dist_toolkit.init` (docs/wire.md)."""

    def note(number: int, frame: FrameType | None) -> None:
        os.environ["DTK_STOP"] = signal.Signals(number).name

    if signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN:
        note.dtk_bootstrap = True  # type: ignore[attr-defined]  # not the user's
        signal.signal(signal.SIGUSR1, note)


def own_frames_cut(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without this file's frames at its start."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def hide_own_frames(trace: TracebackType | None) -> None:
    """Wrap the hook that prints the error which ends the script, so that it shows `trace`."""
    hook = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        hook(kind, error.with_traceback(trace), trace)

    sys.excepthook = show


def fresh_main() -> ModuleType:
    """A new, empty `__main__`, as the interpreter makes it."""
    module = ModuleType("__main__")
    module.__dict__.update(__builtins__=builtins, __annotations__={})
    sys.modules["__main__"] = module
    return module


def load_script(script: str, main: ModuleType) -> CodeType:
    """Compile the script and set sys.path[0] and the attributes of `__main__` as `python SCRIPT` does."""
    path = os.path.abspath(script)  # noqa: PTH100
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, os.path.dirname(os.path.realpath(script)))  # noqa: PTH120
    main.__dict__.update(
        __file__=path,
        __cached__=None,
        __loader__=importlib.machinery.SourceFileLoader("__main__", path),
    )
    with io.open_code(path) as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def run(arguments: list[str]) -> None:
    """Run the script as `__main__`. Its exceptions pass through."""
    as_module = arguments[0] == "-m"
    if as_module:
        arguments = arguments[1:]
    sys.argv = arguments
    main = fresh_main()
    if as_module:
        if not getattr(sys.flags, "safe_path", False):
            sys.path.insert(0, os.getcwd())
        runpy._run_module_as_main(arguments[0])  # type: ignore[attr-defined]  # what `python -m` itself calls
    else:
        exec(load_script(arguments[0], main), main.__dict__)


def share_vitals(path: str | None) -> dict[str, Any]:
    """Have the supervisor learn of this process's death at the moment it comes: what the record is to say of it.

    `path` is the supervisor's file of pages, as /proc shows it.
    """
    if path is None:
        return {}
    vitals = _load("vitals")
    nproc, restart = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"))
    offset = vitals.offset_of(int(os.environ["LOCAL_RANK"]), nproc, restart)
    try:
        with open(path, "r+b") as file:
            page = vitals.Page(file.fileno(), offset)
    except (OSError, ValueError):
        return {}
    if not page.hold():
        return {}
    _kept.append(page)
    _load("pulse").install(page.beat)
    return {"vitals": offset}


def catch_faults(paths: str | None) -> None:
    """Have Python tell the supervisor its stack on a fatal signal (SIGSEGV, SIGFPE, SIGABRT, SIGBUS, SIGILL).

    `paths` are the pipes of the ranks of this node, as /proc shows them.
    """
    if paths is None:
        return
    with contextlib.suppress(OSError, IndexError):
        path = paths.split(",")[int(os.environ["LOCAL_RANK"])]
        file = open(path, "wb", buffering=0)  # noqa: SIM115  # faulthandler keeps the descriptor
        file.write(b"\0%d\n" % os.getpid())
        _kept.append(file)
        faulthandler.enable(file)


def note_failure() -> None:
    """Tell the supervisor the moment at which an exception left the script, before anything that takes time."""
    for kept in _kept[:1]:
        kept.note_failure()


def _script_ended() -> None:
    """Say what is to be said when the script is over and Python's end begins."""
    for call in _at_end:
        call()


_at_end: list[Any] = []
_kept: list[Any] = []  # for the life of the process; the first is the page, where there is one


def bootstrap() -> None:
    """Prepare the rank, run the script, and leave as Python would."""
    bind_cpus(os.environ.pop("DTK_CPUS", None))  # taken out: a dtk in this rank has CPUs of its own to share
    supervisor = os.environ.get("DTK_SUPERVISOR")
    run_dir = os.environ.get("DTK_RUN_DIR")
    rank = os.environ.get("RANK", "0")
    die_with_torchrun(supervisor)
    folder = os.path.join(run_dir, "ranks") if run_dir else None  # noqa: PTH118
    if folder is not None:
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        if supervisor is not None:
            redirect(folder, rank)
    shared: dict[str, Any] = {}
    if supervisor is not None:
        note_early_stop()
        shared = share_vitals(os.environ.pop("DTK_VITALS", None))
        catch_faults(os.environ.pop("DTK_FAULTS", None))
        if folder is not None:
            turn = _kept[0].turn_noter() if shared else None
            stackfile = _load("stackfile")
            shared |= stackfile.register(os.path.join(folder, f"{rank}.stacks"), turn)  # noqa: PTH118
            _at_end.append(stackfile.script_ended)
    records = _load("rank_record")
    record = records.Record(folder, rank, supervisor, _kept[0].leave if "vitals" in shared else None)
    record.start(**shared)
    try:
        run(sys.argv[1:])
        _script_ended()
    except BaseException as error:
        moment = time.time_ns(), time.monotonic_ns()  # before anything that takes time
        if records.exit_code(error) != 0:
            note_failure()
        trace = own_frames_cut(error.__traceback__)
        try:
            records.record_error(record, error, trace, moment, lambda *about: _load("children").behind(*about))
        except BaseException as later:  # of a signal handler: torch's, for a DataLoader worker that was killed
            records.record_error(record, later, trace, moment)
        hide_own_frames(trace)
        if "vitals" in shared and _load("lost").lost_connection(type(error).__name__, records.message_of(error)):
            time.sleep(_load("lost").LINGER)
        _script_ended()
        raise


if __name__ == "__main__":
    bootstrap()
