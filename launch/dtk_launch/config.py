"""Where an option's value comes from: command line, then DTK_* variables, the profile, the file, the default."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from dtk_launch.errors import ConfigError, unknown
from dtk_launch.options import LaunchOptions, SubmitOptions, flag_of

Options = TypeVar("Options", bound=LaunchOptions)

_NOT_IN_FILES = {"script", "args", "module", "dry_run", "json", "profile"}
_NOT_IN_ENVIRONMENT = {"script", "args", "module", "dry_run", "json", "env", "sbatch"}
# Of the run that this process is a rank of, not of the one that it starts.
_OUTER_RUN = {"name", "run_dir"}


@dataclass(frozen=True)
class Settings(Generic[Options]):
    """Resolved options, and for each field the words that say where its value came from."""

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
    from_file = _file_values(cwd, profile)
    for f in fields(kind):
        variable = env_name(f.name)
        if given.get(f.name) is not None:
            values[f.name], sources[f.name] = given[f.name], f"flag {flag_of(f.name)}"
        elif variable and environ.get(variable) and not (inside_rank and f.name in _OUTER_RUN):
            values[f.name] = _convert(f.name, f.default, environ[variable], variable)
            sources[f.name] = f"environment {variable}"
        elif f.name in from_file:
            raw, where = from_file[f.name]
            values[f.name], sources[f.name] = _convert(f.name, f.default, raw, where), where
        else:
            sources[f.name] = "default"
    return Settings(kind(**values), sources)


def _convert(name: str, default: Any, raw: Any, where: str) -> Any:
    """A value of the environment or of a file, in the type of the field's default."""
    if isinstance(default, tuple):
        if isinstance(raw, dict):
            return tuple(f"{key}={value}" for key, value in raw.items())
        if isinstance(raw, list) and all(isinstance(item, str) for item in raw):
            return tuple(raw)
        raise ConfigError(f"{where}: {name} = {raw!r} is neither a table nor a list of K=V; write {name} = {{K = 'V'}}")
    if isinstance(default, int):
        if isinstance(raw, bool) or not str(raw).strip().lstrip("-").isdigit():
            raise ConfigError(f"{where}: {name} = {raw!r} is not a whole number")
        return int(raw)
    if isinstance(raw, (str, int)) and not isinstance(raw, bool):
        return str(raw)
    raise ConfigError(f"{where}: {name} = {raw!r} is neither text nor a number")


def _file_values(cwd: Path, profile: str) -> dict[str, tuple[Any, str]]:
    """Field -> (value, where it stands), from dtk.toml or [tool.dtk] in `cwd`, the profile over the rest."""
    table, file = _read_table(cwd)
    profiles = table.pop("profile", {})
    found = _known_keys(table, file)
    if profile:
        if profile not in profiles:
            where = file or f"{cwd}, which has neither dtk.toml nor [tool.dtk] in pyproject.toml"
            known = (
                unknown("profile", profile, profiles) if profiles else f"unknown profile {profile!r}: there are none"
            )
            raise ConfigError(f"{known} (looked in {where})")
        found.update(_known_keys(profiles[profile], f"profile {profile} in {file}"))
    return found


def _known_keys(table: Mapping[str, Any], where: str) -> dict[str, tuple[Any, str]]:
    known = {f.name for f in fields(SubmitOptions)} - _NOT_IN_FILES
    found = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise ConfigError(f"{where}: {unknown('setting', key, (k.replace('_', '-') for k in known))}")
        found[name] = (value, where)
    return found


def _read_table(cwd: Path) -> tuple[dict[str, Any], str]:
    """The settings table and the file it stands in; an empty table and '' if there is none."""
    own, project = cwd / "dtk.toml", cwd / "pyproject.toml"
    in_project = project.is_file() and b"tool.dtk" in project.read_bytes()  # TOML is parsed only if it can matter
    if own.is_file():
        if in_project and "dtk" in _parse(project).get("tool", {}):
            raise ConfigError(f"settings in both {own} and [tool.dtk] of {project}; keep one")
        return _parse(own), "dtk.toml"
    if in_project:
        return dict(_parse(project).get("tool", {}).get("dtk", {})), "pyproject.toml"
    return {}, ""


def _parse(file: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None
