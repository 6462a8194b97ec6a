import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import advise as program
import pytest
from advise_parts.advice import advise
from advise_parts.arguments import parse
from advise_parts.candidates import Candidate, candidates, launch_words, script_words, turns
from advise_parts.measured import Measured
from advise_parts.report import render, show
from advise_parts.summary import as_json, command, conclude, quantities
from bench_parts import markdown, resume
from bench_parts.arguments import UsageError
from bench_parts.processes import ProcessFailed
from bench_parts.statistics import Spread

from tests.unit.bench.machine_record import MACHINE

GIB = 1 << 30


def tried(strategy, seconds, batch=64, nproc=2, memory=1.0, all_reduce=None, failed=""):
    nproc = 1 if strategy == "single" else nproc
    spread = None if failed else Spread.of([seconds * f for f in (0.9, 1.0, 1.1)])
    samples = None if batch is None else float(batch)
    return Measured(
        Candidate(strategy, nproc, batch), spread, samples, int(memory * GIB), 8 * GIB, 1_000_000, all_reduce, failed
    )


def said(*measured, follows=True, busy=0.0):
    found = advise(measured, follows, busy)
    return found.best and found.best.candidate.name, "\n".join(found.reasons)


def test_the_fastest_that_fits_is_taken_with_its_numbers():
    tries = tried("single", 0.1), tried("ddp", 0.06), tried("fsdp", 0.07, memory=0.5)
    best, why = said(*[replace(each, on_gpu=True) for each in tries])
    assert best == "ddp, 2 ranks, batch 64"
    assert "1,067 samples/s, a step takes 60 ms (57 to 63); nothing else that fits is faster." in why
    assert "ddp on 2 ranks has 1.67x the rate of one process, 83% of perfect." in why
    assert "FSDP has 0.86x its rate and 0.50x its memory: take it if the model or the batch is to grow" in why
    assert "a rank used 1 GiB of 8 GiB at most" in why


def test_ranks_that_share_the_cores_of_one_process_have_no_perfect_rate():
    _, why = said(tried("single", 0.1), tried("ddp", 0.095))
    assert "ddp on 2 ranks has 1.05x the rate of one process, which had all the cores." in why
    assert "perfect" not in why


def test_one_process_may_be_the_fastest():
    best, why = said(tried("single", 0.05), tried("ddp", 0.06))
    assert best == "single, 1 rank, batch 64"
    assert "One process is faster than ddp on 2 ranks (1.20x): more ranks do not pay here." in why


def test_what_leaves_no_memory_is_not_taken_however_fast():
    best, why = said(tried("ddp", 0.05, memory=7.9), tried("fsdp", 0.09, memory=4.0))
    assert best == "fsdp, 2 ranks, batch 64"
    assert "ddp, 2 ranks, batch 64 does not fit: a rank used 7.9 GiB of 8 GiB at most." in why


def test_the_smallest_batch_that_is_nearly_as_fast():
    best, why = said(tried("ddp", 0.064), tried("ddp", 0.125, batch=128), tried("ddp", 0.32, batch=256))
    assert best == "ddp, 2 ranks, batch 64"
    assert "Batch 128 is not even 5% faster (1,024 samples/s)" in why
    assert said(tried("ddp", 0.064), tried("ddp", 0.1, batch=128))[0] == "ddp, 2 ranks, batch 128"


def test_rates_of_different_batches_are_not_compared():
    _, why = said(tried("ddp", 0.064), tried("fsdp", 0.2, batch=128))
    assert "FSDP" not in why


def test_steps_are_compared_where_the_batch_is_not_known():
    best, why = said(tried("single", 0.1, batch=None), tried("ddp", 0.05, batch=None))
    assert best == "ddp, 2 ranks"
    assert "20 steps/s" in why


@pytest.mark.parametrize(("seconds", "much"), [(0.03, True), (0.003, False)])
def test_communication(seconds, much):
    _, why = said(tried("ddp", 0.06, all_reduce=seconds))
    assert f"summing 1,000,000 gradients over the ranks takes {1000 * seconds:g} ms alone, " in why
    assert ("gradient accumulation makes it rarer" in why) == much


