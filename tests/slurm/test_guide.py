"""The guide of slurm/README.md, followed on a cluster like the one that it was written on."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.slurm_guide import HOME, commands, part, quotes, rows

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def four_nodes(make_cluster):
    """The test cluster as up.sh starts it."""
    with make_cluster(NODES=4, CPUS=4, GPUS=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ada(tmp_path_factory):
    """A home with an environment of dtk in it."""
    home = tmp_path_factory.mktemp("ada")
    (home / "dtk-env").mkdir()
    (home / "dtk-env" / "bin").symlink_to(Path(sys.executable).parent)
    return home


def alike(text: str, home: Path) -> list[str]:
    """Its lines with other numbers than the guide's put down as equal, without notes of dtk and warnings of torch."""
    lines = text.replace(str(Path(sys.executable).parent), f"{HOME}/dtk-env/bin").replace(str(home), HOME).splitlines()
    kept = [line for line in lines if not re.search(r"\[W\d|dtk: note: ", line)]
    return [re.sub(r"\s+", " ", re.sub(r"\d+([.:]\d+)*(\+\w+)?", "N", line)).strip() for line in kept]


def test_the_first_job_goes_as_it_is_written(four_nodes, ada):
    folder, env = ada, {"HOME": str(ada), "OMP_NUM_THREADS": "1", "PATH": f"{ada}/dtk-env/bin:{os.environ['PATH']}"}
    for command, printed in commands(part("The first job in five minutes")):
        if command.startswith("cd "):
            folder /= command[3:]
            continue
        done = four_nodes.run(["bash", "-c", command], cwd=folder, env=env, timeout=120)
        said = alike(done.stdout, ada)
        if command == "dtk status train":  # how far it has come differs
            assert said[0].startswith("job N: "), done.stdout
            assert set(alike(printed, ada)[-2:]) <= set(said)
        elif command == "dtk status":
            four_nodes.wait_job(int(re.search(r"^(\d+) +train ", done.stdout, re.MULTILINE)[1]))
            done = four_nodes.run(["bash", "-c", command], cwd=folder, env=env)
            assert alike(done.stdout, ada) == alike(printed, ada)
        elif printed:
            assert said == alike(printed, ada), done.stdout + done.stderr
    run = folder / "runs" / "train"
    files = [quote for cells in rows(part("The first job in five minutes")) for quote in quotes(cells[0])]
    there = {re.sub(r"\d+", "N", str(path.relative_to(run))) for path in run.rglob("*")}
    assert {re.sub(r"\d+", "N", name.rstrip("/")) for name in files} <= there


def test_the_questions_to_the_admin_are_answered_as_it_says(four_nodes, tmp_path):
    job = four_nodes.submit("#!/bin/bash\nsleep 60\n", "--nodelist=n1", cwd=tmp_path)
    four_nodes.wait_until(lambda: four_nodes.job(job).state == "RUNNING", "the job runs")
    said = {}
    for _, command, answer, _ in rows(part("What to ask your admin")):
        (words,) = quotes(command)
        if words not in said:
            run = words.replace("JOB", str(job))
            done = four_nodes.run(["bash", "-c", run], cwd=tmp_path, check="sacctmgr" not in words)
            said[words] = " ".join((done.stdout + done.stderr).split())
        for quote in quotes(answer):
            assert quote in said[words], words
    assert len(said) > 8
    four_nodes.run(["scancel", str(job)])
