"""Where an option's value comes from: command line, then DTK_* variables, the profile, the file, the default."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from dtk_launch.errors import ConfigError, unknown
from dtk_launch.given import check_pairs, check_value, shown
from dtk_launch.options import LaunchOptions, SubmitOptions, flag_of
from dtk_launch.toml_lines import Key, key_lines

Options = TypeVar("Options", bound=LaunchOptions)

_NOT_IN_FILES = {"script", "args", "module", "dry_run", "json", "preempt_test", "profile"}
_PAIRS = ("env", "sbatch")
"""Options of K=V, which add up: the file's, the profile's and the flag's, the last word on each K counting."""
_NOT_IN_ENVIRONMENT = {"script", "args", "module", "dry_run", "json", "preempt_test", "env", "sbatch", "load", "setup"}
# Of the run that this process is a rank of, not of the one that it starts.
_OUTER_RUN = {"name", "run_dir"}


@dataclass(frozen=True)
class Settings(Generic[Options]):
    """Resolved options, and for each field the words that say where its value came from.

    A variable that stands in a file has words of its own, under `env NAME`.
    """

    options: Options
    sources: Mapping[str, str]


def env_name(field: str) -> str | None:
    """The variable that sets a field: `DTK_RUN_NAME` for name, else `DTK_` and the field's name; None if none does."""
    if field in _NOT_IN_ENVIRONMENT:
        return None
    return "DTK_RUN_NAME" if field == "name" else "DTK_" + field.upper()


def resolve(kind: type[Options], given: Mapping[str, Any], environ: Mapping[str, str], cwd: Path) -> Settings[Options]:
    """Options of type `kind`. `given` is the command line; None there means not given. Raises ConfigError."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    inside_rank = "DTK_SUPERVISOR" in environ
    profile = given.get("profile") or environ.get("DTK_PROFILE") or ""
    asked_by = "--profile" if given.get("profile") else "DTK_PROFILE"
    layers = _file_values(cwd, profile, asked_by)
    from_file = {name: value for layer in layers for name, value in layer.items()}
    for f in fields(kind):
        variable = env_name(f.name)
        if f.name in ("script", "args"):
            values[f.name], sources[f.name] = given.get(f.name, f.default), "command line"
            if values[f.name] is None:
                values[f.name] = f.default
        elif f.name in _PAIRS:
            values[f.name], told = _pairs(
                f.name, given.get(f.name), [layer[f.name] for layer in layers if f.name in layer]
            )
            sources |= told
        elif given.get(f.name) is not None:
            values[f.name], sources[f.name] = given[f.name], f"flag {flag_of(f.name)}"
        elif variable and environ.get(variable) and not (inside_rank and f.name in _OUTER_RUN):
            values[f.name] = _convert(f.name, f.default, environ[variable], variable)
            sources[f.name] = f"environment {variable}"
        elif f.name in from_file:
            raw, where, _ = from_file[f.name]
            values[f.name], sources[f.name] = _convert(f.name, f.default, raw, where), where
        else:
            sources[f.name] = "default"
        if f.name in values:
            check_value(f.name, values[f.name], sources[f.name])
    for name in _PAIRS:
        check_pairs(name, given.get(name) or ())
    return Settings(kind(**values), sources)


def _pairs(name: str, given: tuple[str, ...] | None, layers: list[_FromFile]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The K=V of the file's layers and, over them, of the flag; where the option and each of its pairs comes from."""
    found: dict[str, str] = {}
    sources = {name: "default"}
    for raw, where, lines in layers:
        for pair in _convert(name, (), raw, where):
            key = pair.removeprefix("--").partition("=")[0]
            found[key], sources[f"{name} {key}"] = pair, lines.get(f"{name} {key}", where)
        sources[name] = where
    for pair in given or ():
        key = pair.removeprefix("--").partition("=")[0]
        found[key], sources[f"{name} {key}"] = pair, f"flag {flag_of(name)}"
    if given is not None:
        sources[name] = f"flag {flag_of(name)}"
    return tuple(found.values()), sources


def _convert(name: str, default: Any, raw: Any, where: str) -> Any:
    """A value of the environment or of a file, in the type of the field's default."""
    if isinstance(default, tuple):
        if name not in _PAIRS:
            if isinstance(raw, list) and all(isinstance(item, str) for item in raw):
                return tuple(raw)
            raise ConfigError(f"{where}: {name} = {raw!r} is no list of texts; write {name} = ['one', 'another']")
        if isinstance(raw, dict):
            _check_table(name, raw, where)
            return tuple(f"{key}={value}" for key, value in raw.items())
        if isinstance(raw, list) and all(isinstance(item, str) for item in raw):
            return tuple(raw)
        raise ConfigError(f"{where}: {name} = {raw!r} is neither a table nor a list of K=V; write {name} = {{K = 'V'}}")
    if isinstance(default, bool):
        known = {"true": True, "1": True, "false": False, "0": False}
        if str(raw).lower() not in known:
            raise ConfigError(f"{where}: {name} = {raw!r} is neither true nor false")
        return known[str(raw).lower()]
    if isinstance(default, int):
        if isinstance(raw, bool) or not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", str(raw)):
            raise ConfigError(f"{where}: {name} = {raw!r} is not a whole number")
        return int(raw)
    if isinstance(raw, (str, int)) and not isinstance(raw, bool):
        return str(raw)
    key, hint = name.replace("_", "-"), ""
    if isinstance(raw, float):
        hint = f"; write {key} = {int(raw) if raw.is_integer() else repr(str(raw))}"
    raise ConfigError(f"{where}: {key} = {raw!r} is neither text nor a whole number{hint}")


