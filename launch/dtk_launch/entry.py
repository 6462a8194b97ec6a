"""The console entry: what it imports before it is ready for a Ctrl-C is little."""

from __future__ import annotations

import sys

from dtk_launch.interrupt import quiet_interrupt


def main() -> None:
    """Run `dtk`."""
    with quiet_interrupt():
        from dtk_launch import prestart, streams

        streams.never_fail()
        prestart.begin(sys.argv[1:])
        try:
            from dtk_launch.cli import main as run

            run()
        finally:
            prestart.end()
