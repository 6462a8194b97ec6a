"""What an option needs of this machine: packages and files. Found out here, before anything starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from dtk_launch.errors import PlanError
from dtk_launch.facts import installed_version
from dtk_launch.options import LaunchOptions
from dtk_launch.values import parse_env


def check_needs(
    options: LaunchOptions, cwd: Path, environ: Mapping[str, str], sources: Mapping[str, str] | None = None
) -> None:
    """Raise PlanError where the strategy's package is missing (by metadata), or a file that is named cannot be used.

    `sources` say where each option comes from.
    """
    _check_python({**environ, **dict(parse_env(options.env, sources))}.get("PYTHON_EXEC"))
    if options.strategy == "deepspeed" and installed_version("deepspeed") is None:
        raise PlanError(
            "--strategy deepspeed, but deepspeed is not installed for the Python of dtk; "
            "pip install 'dist-toolkit[deepspeed]' there"
        )
    if options.deepspeed_config:
        _check_config(options.deepspeed_config, cwd)


def _check_python(value: str | None) -> None:
    if value is not None and shutil.which(value) is None:
        raise PlanError(
            f"PYTHON_EXEC={value!r} is set, and torchrun would start the ranks with it, but it is no program; "
            "unset PYTHON_EXEC, or give it the path of a Python"
        )


def _check_config(given: str, cwd: Path) -> None:
    try:
        text = (cwd / Path(given).expanduser()).read_text(encoding="utf-8")
        is_object = isinstance(json.loads(text), dict)
    except OSError as error:
        raise PlanError(f"--deepspeed-config={given} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PlanError(f"--deepspeed-config={given} is not JSON: {error}") from None
    if not is_object:
        raise PlanError(f"--deepspeed-config={given} is not a JSON object; a ds_config is {{...}}")
