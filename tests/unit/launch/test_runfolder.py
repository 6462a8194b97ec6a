"""Which folders a run may use: new or empty ones, and those of runs."""

import json

import pytest
from dtk_launch.errors import PlanError
from dtk_launch.runfolder import check_run_folder

OURS = json.dumps({"format": 1, "command": "torchrun", "argv": [], "decisions": [], "run_dir": "/x"})
RUNS = {
    "new": None,
    "empty": {},
    "a run, with files of its script": {"plan.json": OURS, "ranks/0.json": "{}", "model.pt": "", "wandb/x": ""},
    "a run that ended before its plan was written": {"launcher.log": "", "ranks/0.log": "", "nodes/0.json": "{}"},
    "a torn plan": {"plan.json": '{"format', "ranks/0.log": "", "plans/1.json": ""},
    "another node's, without a plan": {"launcher-1.log": "", "ranks/2.json": "{}", "mine.txt": ""},
    "submitted": {"job.sbatch": "", "slurm-7.out": "", "requeues.jsonl": "", "7.err": "", "run.log": ""},
    "a mount point": {"lost+found/x": "", ".gitkeep": ""},
    "dist_toolkit under torchrun": {"checkpoints/step-00000100/manifest.json": "", "metrics.jsonl": "", "mine.txt": ""},
    "checkpoints alone": {"step-00000100/manifest.json": "", "step-00000200/manifest.json": ""},
}
OTHERS = {
    "a home": ({"notes.txt": "", "thesis/x": ""}, ["notes.txt", "thesis"]),
    "a project": ({"train.py": "", ".git/HEAD": "", "runs/a/plan.json": OURS}, [".git", "runs", "train.py"]),
    "a plan.json of another program": ({"plan.json": '{"goals": []}'}, ["plan.json"]),
    "and one that is a list": ({"plan.json": "[1]", "checkpoints/best.pt": ""}, ["plan.json"]),
    "checkpoints of another library": ({"checkpoints/best.pt": "", "model.bin": ""}, ["model.bin"]),
}


def lay_out(folder, files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("case", RUNS)
def test_a_run_may_use(case, tmp_path):
    if RUNS[case] is not None:
        lay_out(tmp_path / "it", RUNS[case])
    check_run_folder(tmp_path / "it")


@pytest.mark.parametrize("case", OTHERS)
def test_a_run_may_not_use(case, tmp_path):
    files, named = OTHERS[case]
    lay_out(tmp_path / "it", files)
    with pytest.raises(PlanError, match="is no run of dtk and not empty") as raised:
        check_run_folder(tmp_path / "it")
    for words in (*named, f"--run-dir {tmp_path}/it/dtk-run"):
        assert words in str(raised.value)


def test_of_many_files_a_few_are_named(tmp_path):
    lay_out(tmp_path / "it", {f"{number}.txt": "" for number in range(9)})
    with pytest.raises(PlanError) as raised:
        check_run_folder(tmp_path / "it")
    assert (str(raised.value).count(".txt"), "and more" in str(raised.value)) == (3, True)
