import os
import signal

import pytest
from bench_parts.interrupt import Interrupted, interruptible


@pytest.mark.parametrize(("signum", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_is_an_exception_and_the_handlers_come_back(signum, name):
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as caught, interruptible():
        os.kill(os.getpid(), signum)
    assert (caught.value.signum, caught.value.name) == (signum, name)
    assert signal.getsignal(signum) == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_two_at_once_are_one():
    """SLURM sends two SIGTERM; what is on its way out is not to be hurried by the second."""
    done = []

    def end():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(True)

    with pytest.raises(Interrupted), interruptible():
        end()
    assert done
