"""Images for the examples: the parts of the digits, and one clear line where a data set is not there."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from shared import images

pytest.importorskip("sklearn.datasets")
pytest.importorskip("torchvision.datasets")


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    images.add_options(parser)
    return parser.parse_args(words)


def test_digits_are_divided_and_no_image_is_in_two_parts() -> None:
    train, test = images.open_images(options())
    used, held_out = images.hold_out(train)
    assert [len(part) for part in (train, test, used, held_out)] == [1438, 359, 1295, 143]
    image, label = train[0]
    assert image.shape == (1, 8, 8)
    assert 0.0 <= image.min() < image.max() <= 1.0
    assert int(label) in range(images.CLASSES)
    numbers = [{*part.indices} for part in (used, held_out)]
    assert numbers[0] | numbers[1] == {*range(1438)}
    assert not numbers[0] & numbers[1]


def test_a_limit_is_of_the_training_data() -> None:
    train, test = images.open_images(options("--limit", "100"))
    assert (len(train), len(test)) == (100, 359)
    assert len(images.open_images(options("--limit", "9999"))[0]) == 1438


@pytest.mark.parametrize("name", sorted(images.KNOWN))
def test_a_data_set_that_is_not_there_is_one_line_and_exit_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        images.open_images(options("--data", name, "--root", str(tmp_path / "nowhere")))
    assert refused.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"no {name} in {tmp_path}/nowhere (Dataset not found")
    assert "--download" in line
    assert not (tmp_path / "nowhere").exists()


def test_each_look_at_an_image_is_transformed_anew() -> None:
    data = images.Transformed([(torch.zeros(3), 7)], lambda image: image + torch.rand(()))
    assert not torch.equal(data[0][0], data[0][0])
    assert data[0][1] == 7
    assert len(data) == 1
