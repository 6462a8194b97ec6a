"""What ranks leave behind is ended, and what cannot be ended does not hold dtk for ever."""

import subprocess
import sys

import pytest
from dtk_launch import hostos, leftovers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

DEAF = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"


@pytest.fixture
def deaf(monkeypatch):
    """A child that SIGTERM does not end, the only one that is looked at."""
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=-1) as child:
        child.stdout.readline()
        monkeypatch.setattr(hostos, "descendants_of", lambda pid: [child.pid] if child.poll() is None else [])
        yield child
        child.kill()


def test_sigkill_comes_after_a_grace_and_at_once_in_a_hurry(deaf, monkeypatch, capfd):
    sent = []
    send = hostos.send
    monkeypatch.setattr(hostos, "send", lambda pid, signum: (sent.append(signum.name), send(pid, signum)))
    leftovers.end_the_rest(None, lambda: len(sent) > 0)
    assert (sent, hostos.parent_of(deaf.pid)) == (["SIGTERM", "SIGKILL"], None)
    assert capfd.readouterr().err == ""


def test_what_sigkill_does_not_end_is_named_and_left(deaf, monkeypatch, capfd):
    monkeypatch.setattr(hostos, "send", lambda pid, signum: None)  # as for a process that waits in the kernel
    monkeypatch.setattr(leftovers, "_END_GRACE", 0.05)
    monkeypatch.setattr(leftovers, "_KILL_GRACE", 0.1)
    leftovers.end_the_rest(None, lambda: False)
    assert f"SIGKILL does not end process {deaf.pid}:" in capfd.readouterr().err
    assert deaf.poll() is None


def test_the_one_to_keep_is_kept(deaf):
    leftovers.end_the_rest(deaf.pid, lambda: True)
    assert deaf.poll() is None
