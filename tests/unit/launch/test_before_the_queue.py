"""What is asked before a job is submitted, of made-up programs of SLURM, and what dtk says of the answers."""

import time
from dataclasses import replace

import pytest
from dtk_launch.errors import PlanError
from dtk_launch.jobs import submit
from dtk_launch.options import SubmitOptions


@pytest.fixture
def submitted(facts, tmp_path, monkeypatch, capsys):
    """A function that submits train.py to a SLURM that answers as told. Returns what dtk wrote to stderr."""
    (tmp_path / "train.py").touch()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def run(*, programs=None, **options):
        for name, lines in ({"sbatch": 'case "$1" in --parsable) echo 7;; esac'} | (programs or {})).items():
            program = tmp_path / "bin" / name
            program.write_text(f"#!/bin/sh\n{lines}\n")
            program.chmod(0o755)
        submit(SubmitOptions(script="train.py", **options), replace(facts(), cwd=tmp_path))
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(("seconds", "said"), [(-86400, False), (0, False), (30, False), (3600, True)])
def test_only_a_start_that_is_not_at_once_is_worth_a_word(submitted, seconds, said):
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + seconds))
    tested = f"""case "$1" in
--test-only) echo "sbatch: Job 6 to start at {start} using 1 processors on nodes n1 in partition main" >&2;;
*) echo 7;;
esac"""
    words = f"dtk: note: SLURM expects to start it at {start.replace('T', ' ')}\n"
    assert submitted(programs={"sbatch": tested}) == words * said


def test_a_host_without_slurm_is_bad_input(facts, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlanError, match="no sbatch on PATH, so this host cannot submit") as caught:
        submit(SubmitOptions(script="train.py"), replace(facts(), cwd=tmp_path))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "runs").exists()


OPTIONS = "echo '  -J, --job-name=jobname     name of job'"
PYXIS = f"{OPTIONS}; echo '      --container-image=[USER@][REGISTRY#]IMAGE[:TAG]|PATH'"


@pytest.mark.parametrize(
    ("image", "srun", "noted"),
    [
        ("foo", f"{OPTIONS}; echo '      --container             Path to OCI container bundle'", True),
        ("foo", PYXIS, False),
        ("foo", "exit 1", False),
        ("foo.sif", OPTIONS, False),
    ],
)
def test_an_image_for_pyxis_where_srun_has_none(submitted, image, srun, noted):
    said = submitted(programs={"srun": srun}, container_image=image)
    assert ("--container-image=foo is started by pyxis, but srun has no --container-image here" in said) == noted