@pytest.mark.parametrize(
    ("strategy", "follows", "hook"),
    [
        ("ddp", True, "`dtk.DDP(comm_hook='bf16')` halves it"),
        ("fsdp", True, ""),
        ("fsdp", False, "`bf16_compress_hook`"),
    ],
)
def test_a_hook_is_advised_that_the_script_can_take(strategy, follows, hook):
    _, why = said(tried(strategy, 0.06, all_reduce=0.03), follows=follows)
    assert "rarer" in why
    assert hook in why
    assert ("hook" in why) == bool(hook)


def test_a_script_with_its_own_process_group_is_advised_ranks_and_no_strategy():
    tries = tried("single", 0.1), tried("ddp", 0.06), tried("fsdp", 0.05), tried("zero2", 0.04)
    best, why = said(*tries, follows=False)
    assert best == "ddp, 2 ranks, batch 64", "the first of what is all the same, and not the one that noise favours"
    assert why.startswith("**The script does not follow --strategy**: it loads none of dist_toolkit, Accelerate, ")
    assert "2 ranks, batch 64: 1,067 samples/s" in why
    assert "the script on 2 ranks has 1.67x the rate of one process" in why
    assert not any(name in why for name in ("FSDP has", "ddp", "fsdp", "zero2"))


def copies(each):
    return replace(each, ranks=1)


def test_copies_that_do_not_train_together_are_no_way_to_train():
    alone = tried("single", 0.1), tried("single", 0.17, batch=128)
    best, why = said(*alone, *[copies(tried(name, 0.01)) for name in ("ddp", "zero2")], follows=False)
    assert best == "single, 1 rank, batch 128"
    assert "its 2 ranks made no process group: each trained a copy of its own" in why
    assert "1 rank, batch 128: 753 samples/s, a step takes 170 ms (162 to 179)" in why
    assert "docs/other-libraries.md" in why
    assert "ddp" not in why
    assert "zero2" not in why
    best, why = said(copies(tried("ddp", 0.06)), follows=False)
    assert best is None
    assert why.startswith("**No advice**: nothing was measured in one process; add single to --strategies")


def test_a_shared_machine_is_said_first():
    _, why = said(tried("ddp", 0.06), busy=1.3)
    assert why.startswith("**Other programs kept 1.3 cores busy meanwhile, so do not rely on the differences")


def test_what_failed_opens_the_advice_with_how_few_are_compared():
    lost = [tried(name, 0, failed="ImportError: x") for name in ("fsdp", "zero2")]
    found = advise([tried("single", 0.1), *lost, tried("ddp", 0, failed="TypeError: y")], True)
    assert found.best.candidate.strategy == "single"
    assert found.lost == (
        "**3 of 4 failed, so nothing is compared: only one ran.**",
        "Failed: fsdp, 2 ranks, batch 64; zero2, 2 ranks, batch 64: ImportError: x",
        "Failed: ddp, 2 ranks, batch 64: TypeError: y",
    )
    assert found.reasons[0].endswith("; nothing else ran.")
    found = advise([tried("single", 0.1), tried("ddp", 0.2), *lost], True)
    assert found.lost[0] == "**2 of 4 failed, so only 2 are compared.**"


def test_what_does_not_fit_is_an_answer_and_no_failure():
    full = replace(tried("ddp", 0, batch=128, failed="OutOfMemoryError: x"), out_of_memory=True)
    found = advise([tried("ddp", 0.1), full], True)
    assert found.lost == ()
    assert "ddp, 2 ranks, batch 128 does not fit: OutOfMemoryError: x" in found.reasons


def test_nothing_runs():
    best, why = said(tried("ddp", 0, failed="out of memory"), tried("fsdp", 1, memory=7.9))
    assert best is None
    assert "ddp, 2 ranks, batch 64: out of memory" in why
    assert "fsdp, 2 ranks, batch 64: leaves no memory" in why


