"""`dtk submit` on a real cluster of two nodes."""

import json
import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm
DIGITS = Path(__file__).parents[2] / "examples" / "train_digits.py"

# Everything that a shell, a template, sbatch or argparse might take for its own.
ARGUMENTS = (
    "--nodes",
    "--help",
    'it\'s "quoted"',
    "$HOME ${PATH} $(id) `id`",
    "a;b&&c|d>e<f&",
    "  two  spaces  ",
    "line\nbreak",
    "tab\tand \\n",
    "grüße 漢字 🙂",
    "*",
    "~",
    "!!",
    "#SBATCH --nodes=9",
    "%j",
    "{{ plan }} {% raw %}",
    "",
    "-",
)
ECHO = """
import json, os, socket, sys
said = {"host": socket.gethostname(), "argv": sys.argv, "cwd": os.getcwd(), "python": sys.executable}
said |= {name: os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
sys.stdout.write("@" + json.dumps(said) + "@\\n")
"""
ONE_RANK_FAILS = """
import os, sys, time
if os.environ["RANK"] == "1":
    print("rank 1 gives up", file=sys.stderr)
    sys.exit(7)
time.sleep(600)
"""


def dtk_submit(cluster, run_dir, *arguments, cwd, partition="main"):
    options = [
        "--nodes",
        "2",
        "--nproc",
        "1",
        "--time",
        "00:05:00",
        "--partition",
        partition,
        "--run-dir",
        str(run_dir),
    ]
    command = [sys.executable, "-m", "dtk_launch", "submit", *options, *map(str, arguments)]
    # The nodes share this machine's cores: a thread for each core on every node makes training three times as slow.
    return cluster.run(command, cwd=cwd, check=False, env={"OMP_NUM_THREADS": "1"})


