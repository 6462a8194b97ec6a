"""git in a test: as a user without a configuration has it."""

import subprocess
from pathlib import Path

ENVIRONMENT = {
    **dict.fromkeys(("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"), "/dev/null"),
    **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "a"),
    **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "a@b"),
}


def git(folder: Path, *words: str) -> str:
    """What `git -C FOLDER WORDS` prints; the test fails if it does."""
    done = subprocess.run(("git", "-C", str(folder), *words), capture_output=True, check=True)
    return done.stdout.decode().strip()