def test_what_is_tried_and_how():
    found = candidates(("single", "ddp"), 4, (8, 16))
    assert [each.name for each in found] == [
        "single, 1 rank, batch 8", "ddp, 4 ranks, batch 8", "single, 1 rank, batch 16", "ddp, 4 ranks, batch 16",
    ]  # fmt: skip
    assert [each.strategy for _, each in turns(candidates(("single", "ddp"), 2, ()), 2)] == ["single", "ddp"] * 1 + [
        "ddp",
        "single",
    ]
    assert launch_words(Candidate("zero3", 4, None), "cuda", "bf16") == [
        "--nproc", "4", "--strategy", "deepspeed", "--zero-stage", "3", "--device", "cuda", "--precision", "bf16",
    ]  # fmt: skip
    assert script_words(["--n={batch}", "x"], 8) == ["--n=8", "x"]
    assert script_words(["--n={batch}"], None) == ["--n={batch}"]


def options(*argv):
    return parse(list(argv), cores=4, gpus=0, installed=lambda name: True)


def test_a_script_with_its_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.py").touch()
    given = options("--batch", "64,128", "--nproc", "2", "train.py", "--batch-size", "{batch}", "--out", "o")
    assert (given.target, given.words) == (str(tmp_path / "train.py"), ("--batch-size", "{batch}", "--out", "o"))
    assert (given.batches, given.out) == ((64, 128), Path("runs/bench-advise"))
    assert program.script(given, Candidate("ddp", 2, 64))[1:] == ["--batch-size", "64", "--out", "o"]