def _check_table(name: str, table: dict[str, Any], where: str) -> None:
    for key, value in table.items():
        if "=" in key or isinstance(value, (bool, float, dict, list)) or not isinstance(value, (str, int)):
            said = f"{name}.{key} = {value!r} is neither text nor a whole number"
            raise ConfigError(f"{where}: {said}; write {key} = 'text'")


_FromFile = tuple[Any, str, dict[str, str]]
"""A value, where it stands, and for a table of variables where each stands, by `env NAME`."""


@dataclass(frozen=True)
class _File:
    """The settings of dtk.toml or [tool.dtk], and the line of each key."""

    table: dict[str, Any]
    name: str = ""
    lines: Mapping[Key, int] = field(default_factory=dict)

    def place(self, *key: str) -> str:
        """`dtk.toml:7`, and the profile if the key is in one."""
        line = f":{self.lines[key]}" if key in self.lines else ""
        profile = f" profile {key[1]}" if key[0] == "profile" and len(key) > 1 else ""
        return f"{self.name}{line}{profile}"


def _file_values(cwd: Path, profile: str, asked_by: str) -> list[dict[str, _FromFile]]:
    """Field -> value and place, from dtk.toml or [tool.dtk] in `cwd`: the rest, and the profile, which is stronger."""
    file = read_file(cwd)
    profiles = file.table.get("profile", {})
    if not isinstance(profiles, dict):
        raise ConfigError(f"{file.place('profile')}: profile = {profiles!r} is no table; write [profile.NAME] tables")
    for name, table in profiles.items():
        if name != profile and not isinstance(table, dict):
            place = file.place("profile", name)
            raise ConfigError(f"{place}: {name} = {table!r} is in [profile] itself; write it below a [profile.NAME]")
    layers = [_known_keys(file, {key: value for key, value in file.table.items() if key != "profile"})]
    if profile:
        if profile not in profiles:
            where = file.name or f"{cwd}, which has neither dtk.toml nor [tool.dtk] in pyproject.toml"
            known = (
                unknown("profile", profile, profiles) if profiles else f"unknown profile {profile!r}: there are none"
            )
            raise ConfigError(f"{asked_by}={profile}: {known} (looked in {where})")
        layers.append(_known_keys(file, profiles[profile], "profile", profile))
    return layers


def _known_keys(file: _File, table: Any, *above: str) -> dict[str, _FromFile]:
    if not isinstance(table, dict):
        raise ConfigError(f"{file.place(*above)}: {'.'.join(above)} = {table!r} is no table; write [{'.'.join(above)}]")
    known = {f.name for f in fields(SubmitOptions)} - _NOT_IN_FILES
    found: dict[str, _FromFile] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        where = file.place(*above, key)
        if name in _NOT_IN_FILES:
            raise ConfigError(f"{where}: {key!r} is for the command line alone; leave it out, and pass {shown(name)}")
        if name not in known:
            raise ConfigError(f"{where}: {unknown('setting', key, (k.replace('_', '-') for k in known))}")
        if name in found:
            raise ConfigError(f"{where}: {key} is there twice, spelt with - and with _ ({found[name][1]}); keep one")
        inside = value if isinstance(value, dict) else ()
        found[name] = (value, where, {f"{name} {item}": file.place(*above, key, item) for item in inside})
    return found


def read_file(cwd: Path) -> _File:
    """The file of settings in `cwd`; an empty one if there is none."""
    own, project = cwd / "dtk.toml", cwd / "pyproject.toml"
    in_project = project.is_file() and b"tool.dtk" in _read(project)  # TOML is parsed only if it can matter
    if os.path.lexists(own) and not own.is_file():
        raise ConfigError(f"{own} is no file, so it holds no settings; move it away, or make it one")
    if own.is_file():
        if in_project and _of_project(project)[0]:
            raise ConfigError(f"settings in both {own} and [tool.dtk] of {project}; keep one")
        table, lines = _parse(own)
        return _File(table, "dtk.toml", lines)
    if in_project:
        table, lines = _of_project(project)
        return _File(table, "pyproject.toml", lines)
    return _File({})


def _of_project(file: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    table, lines = _parse(file)
    tool = table.get("tool", {})
    ours = tool.get("dtk", {}) if isinstance(tool, dict) else {}
    if not isinstance(ours, dict):
        raise ConfigError(f"{file}: tool.dtk = {ours!r} is no table; write [tool.dtk]")
    return ours, {key[2:]: line for key, line in lines.items() if key[:2] == ("tool", "dtk")}


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}; make it readable, or move it away") from None


def _parse(file: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        text = _read(file).decode("utf-8")
        return tomllib.loads(text), key_lines(text, tomllib.loads)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None