def submitted(cluster, *arguments, cwd):
    """Submit, with the run directory in `cwd`. Returns the id of the job, which dtk is to print."""
    before = cluster.job_ids()
    done = dtk_submit(cluster, cwd / "run", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    (new,) = set(cluster.job_ids()) - set(before)
    assert re.search(rf"\b{new}\b", done.stdout), f"job {new} is not named in:\n{done.stdout}"
    return int(new)


@pytest.fixture
def write(tmp_path):
    """A function that writes a training script; in a folder with a space, as in people's home directories."""

    def write(text):
        path = tmp_path / "my project" / "train.py"
        path.parent.mkdir()
        path.write_text(text)
        return path

    return write


def said_by_both(job):
    """What the two ranks of ECHO, one on each node, have printed, by rank."""
    assert (job.state, job.exit_code, job.nodes) == ("COMPLETED", "0:0", "n[1-2]"), job.log
    said = sorted((json.loads(line) for line in re.findall(r"@(\{.*\})@", job.log)), key=lambda rank: rank["RANK"])
    assert [(rank["RANK"], rank["LOCAL_RANK"], rank["WORLD_SIZE"]) for rank in said] == [
        ("0", "0", "2"),
        ("1", "0", "2"),
    ]
    assert sorted(rank["host"] for rank in said) == ["n1", "n2"]
    return said


def test_every_rank_runs_on_its_node_with_the_arguments_as_given(cluster, tmp_path, write):
    script = write(ECHO)
    job_id = submitted(cluster, script, *ARGUMENTS, cwd=tmp_path)
    job = cluster.wait_job(job_id)
    said = said_by_both(job)
    for rank in said:
        assert rank["argv"] == [str(script), *ARGUMENTS]
        assert rank["cwd"] == str(tmp_path)
        assert Path(rank["python"]).parent == Path(sys.executable).parent  # this environment's, not the node's own


def test_without_dtk_on_the_nodes_it_is_the_same_also_where_names_lead_nowhere(cluster, tmp_path, write):
    script, hosts = write(ECHO), cluster.directory / "etc" / "hosts"
    known = hosts.read_text()
    try:
        hosts.write_text("127.0.0.1 localhost\n")  # the same file on every node
        job = cluster.wait_job(submitted(cluster, "--plain", script, *ARGUMENTS, cwd=tmp_path))
    finally:
        hosts.write_text(known)
    said = said_by_both(job)
    assert {tuple(rank["argv"]) for rank in said} == {(str(script), *ARGUMENTS)}


SITE = """#!/bin/bash
{% for key, value in directives %}
#SBATCH --{{ key }}{% if value is not none %}={{ value | quote }}{% endif %}

{% endfor %}
{% for line in setup %}
{{ line }}
{% endfor %}
export OF_THE_SITE=yes
{{ srun | words }} {{ launch | words }}
"""
ONE_OF_MANY = """
import os
for name in ("OF_THE_SITE", "OF_THE_USER", "SLURM_ARRAY_TASK_ID"):
    print("@", os.environ[name], sep="", end="")
print("@")
"""


def test_an_array_with_a_template_of_the_site_and_lines_of_the_user(cluster, tmp_path, write):
    (tmp_path / "site.j2").write_text(SITE)
    given = ["--nodes", "1", "--array", "1,3", "--template", "site.j2", "--setup", "export OF_THE_USER='a $b'"]
    options = ["--nproc", "1", "--time", "00:05:00", "--run-dir", str(tmp_path / "run"), *given]
    command = [sys.executable, "-m", "dtk_launch", "submit", *options, str(write(ONE_OF_MANY))]
    before = cluster.job_ids()
    done = cluster.run(command, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    array = int(done.stdout.split()[0])
    cluster.wait_until(lambda: len(set(cluster.job_ids()) - set(before)) == 2, "both tasks are jobs")
    for job in set(cluster.job_ids()) - set(before):
        assert cluster.wait_job(job).state == "COMPLETED"
    for task in (1, 3):
        assert f"@yes@a $b@{task}@" in (tmp_path / "run" / f"slurm-{array}_{task}.out").read_text()
        plan = json.loads((tmp_path / "run" / f"task-{task}" / "plan.json").read_text())
        assert plan["name"] == f"train-{task}"
    listed = cluster.run([sys.executable, "-m", "dtk_launch", "runs", str(tmp_path / "run")], cwd=tmp_path).stdout
    assert sorted(line.split()[:2] for line in listed.splitlines()[1:]) == [
        ["run/task-1", "ended"],
        ["run/task-3", "ended"],
    ]


@pytest.mark.slow  # test_guide.py trains, too
def test_the_demo_trains_on_two_nodes(cluster, tmp_path):
    job_id = submitted(cluster, DIGITS, cwd=tmp_path)
    job = cluster.wait_job(job_id, timeout=120)
    assert (job.state, job.exit_code, job.nodes) == ("COMPLETED", "0:0", "n[1-2]"), job.log
    last_line = re.search(r"\n\S+ test accuracy (\d\.\d+)\n\Z", job.log)
    assert last_line, job.log
    assert float(last_line[1]) >= 0.95
    records = [json.loads((tmp_path / "run" / "ranks" / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(record["host"] for record in records) == ["n1", "n2"]
    assert [record["exit"]["code"] for record in records] == [0, 0]
    cluster.wait_until(lambda: not cluster.job_processes(), "no process of the job is left")


def test_a_rank_that_fails_ends_the_job_as_failed_and_leaves_no_process(cluster, tmp_path, write):
    job_id = submitted(cluster, write(ONE_RANK_FAILS), cwd=tmp_path)
    job = cluster.wait_job(job_id)
    assert job.state == "FAILED", job.log
    assert job.exit_code == "7:0", job.log  # of the rank that failed first: each node's dtk ends with it
    assert job.log.count("failed first") == 2, job.log  # the verdict, once, and who ended the other node
    assert "rank 1 gives up" in job.log
    cluster.wait_until(lambda: not cluster.job_processes(), "no process of the job is left")


def test_a_missing_script_is_refused_before_anything_is_submitted(cluster, tmp_path):
    before = cluster.job_ids()
    done = dtk_submit(cluster, tmp_path / "run", "no_such_script.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "no_such_script.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert cluster.job_ids() == before


NEVER = [
    (["--partition", "nowhere"], "--partition=nowhere: unknown partition 'nowhere'; known: hi, main"),
    (["--nodes", "9"], "--nodes=9, but partition hi has 2 nodes"),
    (["--cpus-per-task", "99"], "--cpus-per-task=99, but 0 of the 2 nodes of partition hi have that (most: 2 cores)"),
    (["--mem", "1T"], "--mem=1T, but 0 of the 2 nodes of partition hi have that (most: 4000 MB)"),
    (["--gpus-per-node", "3"], "--gpus-per-node=3, but 0 of the 2 nodes of partition hi have that (most: 0 GPUs)"),
    (["--constraint", "a100"], "--constraint=a100, but 0 of the 2 nodes of partition hi have that (most: none)"),
    (["--reservation", "mine"], "Requested reservation is invalid. It means: no such reservation; scontrol show"),
    (["--sbatch", "nodelist=n77"], "sbatch would refuse this job: "),
]


def test_what_could_never_start_is_refused_with_the_numbers(cluster, tmp_path, write):
    script, before = write(ECHO), cluster.job_ids()
    for words, said in NEVER:
        options = ["--nproc", "1", "--run-dir", str(tmp_path / "run"), "--partition", "hi", *words]
        for flag in {"--partition"} & set(words):
            del options[options.index(flag) : options.index(flag) + 2]
        command = [sys.executable, "-m", "dtk_launch", "submit", *options, str(script)]
        done = cluster.run(command, cwd=tmp_path, check=False)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert cluster.job_ids() == before


def test_a_dry_run_submits_nothing_and_prints_the_script_that_would_run(cluster, tmp_path, write):
    before = cluster.job_ids()
    done = dtk_submit(cluster, tmp_path / "run", "--dry-run", write(ECHO), *ARGUMENTS, cwd=tmp_path)
    assert done.stdout.startswith("#!")
    assert "#SBATCH --nodes=2" in done.stdout
    assert cluster.job_ids() == before
    assert not (tmp_path / "run").exists()
    by_hand = tmp_path / "by-hand.sh"
    by_hand.write_text(done.stdout)
    assert cluster.run(["sbatch", "--test-only", str(by_hand)], cwd=tmp_path).returncode == 0


def test_a_users_own_settings_of_slurms_programs_change_nothing(cluster, tmp_path, write):
    script = write("pass\n")
    theirs = {
        "SBATCH_PARTITION": "hi",
        "SBATCH_TIMELIMIT": "1",
        "SBATCH_OPEN_MODE": "truncate",
        "SBATCH_WAIT": "1",
        "SLURM_TIME_FORMAT": "relative",
        "SQUEUE_PARTITION": "hi",
        "SQUEUE_FORMAT2": "jobid",
        "SINFO_PARTITION": "no",
    }

    def dtk(*words):
        command = [sys.executable, "-m", "dtk_launch", *map(str, words)]
        return json.loads(cluster.run(command, cwd=tmp_path, env=theirs).stdout)

    asked = ("--nproc", "1", "--time", "5", "--partition", "main", "--sbatch", "hold", "--name", "set", "--json")
    job = dtk("submit", *asked, script)["job_id"]
    try:
        shown = cluster.run(["scontrol", "show", "job", job]).stdout
        assert " Partition=main " in f" {' '.join(shown.split())} "
        assert "TimeLimit=00:05:00" in shown
        (listed,) = [found for found in dtk("status", "--json") if found["id"] == job]
        (asked_for,) = dtk("status", "set", "--json")
        assert listed["submitted"] == asked_for["submitted"] is not None
    finally:
        cluster.run(["scancel", job])
