"""`dtk bench NAME --slurm`: which words are whose, and the job that comes of them."""

import json
import re
import stat
from pathlib import Path

import pytest
from dtk_launch import bench, bench_job, joblogs, jobs
from dtk_launch.bench_job import HERE, REFUSED, TAKEN, build, checked, of_job, split
from dtk_launch.bench_words import split_script
from dtk_launch.errors import PlanError
from dtk_launch.job_record import JobRecord
from dtk_launch.jobref import JobRef
from dtk_launch.logs import LogOptions
from dtk_launch.options import SubmitOptions, flag_of, option_fields
from dtk_launch.resources import find_data
from dtk_launch.schedulers.slurm import Slurm

ROOT = Path(__file__).parents[3]
COMM = str(ROOT / "benchmarks" / "comm.py")


def options(**given):
    return SubmitOptions(**{"script": "bench-comm"} | given)


@pytest.fixture
def job_of(facts):
    """The job of a benchmark with these words, on the login node of ada, and its options."""

    def make(*words, out="/home/ada/project/runs/bench-comm", cores=2):
        given, args = split("comm", words)
        chosen = of_job(
            SubmitOptions(**{"script": "x"} | {k: v for k, v in given.items() if v is not None}), "comm", given
        )
        nodes = int(chosen.nodes or 1)
        return build("comm", args, chosen, facts(), nodes, {"out": out, "cores": cores}), chosen

    return make


@pytest.fixture
def script(job_of):
    """Its batch script."""
    return lambda *words, **needs: Slurm().render(job_of(*words, **needs)[0])


def test_options_of_submit_are_the_jobs_and_all_others_the_benchmarks():
    words = ["--sizes", "1K:1M", "-p", "gpu", "--rounds=3", "--time=10", "--backend", "gloo", "-c", "4", "--resume"]
    given, args = split("comm", words)
    assert args == ("--sizes", "1K:1M", "--rounds=3", "--backend", "gloo", "--resume")
    assert {name: value for name, value in given.items() if value is not None} == {
        "partition": "gpu",
        "time": "10",
        "cpus_per_task": 4,
    }


@pytest.mark.parametrize(
    ("own", "script"),
    [
        ("--slurm --batch 64,128", "train.py --slurm --time 9"),
        ("--time 5 --slurm", "resnet18"),
        ("--name mlp --json -c4 --mem=4G", "mlp --slurm"),
        ("--exclusive --resume --dry-run -c 4", "./x --nodes 2"),
        ("--slurm", "-- train.py --slurm"),
        ("--steps 5", "train.py -- --slurm"),
        ("--slurm --help", ""),
    ],
)
def test_what_stands_behind_a_script_is_the_scripts(own, script):
    words = (*own.split(), *script.split())
    assert split_script("advise", words) == (tuple(own.split()), tuple(script.split()))
    assert split_script("comm", words) == (words, ())


def test_the_switches_of_advise_are_known():
    folder = find_data("benchmarks")
    text = "".join((folder / part / "arguments.py").read_text("utf-8") for part in ("advise_parts", "bench_parts"))
    switches = re.findall(r'\(\s*"(--[a-z-]+)",\s*action="store_true"', text)
    assert "--resume" in switches
    for switch in switches:
        assert split_script("advise", (switch, "train.py")) == ((switch,), ("train.py",))


def test_slurm_of_a_script_reaches_it(monkeypatch, capsys):
    ran, submitted = [], []
    monkeypatch.setattr(bench.os, "execv", lambda _, argv: ran.append(argv[3:]))
    monkeypatch.setattr(bench.signal, "pthread_sigmask", lambda *_: None)  # of the tests' own process
    monkeypatch.setattr(bench_job, "submit", lambda name, _, *words: submitted.append(words))
    bench.run("advise", ("train.py", "--", "--slurm"))
    assert capsys.readouterr().err == ""
    bench.run("advise", ("train.py", "--slurm"))
    assert "--slurm stands after train.py and so is handed to it" in capsys.readouterr().err
    assert ran == [["train.py", "--", "--slurm"], ["train.py", "--slurm"]]
    with pytest.raises(SystemExit):
        bench.run("advise", ("--time", "5", "--slurm", "train.py", "--slurm"))
    assert submitted == [(("--time", "5"), ("train.py", "--slurm"))]


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_an_option_of_submit_that_makes_no_sense_is_refused_with_the_reason(field):
    default = getattr(SubmitOptions, field)
    words = [flag_of(field)] if isinstance(default, bool) else [flag_of(field), "3"]
    with pytest.raises(PlanError) as caught:
        split("comm", words)
    assert str(caught.value) == (
        f"{flag_of(field)} is for dtk submit, not for the job of a benchmark: {REFUSED[field]}; drop it"
    )


def test_every_option_of_submit_alone_is_taken_or_refused():
    ours = {field.name for field in option_fields(SubmitOptions)}
    assert set(TAKEN) | set(REFUSED) <= ours
    of_a_run = set(vars(SubmitOptions.__mro__[1])["__dataclass_fields__"])
    assert ours - of_a_run <= set(TAKEN) | set(REFUSED)


def test_no_benchmark_has_an_option_of_the_job():
    """As far as their sources name it; --nodes goes to both, and --json to the job."""
    folder = find_data("benchmarks")
    paths = [*folder.glob("[a-z]*.py"), *folder.glob("*_parts/arguments*.py")]
    own = {option for path in paths for option in re.findall(r'add\w*\(\s*"(--[a-z-]+)"', path.read_text("utf-8"))}
    taken = {flag_of(field) for field in (*TAKEN, *REFUSED)}
    assert {"--sizes", "--out", "--loops"} <= own
    assert own & taken <= {"--nodes", "--json"}


