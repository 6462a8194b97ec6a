"""What a user asks of the scheduler, checked: options -> sbatch's own. Pure; each function raises PlanError."""

from __future__ import annotations

import re

from dtk_launch.errors import PlanError, unknown
from dtk_launch.options import SubmitOptions, flag_of

Asked = tuple[tuple[str, str | None], ...]

_TIME = r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}|UNLIMITED|INFINITE"
_RANGE = r"\d+(-\d+(:[1-9]\d*)?)?"
_FORMS = {
    "time": (_TIME, "is no SLURM time; pass minutes, HH:MM:SS or D-HH:MM:SS"),
    "mem": (r"\d+([KMGT]B?)?", "is none that sbatch can read; pass for example 64G"),
    "gpus_per_node": (r"([\w.-]+:)?\d+(,[\w.-]+:\d+)*", "is none that sbatch can read; pass a number, or TYPE:N"),
    "array": (rf"{_RANGE}(,{_RANGE})*(%[1-9]\d*)?", "is no list of numbers; pass for example 0-9, 1,3,5 or 0-99%4"),
}
_MAIL = (
    *("NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT", "TIME_LIMIT"),
    *("TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50", "ARRAY_TASKS"),
)
_AS_THEY_ARE = ("time", "partition", "account", "qos", "constraint", "reservation", "gpus_per_node", "mem")
_OURS = {
    "job-name": "pass --name",
    "output": "pass --output-dir",
    "chdir": "start dtk submit in that folder",
    "wrap": "pass a script",
    "requeue": "that is the default",
    "no-requeue": "pass --no-requeue",
    **dict.fromkeys(("time", "partition", "account", "mem", "gpus-per-node", "cpus-per-task", "array"), ""),
}
_ONE_TASK = ("ntasks", "ntasks-per-node", "nodes")


def check_forms(options: SubmitOptions) -> None:
    """Refuse what sbatch would not read, or would read as something else."""
    for name, (form, advice) in _FORMS.items():
        value = getattr(options, name)
        if value and not re.fullmatch(form, value, re.IGNORECASE):
            raise PlanError(f"{flag_of(name)}={value!r} {advice}")
    for word in options.mail_type.split(",") if options.mail_type else ():
        if word.strip().upper() not in _MAIL:
            raise PlanError(f"--mail-type={options.mail_type}: {unknown('event', word.strip().upper(), _MAIL)}")
    if options.mail_user and not options.mail_type:
        raise PlanError(f"--mail-user={options.mail_user}, but no --mail-type says when; pass for example END,FAIL")


def asked(options: SubmitOptions, gpus_per_node: str) -> Asked:
    """The options of sbatch that these ask for, those of --sbatch last."""
    given = {name: str(getattr(options, name)) for name in _AS_THEY_ARE} | {"gpus_per_node": gpus_per_node}
    found: list[tuple[str, str | None]] = [(name.replace("_", "-"), value) for name, value in given.items() if value]
    if options.exclusive:
        found.append(("exclusive", None))
    if options.dependency:
        found.append(("dependency", options.dependency))
        if not any(pair.removeprefix("--").startswith("kill-on-invalid-dep") for pair in options.sbatch):
            found.append(("kill-on-invalid-dep", "yes"))  # one that can never be met would pend for ever
    if options.mail_type:
        found.append(("mail-type", options.mail_type.upper().replace(" ", "")))
    if options.mail_user:
        found.append(("mail-user", options.mail_user))
    return (*found, *_others(options.sbatch, {key for key, _ in found}))


def _others(pairs: tuple[str, ...], known: set[str]) -> Asked:
    """`KEY=VALUE`, or `KEY` alone for a switch."""
    found: list[tuple[str, str | None]] = []
    for pair in pairs:
        key, equals, value = pair.removeprefix("--").partition("=")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", key):
            raise PlanError(f"--sbatch {pair!r} is not KEY=VALUE; pass for example --sbatch nice=100")
        if key in _ONE_TASK:
            raise PlanError(f"--sbatch {key} conflicts with one dtk on each node; pass --nodes and --nproc")
        if key in _OURS:
            advice = _OURS[key] or f"pass --{key}"
            raise PlanError(f"--sbatch {pair} would override what dtk writes for {key}; {advice}")
        if key in known:
            raise PlanError(f"--sbatch {pair}, but --{key} is given too; keep one of the two")
        found.append((key, value if equals else None))
    return tuple(found)