def test_a_model_has_its_batch_and_twice():
    given = options("mlp")
    assert given.batches[1] == 2 * given.batches[0]
    assert program.script(given, Candidate("ddp", 2, 64))[1:] == ["mlp", "--size", "small", "--batch", "64"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train.py"], "train.py is neither a file nor a model; models: mlp, resnet18"),
        (["mlp", "x"], "arguments behind the model mlp: x; options stand before it"),
        (["--strategies", "ddpp", "mlp"], "unknown strategy 'ddpp'"),
        (["--batch", "64", "script.py"], "and no {batch} in the script's arguments"),
        (["script.py", "{batch}"], "and no --batch"),
        (["--batch", "64,x", "mlp"], "is not a list of numbers"),
        (["--batch", "64,64", "mlp"], "or one twice"),
        (["--batch", "3", "--nproc", "2", "mlp"], "--batch 3 cannot be divided evenly among 2 ranks"),
        (["--nproc", "9", "mlp"], "--nproc 9 needs 9 cores, and 4 can be used"),
        (["--steps", "0", "mlp"], "--steps 0 is not a positive number"),
        (["--seconds", "nan", "mlp"], "--seconds nan is not a positive number"),
        ([], "MODEL or SCRIPT is missing: a Python file, or one of mlp,"),
        (["--size", "full", "script.py"], "--size full is for a model, and script.py is a script"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    Path("script.py").touch()
    with pytest.raises(UsageError) as caught:
        options(*argv)
    assert message in str(caught.value)


def test_a_library_that_is_missing():
    found = parse(["mlp"], cores=2, gpus=0, installed=lambda name: False)
    assert found.left_out == (("zero2", "deepspeed"),)
    with pytest.raises(UsageError, match="--strategies zero1 needs deepspeed"):
        parse(["--strategies", "zero1", "mlp"], cores=2, gpus=0, installed=lambda name: False)


def records(**more):
    shown = {
        "target": "train.py", "words": ["--batch-size", "{batch}"], "size": "", "strategies": ["single", "ddp"],
        "nproc": 2, "device": "cpu", "gpus": 0, "precision": "bf16", "batches": [64], "batch_is": "rank", "rounds": 1,
        "warmup": 5, "steps": 3, "seconds": 30.0, **more,
    }  # fmt: skip
    about = {"kind": "seen", "batch": 64, "round": 0, "gpu": None, "gpu_total": None, "device": "cpu", "rss": GIB}
    summed = {"bytes": 2_000_000, "seconds": 0.01}
    return [
        {**MACHINE, "benchmark": "advise", "options": shown},
        {**about, "strategy": "single", "nproc": 1, "ranks": 1, "seconds": [0.1] * 3, "weights": 10**6,
         "follows": True, "others": 0.0, "all_reduce": None},
        {**about, "strategy": "ddp", "nproc": 2, "ranks": 2, "seconds": [0.1, 0.11, 0.12], "weights": 10**6,
         "follows": True, "others": 0.0, "all_reduce": summed},
        {"kind": "failed", "strategy": "fsdp", "nproc": 2, "batch": 64, "round": 0, "why": "no | luck"},
        {"kind": "end", "status": "complete"},
    ]  # fmt: skip


def test_the_report():
    report = markdown.text(render(records()))
    taken = "dtk launch --nproc 2 --strategy ddp --device cpu --precision bf16 train.py --batch-size 64"
    opening = "**1 of 3 failed, so only 2 are compared.**\n\n- Failed: fsdp, 2 ranks, batch 64: no | luck\n\n"
    assert f"{opening}**Of what ran, take:** `{taken}`" in report
    assert "1,164 samples/s" in report, "64 samples of each of two ranks in 0.11 s"
    assert "20 ms alone" in report, "half of the gradients took 10 ms"
    assert report.count("no | luck") == 1
    assert "| fsdp | 2 | 64 | failed |" in report
    assert "GPUs: none was used" in report
    found = as_json(records())
    assert (found["best"]["strategy"], found["command"]) == ("ddp", taken)
    assert found["failed"] == {"fsdp, 2 ranks, batch 64": "no | luck"}
    names = [quantity.name[0] for quantity in quantities(records())]
    assert names == ["single, 1 rank, batch 64", "ddp, 2 ranks, batch 64"]
    assert json.loads(json.dumps(found))["measured"][0]["fits"] is True


def test_an_interrupted_run_says_first_how_few_are_compared(capsys):
    found = records(strategies=["single", "ddp", "fsdp", "zero2"])
    found[-1]["status"] = "interrupted"
    few = "1 of 4 were not measured, so only 2 are compared."
    assert as_json(found)["reasons"][0] == few
    assert not [reason for reason in as_json(found)["reasons"] if "**" in reason]
    show(found)
    said = capsys.readouterr().out
    assert said.index("The run was interrupted.") < said.index(few) < said.index("of what ran, take: dtk launch")
    report = markdown.text(render(found))
    assert report.index("The run was interrupted.") < report.index(few) < report.index("**Of what ran, take:**")


def test_the_command_for_a_model_is_options_alone():
    found = records(target="mlp", size="small", words=[])
    assert command(found, conclude(found).best) == "dtk launch --nproc 2 --strategy ddp --device cpu --precision bf16"
    assert "**Of what ran, take these options:**" in markdown.text(render(found))
    whole = [record for record in found if record["kind"] != "failed"]
    assert "**Take these options:**" in markdown.text(render(whole))


def test_the_command_is_one_for_a_shell():
    found = records(target="my scripts/train.py", words=["--note", "it's $HOME", "{batch}"], device="cuda")
    words = ["--nproc", "2", "--strategy", "ddp", "--precision", "bf16", "my scripts/train.py", "--note", "it's $HOME"]
    assert shlex.split(command(found, conclude(found).best)) == ["dtk", "launch", *words, "64"]


def test_the_command_for_a_script_that_follows_no_strategy_names_none():
    found = records()
    found[2] |= {"ranks": 1, "seconds": [0.01] * 3}
    assert as_json(found)["command"] == "dtk launch --nproc 1 --device cpu --precision bf16 train.py --batch-size 64"
    assert as_json(found)["best"] == {"strategy": None, "nproc": 1, "batch": 64}
    assert [each["rate"] for each in as_json(found)["measured"]] == [640.0, None, None]
    report = markdown.text(render(found))
    assert "| ddp | 2 | 64 | 10 ms | 10 to 10 | - |" in report
    del found[1]
    assert as_json(found)["command"] is None
    report = markdown.text(render([each for each in found if each["kind"] != "failed"]))
    assert "ake:**" not in report
    assert "Nothing that was tried runs" not in report
    found = [{**each, "follows": False} for each in records()]
    assert as_json(found)["command"].startswith("dtk launch --nproc 2 --device cpu --precision bf16 train.py")


def test_the_memory_of_a_job_is_its_limit():
    found = records()
    assert as_json(found)["measured"][1]["room"] == 4 * GIB
    found[0]["memory_limit_gib"] = 3.0
    assert [each["room"] for each in as_json(found)["measured"][:2]] == [3 * GIB, 1.5 * GIB]
    assert "| memory limit | 3.0 GiB" in markdown.text(render(found))


def test_what_was_not_tried_and_the_threads_are_said():
    found = records()
    assert "comm_hook='bf16'" in markdown.text(render(found))
    assert "Threads of a rank" not in markdown.text(render(found))
    found[1]["threads"], found[2]["threads"] = 2, 1
    assert "Threads of a rank: 2 of single x1, 1 of ddp x2." in markdown.text(render(found))


def test_a_script_of_the_same_name_in_another_folder_is_another(tmp_path, monkeypatch):
    described = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        Path("train.py").touch()
        described.append(program.describe(options("train.py")))
    assert [each["options"]["target"] for each in described] == ["train.py"] * 2, "as it was given"
    assert str(tmp_path) not in json.dumps(described)
    (words,) = resume.differences(*described)
    assert words.startswith("script sha256 ")
    assert program.describe(options("../b/train.py"))["options"]["target"] == "../b/train.py"
    assert not list(resume.differences(described[1], program.describe(options("train.py"))))
    Path("train.py").write_text("changed = True\n")
    assert list(resume.differences(described[1], program.describe(options("train.py"))))


def test_one_that_failed_and_was_measured_when_the_run_went_on():
    found = records()
    again = {**found[2], "strategy": "fsdp"}
    assert as_json([*found[:-1], again, found[-1]])["failed"] == {}


@pytest.fixture
def started(monkeypatch):
    """The candidates that were started, each of which ends as `outcome` says of its strategy."""
    names, outcome = [], {}

    def seen(_, candidate):
        names.append(candidate.strategy)
        if candidate.strategy in outcome:
            raise ProcessFailed(f"the ranks failed. The end of the output:\n{outcome[candidate.strategy]}")
        return {"kind": "seen"}

    monkeypatch.setattr(program, "_seen", seen)
    return names, outcome


def test_a_part_that_failed_is_a_failure_and_is_tried_again_by_resume(started):
    names, outcome = started
    outcome |= {"ddp": "TypeError: y", "fsdp": "torch.OutOfMemoryError: CUDA out of memory"}
    given, kept = options("--batch", "64", "--rounds", "2", "mlp"), []
    with pytest.raises(ProcessFailed, match="1 of 4 failed: ddp, 2 ranks, batch 64; the others were measured"):
        program.measure(given, kept.append, lambda _: None, [])
    assert names == ["single", "ddp", "fsdp", "zero2", "zero2", "single"]
    names.clear()
    outcome.pop("ddp")
    program.measure(given, kept.append, lambda _: None, list(kept))
    assert names == ["ddp", "ddp"]
    assert [record.get("out_of_memory") for record in kept if record["kind"] == "failed"] == [False, True]


def test_a_script_that_fails_alike_twice_is_not_tried_again(started):
    names, outcome = started
    outcome |= dict.fromkeys(("single", "ddp", "fsdp", "zero2"), "NameError: name 'x' is not defined")
    with pytest.raises(ProcessFailed, match="failed alike: NameError: name 'x' is not defined; that is the script's"):
        program.measure(options("mlp"), lambda _: None, lambda _: None, [])
    assert names == ["single", "ddp"]
    outcome["single"] = "NameError: name 'y' is not defined"
    names.clear()
    with pytest.raises(ProcessFailed):
        program.measure(options("--batch", "64", "--rounds", "1", "mlp"), lambda _: None, lambda _: None, [])
    assert len(names) == 4


def test_candidates_that_do_not_fit_alone_are_no_failure(started):
    names, outcome = started
    outcome["ddp"] = "RuntimeError: DefaultCPUAllocator: can't allocate memory"
    program.measure(options("--batch", "64", "--rounds", "1", "mlp"), lambda _: None, lambda _: None, [])
    assert len(names) == 4
    outcome |= dict.fromkeys(("single", "fsdp", "zero2"), outcome["ddp"])
    with pytest.raises(ProcessFailed, match="nothing that was tried runs"):
        program.measure(options("--batch", "64", "mlp"), lambda _: None, lambda _: None, [])


def test_the_driver_needs_no_torch():
    check = "import sys; sys.path.insert(0, 'benchmarks'); import advise; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60, cwd=Path(__file__).parents[3])
