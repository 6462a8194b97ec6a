"""The console entry: what it imports before it is ready for a Ctrl-C is little."""

from __future__ import annotations

from dtk_launch.interrupt import quiet_interrupt


def main() -> None:
    """Run `dtk`."""
    with quiet_interrupt():
        from dtk_launch.cli import main as run

        run()
