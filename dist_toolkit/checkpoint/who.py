"""Who saves: for people to read."""

from __future__ import annotations

import getpass
import os
import socket


def who() -> str:
    """User, machine and job of this program."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number that has no name
        user = str(os.getuid())
    job = os.environ.get("SLURM_JOB_ID")
    return f"{user}@{socket.gethostname()}" + (f", job {job}" if job else "")
