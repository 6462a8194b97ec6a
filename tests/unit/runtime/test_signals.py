"""What SIGTERM and SIGUSR1 do in a process that trains, and in one that does not."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest

from dist_toolkit.testing import start_ranks

SCRIPT = """
import logging, os, signal, torch
from functools import partial
import dist_toolkit as dtk

def hit(name):
    os.kill(os.getpid(), getattr(signal, name))

class Hitter:
    armed = False
    def state_dict(self):
        return self.armed and hit("SIGTERM") or {{}}
    def load_state_dict(self, state):
        self.armed and hit("SIGTERM")

{before}
with dtk.init(seed=0) as rt:
    logging.getLogger("dist_toolkit").addHandler(logging.FileHandler("said"))
    engine = rt.setup(partial(torch.nn.Linear, 2, 1), partial(torch.optim.SGD, lr=0.1))
    loader = rt.loader(torch.utils.data.TensorDataset(torch.ones(40, 2)), global_batch_size=4)
    {body}
say("the end")
"""
CKPT = "ckpt = rt.checkpointer('ckpt', engine=engine, loader=loader); "
HITTER = "hits = Hitter(); ckpt = rt.checkpointer('ckpt', engine=engine, state={'hits': hits}); "
ASKS = "rt.stop_requested(); hit('SIGTERM'); ckpt.save(1); say(rt.stop_requested())"
STEP = "engine.backward(engine(torch.ones(2, 2)).mean()); engine.step(); "
LOOP = "[(engine.backward(engine(x).mean()), engine.step(), say(step)) for step, (x,) in ckpt.steps(loader, until=4)]; "

CASES = {
    # body, exit code, stdout
    "SIGTERM without a checkpointer": ("hit('SIGTERM')", -signal.SIGTERM, ""),
    "SIGUSR1 without a checkpointer": ("hit('SIGUSR1')", 0, "the end"),
    "SIGTERM before the loop": (CKPT + "hit('SIGTERM')", 75, ""),
    "SIGUSR1 before the loop": (CKPT + "hit('SIGUSR1')", 75, ""),
    "SIGUSR1 before the checkpointer": ("hit('SIGUSR1'); " + CKPT + LOOP, 75, "1"),
    "SIGTERM after the loop": (CKPT + LOOP + "hit('SIGTERM')", 75, "1\n2\n3\n4"),
    "SIGTERM in a loop of one's own": (CKPT + STEP + "hit('SIGTERM')", -signal.SIGTERM, ""),
    "SIGUSR1 in a loop of one's own": (CKPT + STEP + "hit('SIGUSR1'); ckpt.save(1)", 75, ""),
    "SIGTERM after a save of one's own": (CKPT + STEP + "ckpt.save(1); hit('SIGTERM')", 75, ""),
    "SIGTERM after a begun save": (CKPT + STEP + "ckpt.save(1, wait=False); hit('SIGTERM')", -signal.SIGTERM, ""),
    "SIGTERM in a restore": (HITTER + "ckpt.save(1); hits.armed = True; ckpt.restore(); say('restored')", 75, ""),
    "SIGTERM in a save": (HITTER + "hits.armed = True; ckpt.save(1); say('saved')", 75, ""),
    "a script that asks": (CKPT + ASKS, 0, "True\nthe end"),
    "in the last step": (CKPT + LOOP.replace("say(step)", "step == 4 and hit('SIGTERM')"), 75, ""),
}  # fmt: skip


def script(text: str) -> None:
    with open("out", "w", buffering=1) as out:
        exec(text, {"say": partial(print, file=out)})


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(tmp_path: Path, body: str, before: str = "", **env: str) -> tuple[int, str]:
    """Exit code and what was said, of a process of its own in `tmp_path`."""
    (outcome,) = start_ranks(script, 1, SCRIPT.format(body=body, before=before), env=env).wait(60.0)
    assert outcome.error is None or outcome.exitcode != 1, outcome.error
    return outcome.exitcode, (tmp_path / "out").read_text().strip()


@pytest.mark.parametrize("case", CASES)
def test_a_signal(case: str, tmp_path: Path) -> None:
    body, code, out = CASES[case]
    assert run(tmp_path, body) == (code, out)
    if "save" in case and code == 75:
        assert (tmp_path / "ckpt/step-00000001/manifest.json").exists()
    assert ("started again, it goes on" in (tmp_path / "said").read_text()) == (code == 75)


def test_a_handler_of_the_scripts_own_is_in_charge_outside_the_loop(tmp_path: Path) -> None:
    before = "signal.signal(signal.SIGTERM, lambda *_: say('mine'))"
    body = CKPT + "hit('SIGTERM'); " + LOOP
    assert run(tmp_path, body, before) == (75, "mine\n1"), "the loop still acts on it"


def test_a_handler_in_c_stays(tmp_path: Path) -> None:
    before = "import faulthandler; faulthandler.register(signal.SIGUSR1, open('stacks', 'w'))"
    assert run(tmp_path, CKPT + LOOP.replace("say(step)", "hit('SIGUSR1')"), before) == (0, "the end")
    assert (tmp_path / "stacks").read_text().count("most recent call first") == 4


def test_a_notice_before_init_is_a_request(tmp_path: Path) -> None:
    assert run(tmp_path, CKPT + LOOP, DTK_STOP="SIGUSR1") == (75, "1")
