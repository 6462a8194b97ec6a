"""Two records of launches -> what differs between them, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dtk_launch.redaction import MARK

PREFIXES = (
    "ACCELERATE_", "CUBLAS_", "CUDA_", "DTK_", "FSDP_", "GLOO_", "HF_", "KMP_", "LD_LIBRARY_PATH", "LD_PRELOAD", "MKL_",
    "NCCL_", "NVIDIA_", "OMP_", "OPENBLAS_", "PET_", "PYTHONHASHSEED", "PYTHONPATH", "PYTORCH_", "TOKENIZERS_", "TORCH",
    "TRANSFORMERS_", "TRITON_", "XLA_",
)  # fmt: skip
"""Variables of the shell that can change what a run computes; of the others a difference is not said."""

_OF_THE_RUN = ("DTK_RUN_DIR", "DTK_RUN_NAME")
_OPTIONS_APART = {"script", "args", "env", "name", "run_dir", "profile", "dry_run", "json", "nproc", "nodes"}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What is not as it was, most telling first; empty if nothing that is recorded differs.

    The name and the folder of the run, the host's name and the time may differ.
    """
    return (
        *_tree(then["tree"], now["tree"]),
        *_script(then, now),
        *_mapping("version of ", then["versions"], now["versions"]),
        *_asked(then, now),
        *_mapping("env ", _without(then["env"], _OF_THE_RUN), _without(now["env"], _OF_THE_RUN)),
        *_mapping("shell ", *_shells(then, now)),
        *_mapping("host: ", *({key: side["host"].get(key) for key in ("machine", "gpus")} for side in (then, now))),
    )


def notes(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What was not compared, for nothing of it is recorded. No difference."""
    if not _not_in_git(then["tree"]):
        return ()
    script = ", but for the script" if then["script"].get("sha256") else ""
    return (f"the source {'is' if _not_in_git(now['tree']) else 'was'} not in git, so it was not compared{script}",)


def _not_in_git(tree: Mapping[str, Any]) -> bool:
    """Not so: a repository that git was too slow in, or would not read."""
    return "not a git repository" in tree.get("why", "") or tree.get("why") == "git is not installed"


def _tree(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if _not_in_git(then):
        return
    for when, side in (("then", then), ("now", now)):
        if "why" in side:
            yield f"the source tree cannot be compared: {when}, {side['why']}"
            return
    if then["commit"] != now["commit"]:
        yield f"git commit: {_commit(then)} then, {_commit(now)} now"
    for when, side in (("then", then), ("now", now)):
        if side["diff_digest"] is None:
            yield f"uncommitted changes cannot be compared: {when} they were not recorded whole ({side['left_out'][0]})"
            return
    if then["diff_digest"] != now["diff_digest"]:
        names = sorted({*then["changed"], *now["changed"]})
        yield f"uncommitted changes: others then and now, in {_some(names)}"
    yield from _files("untracked source", then["untracked"], now["untracked"])
    yield from _mapping("submodule ", then["submodules"], now["submodules"])
    large = [{line for line in side["left_out"] if " bytes" in line} for side in (then, now)]
    if large[0] != large[1]:
        yield f"files too large to record: {_some(sorted(large[0] ^ large[1]))}"


def _commit(tree: Mapping[str, Any]) -> str:
    return (tree["commit"] or "none")[:12]


def _files(what: str, then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for words, names in (
        ("new", set(now) - set(then)),
        ("gone", set(then) - set(now)),
        ("changed", {name for name in set(then) & set(now) if then[name] != now[name]}),
    ):
        if names:
            yield f"{what} {words}: {_some(sorted(names))}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _script(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if then["script"].get("sha256") != now["script"].get("sha256"):
        yield f"script: {now['target']['script']} has changed"


def _asked(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if then["target"]["args"] != now["target"]["args"]:
        yield f"arguments: {' '.join(then['target']['args'])!r} then, {' '.join(now['target']['args'])!r} now"
    topologies = [{name: side["topology"][name] for name in ("nodes", "nproc")} for side in (then, now)]
    yield from _mapping("", *topologies)
    yield from _mapping("option ", *(_without(side["options"], _OPTIONS_APART) for side in (then, now)))


def _shells(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, str]]:
    """The relevant variables of both, less secrets, which cannot be compared, and what --env sets over them."""
    sides = (then["environment"], now["environment"])
    apart = {name for side in sides for name, value in side.items() if value == MARK}
    apart |= set(then["env"]) & set(now["env"])
    apart |= {name for side in sides for name in side if name.startswith(("DTK_SUPERVISOR", "DTK_RUN_"))}
    return [{k: v for k, v in side.items() if k.startswith(PREFIXES) and k not in apart} for side in sides]


def _without(values: Mapping[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _mapping(what: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*then, *now}):
        before, after = then.get(name), now.get(name)
        if before != after:
            yield f"{what}{name}: {_value(before)} then, {_value(after)} now"


def _value(value: Any) -> str:
    return "not there" if value is None else MARK if value == MARK else str(value) or "empty"
