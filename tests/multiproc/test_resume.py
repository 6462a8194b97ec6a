"""Statements 1 to 6: a resumed run is the same run."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch

import dist_toolkit as dtk
from dist_toolkit.testing import RanksFailed, run_ranks
from tests.multiproc.training import Noisy, Program, history, net, order, train

pytestmark = pytest.mark.multiproc


@cache
def uninterrupted(ranks: int) -> tuple[Path, dict]:
    """The run that the others must equal: its directory and its result. 4 epochs of 3 steps."""
    root = Path(mkdtemp(prefix="dtk-reference-"))
    results = run_ranks(train, ranks, Program(str(root)))
    assert len({result["digest"] for result in results}) == 1
    return root, results[0]


def launch_until_killed(program: Program, ranks: int, rank: int, step: int) -> None:
    with pytest.raises(RanksFailed) as failure:
        run_ranks(train, ranks, replace(program, kill_rank=rank, kill_step=step))
    assert failure.value.outcomes[rank].exitcode == -signal.SIGKILL


def assert_same_run(root: Path, result: dict, ranks: int) -> None:
    reference_root, reference = uninterrupted(ranks)
    assert result == reference
    assert history(root, ranks) == history(reference_root, ranks)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("step", [5, 11], ids=["first epochs", "epoch 4"])
def test_killed_run_equals_uninterrupted_run(tmp_path: Path, ranks: int, workers: int, step: int) -> None:
    program = Program(str(tmp_path), workers=workers)
    launch_until_killed(program, ranks, rank=ranks - 1, step=step)
    result = run_ranks(train, ranks, program)[0]
    assert_same_run(tmp_path, result, ranks)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_collate_function_that_draws_resumes_exactly(tmp_path: Path, workers: int) -> None:
    """Mixing over plain tensors: the random numbers of a batch belong to the batch, on any number of workers."""
    whole = Program(str(tmp_path / "whole"), mix=True)
    Path(whole.root).mkdir()
    expected = run_ranks(train, 2, whole)
    parts = Program(str(tmp_path / "parts"), mix=True, workers=workers)
    Path(parts.root).mkdir()
    launch_until_killed(parts, 2, rank=1, step=8)
    assert run_ranks(train, 2, parts) == expected
    assert history(Path(parts.root), 2) == history(Path(whole.root), 2)


def test_a_save_in_the_loop_is_of_the_step_just_done(tmp_path: Path) -> None:
    program = Program(str(tmp_path), save_in_body=True)
    launch_until_killed(program, 2, rank=0, step=8)
    assert sorted(path.name for path in (tmp_path / "ckpt").glob("step-*")) == ["step-00000003", "step-00000006"]
    assert_same_run(tmp_path, run_ranks(train, 2, program)[0], 2)


def test_a_save_before_the_update_does_not_stand_for_the_step(tmp_path: Path) -> None:
    program = Program(str(tmp_path), save_early=True)
    launch_until_killed(program, 2, rank=0, step=8)
    assert_same_run(tmp_path, run_ranks(train, 2, program)[0], 2)
    manifest = json.loads((tmp_path / "ckpt" / "step-00000012" / "manifest.json").read_text())
    assert manifest["body"]["metrics"] == {"loss": 12.0}, "saved again, a step keeps what was reported of it"


def test_three_resumes_in_one_epoch(tmp_path: Path) -> None:
    """Epochs of 8 steps, saved at each step, killed at 10, 12 and 14: three times in epoch 2."""
    program = Program(str(tmp_path), length=100, epochs=3, every=1, workers=1)
    for step in (10, 12, 14):
        launch_until_killed(program, 1, rank=0, step=step)
    result = run_ranks(train, 1, program)
    other = Program(str(tmp_path / "whole"), length=100, epochs=3, every=1, workers=1)
    Path(other.root).mkdir()
    assert result == run_ranks(train, 1, other)
    assert history(tmp_path, 1) == history(Path(other.root), 1)


def load_and_save(root: str) -> None:
    with dtk.init(seed=5) as rt:
        engine = rt.setup(net, lambda parameters: torch.optim.AdamW(parameters, lr=0.01))
        loader = rt.loader(Noisy(40), global_batch_size=12)
        ckpt = rt.checkpointer(Path(root) / "ckpt", engine=engine, loader=loader)
        assert ckpt.restore() is not None
        ckpt.save()


def test_load_save_load_with_no_batch_between(tmp_path: Path) -> None:
    program = Program(str(tmp_path))
    launch_until_killed(program, 2, rank=0, step=8)
    run_ranks(load_and_save, 2, str(tmp_path))
    run_ranks(load_and_save, 2, str(tmp_path))
    result = run_ranks(train, 2, program)[0]
    assert_same_run(tmp_path, result, 2)


def test_prefetched_batches_come_exactly_once(tmp_path: Path) -> None:
    """Two workers have fetched up to four batches ahead when the rank is killed."""
    program = Program(str(tmp_path), length=120, epochs=1, every=2, workers=2)
    launch_until_killed(program, 1, rank=0, step=6)
    run_ranks(train, 1, program)
    assert sorted(order(tmp_path, 1)) == list(range(120))


@pytest.mark.parametrize("ranks", [(2, 1), (2, 3), pytest.param((4, 2, 3, 1), marks=pytest.mark.slow)], ids=str)
def test_order_is_the_same_on_any_number_of_ranks(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    """Killed in the third step after each checkpoint and started again on another number of ranks."""
    program = Program(str(tmp_path))
    for number, count in enumerate(ranks[:-1]):
        launch_until_killed(program, count, rank=count - 1, step=3 * number + 5)
    run_ranks(train, ranks[-1], program)
    seen = {}
    for number, count in enumerate(ranks):
        last = 12 if count == ranks[-1] else 3 * number + 3
        for step in range(3 * number + 1, last + 1):
            entries = [next(e for e in _lines(tmp_path, rank) if (e["step"], len(e["ids"])) == (step, 12 // count))
                       for rank in range(count)]  # fmt: skip
            seen[step] = [n for entry in entries for n in entry["ids"]]
    reference = {step: [n for entry in e for n in entry["ids"]] for step, e in history(uninterrupted(2)[0], 2).items()}
    assert seen == reference


def _lines(root: Path, rank: int) -> list[dict]:
    return [json.loads(line) for line in (root / f"log-{rank}.jsonl").read_text().splitlines()]


def test_augmentation_does_not_depend_on_ranks(tmp_path: Path) -> None:
    """The noise belongs to the sample: the one-process run and the two-rank run train on the same numbers."""

    def inputs(ranks: int) -> list[str]:
        root, _ = uninterrupted(ranks)
        return [entry["x"] for entry in history(root, ranks)[1]]

    assert run_ranks(first_batch, 1)[0] == [row for rows in run_ranks(first_batch, 2) for row in rows]
    assert len(set(inputs(2))) == 2


def first_batch() -> list[list[float]]:
    with dtk.init(seed=5) as rt:
        _, x, _ = next(iter(rt.loader(Noisy(40), global_batch_size=12)))
        return x.tolist()


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (1, 3)])
def test_other_number_of_workers_on_resume(tmp_path: Path, before: int, after: int) -> None:
    program = Program(str(tmp_path), workers=before)
    launch_until_killed(program, 1, rank=0, step=8)
    result = run_ranks(train, 1, replace(program, workers=after))[0]
    assert_same_run(tmp_path, result, 1)


def test_evaluation_leaves_the_run_alone(tmp_path: Path) -> None:
    """Statement 35: with an evaluation (its own random augmentation, empty shares) after every step, the same run."""
    result = run_ranks(train, 2, Program(str(tmp_path), evaluate=True))[0]
    assert_same_run(tmp_path, result, 2)


def test_persistent_workers_make_the_same_run(tmp_path: Path) -> None:
    result = run_ranks(train, 2, Program(str(tmp_path), workers=1, persistent=True))[0]
    assert_same_run(tmp_path, result, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_preempted_run_saves_one_agreed_step_and_goes_on(tmp_path: Path, ranks: int, number: int) -> None:
    """One rank gets the signal in step 5: all leave with code 75, no step is lost, and the rest is the same run."""
    program = Program(str(tmp_path), workers=1)
    with pytest.raises(RanksFailed) as failure:
        run_ranks(train, ranks, replace(program, kill_rank=ranks - 1, kill_step=5, kill_signal=number))
    assert [outcome.exitcode for outcome in failure.value.outcomes] == [dtk.Preempted.EXIT_CODE] * ranks
    assert sorted(path.name for path in (tmp_path / "ckpt").iterdir())[-1] in ("step-00000005", "step-00000006")
    done = max(history(tmp_path, ranks))
    assert sorted(path.name for path in (tmp_path / "ckpt").iterdir())[-1] == f"step-{done:08d}", "no step was lost"
    result = run_ranks(train, ranks, program)[0]
    assert_same_run(tmp_path, result, ranks)


def test_a_signal_to_the_group_of_a_rank_spares_its_loader_workers(tmp_path: Path) -> None:
    """torchrun signals groups; a worker that died of it would take its rank along before the save."""
    program = Program(str(tmp_path), workers=2)
    stopped = replace(program, kill_rank=1, kill_step=5, kill_signal=signal.SIGTERM, kill_group=True)
    with pytest.raises(RanksFailed) as failure:
        run_ranks(train, 2, stopped)
    assert [outcome.exitcode for outcome in failure.value.outcomes] == [dtk.Preempted.EXIT_CODE] * 2
    assert_same_run(tmp_path, run_ranks(train, 2, program)[0], 2)


def draws_after_resume(root: str) -> list[float]:
    with dtk.init(seed=5) as rt:
        engine = rt.setup(net, lambda parameters: torch.optim.AdamW(parameters, lr=0.01))
        rt.checkpointer(Path(root) / "ckpt", engine=engine, loader=rt.loader(Noisy(40), global_batch_size=12)).restore()
        return torch.rand(4).tolist()


def test_random_streams_after_a_resume_on_other_ranks(tmp_path: Path) -> None:
    """New ones, different on each rank and at each step, and the same every time."""
    program = Program(str(tmp_path), background=False)  # so that the kill always finds the step before it committed
    launch_until_killed(program, 2, rank=0, step=5)
    draws = run_ranks(draws_after_resume, 3, str(tmp_path))
    assert len({tuple(draw) for draw in draws}) == 3
    assert run_ranks(draws_after_resume, 3, str(tmp_path)) == draws
    launch_until_killed(program, 2, rank=0, step=8)
    later = run_ranks(draws_after_resume, 3, str(tmp_path))
    assert not {tuple(draw) for draw in draws} & {tuple(draw) for draw in later}