def test_what_a_file_says_of_training_is_not_for_a_benchmark():
    found = of_job(options(nodes="4", nproc="8", array="1-3", name="train", partition="gpu"), "comm", {})
    assert (found.nodes, found.name, found.array, found.nproc, found.partition) == ("", "", "", "auto", "gpu")


def test_the_script(script, golden):
    text = script(
        "--nodes", "2", "-p", "gpu", "-t", "00:10:00", "--gpus-per-node", "8", "-e", "NCCL_DEBUG=INFO it's",
        "--load", "cuda/12.4", "--sizes", "1K:1M", "--out", "my results", out="/scratch/my results", cores=8,
    )  # fmt: skip
    golden("submit/bench.sbatch", text)


def test_the_cores_are_those_that_the_ranks_need_unless_they_are_given(script):
    assert "#SBATCH --cpus-per-task=2\n" in script()
    assert "#SBATCH --cpus-per-task=6\n" in script("-c", "6")
    assert "cpus-per-task" not in script("--exclusive")


def test_the_driver_is_told_before_the_time_is_up_unless_it_is_to_be_told_otherwise(script):
    assert "#SBATCH --signal=B:TERM@60\n" in script()
    assert "--signal" not in script("--time", "00:04:00"), "it may come two minutes before the end"
    assert "--signal" in script("--time", "0"), "without a limit"
    assert script("--sbatch", "signal=B:TERM@300").count("--signal") == 1


def test_a_job_too_short_for_a_notice_says_what_is_kept(job_of):
    note = bench_job.without_notice(*job_of("--time", "00:04:00", out="/scratch/my results"))
    assert note.startswith("--time=00:04:00 is less than 5 minutes")
    assert "dtk bench report '/scratch/my results' writes its report, and --resume goes on" in note
    assert not bench_job.without_notice(*job_of("--time", "00:05:00"))


@pytest.mark.parametrize(
    ("args", "given", "nodes", "said"),
    [
        (["--szes", "1"], {}, 1, "dtk bench comm: unrecognized arguments: --szes 1; dtk bench comm --help lists"),
        (["--nproc", "4"], {"cpus_per_task": 2}, 1, "--nproc 4 needs 4 cores, and 2 can be used; pass at most"),
        (["--backend", "nccl"], {}, 1, "pass --backend gloo; with --slurm, --gpus-per-node N asks for them"),
        (["--nproc", "3"], {"gpus_per_node": "a100:2"}, 1, "--nproc 3 needs 3 GPUs, and 2 can be used"),
        (["--out", "file/x"], {}, 1, "cannot write to --out file/x"),
    ],
)
def test_bad_input_of_the_benchmark_is_found_before_the_queue(tmp_path, monkeypatch, args, given, nodes, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(PlanError) as caught:
        checked("comm", COMM, args, options(**given), nodes, environ())
    assert said in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def environ():
    return {"PYTHONPATH": f"{ROOT}:{ROOT / 'launch'}", "PATH": "/usr/bin:/bin"}


def test_what_this_host_has_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--nproc", "96", "--nodes", "4"]
    needs = checked("comm", COMM, words, options(), 4, environ())
    assert needs == {"out": str(tmp_path / "runs" / "bench-comm"), "cores": 96}
    assert checked("comm", COMM, [], options(gpus_per_node="8"), 1, environ())["cores"] == 8


def test_a_benchmark_of_one_node_says_so(tmp_path):
    path = str(ROOT / "benchmarks" / "overhead.py")
    with pytest.raises(PlanError, match="--nodes=2, but dtk bench overhead measures on one node; drop it"):
        checked("overhead", path, ["--nodes", "2"], options(), 2, environ())


@pytest.mark.parametrize("name", HERE)
def test_what_measures_nothing_is_no_job(name):
    with pytest.raises(PlanError, match=f"dtk bench {name} measures nothing; drop --slurm"):
        bench_job.submit(name, "", ())


def test_a_job_says_where_its_results_are_and_how_to_look_at_them(tmp_path, monkeypatch, capsys, facts):
    for name, answer in {"sbatch": "echo 41", "sinfo": "exit 1", "scontrol": "exit 1"}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{answer}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    out = tmp_path / "out"
    job = build("comm", (), options(), facts(cwd=tmp_path), 1, {"out": str(out), "cores": 2})
    jobs.deliver(job, options(), Slurm(), benchmark="comm")
    said = capsys.readouterr().out.splitlines()
    assert said == ["41", f"log: {out}/slurm-41.out", f"results: {out}", "watch: dtk status 41, dtk logs 41 -f"]
    assert JobRecord.read(out).benchmark == "comm"
    assert json.loads((out / "job.json").read_text())["benchmark"] == "comm"


def test_the_log_of_a_benchmark_is_the_jobs_own(tmp_path, capfdbinary):
    log = tmp_path / "slurm-41.out"
    log.write_text("round 1 of 3\nreport: here\n")
    record = JobRecord("41", "", 0.0, str(log), "", "", benchmark="comm")
    joblogs.show(JobRef("41", tmp_path, record), LogOptions(tail=1), False, {})
    assert capfdbinary.readouterr().out == b"report: here\n"
