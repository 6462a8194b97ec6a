"""The distance between two sets of images."""

import pytest
import torch
from shared.frechet import frechet_distance
from shared.grid import save_grid


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_of_the_same_images_it_is_0() -> None:
    assert frechet_distance(images(100), images(100), side=4) == pytest.approx(0, abs=1e-6)


def test_of_a_shift_and_a_scale_it_is_as_of_normal_distributions() -> None:
    some = images(200)
    variance = float(torch.cov(some.flatten(1).double().T).trace())
    assert frechet_distance(some, some + 0.5, side=4) == pytest.approx(16 * 0.25, rel=1e-5)
    centred = some - some.mean(0)
    assert frechet_distance(centred, 3 * centred, side=4) == pytest.approx(variance * (1 - 3) ** 2, rel=1e-4)


def test_two_samples_of_one_distribution_are_closer_than_those_of_two() -> None:
    same = frechet_distance(images(2000), images(2000, seed=1), side=4)
    assert same < 0.2 < frechet_distance(images(2000), images(2000, seed=1) * 1.5, side=4)


def test_images_are_averaged_to_the_side(tmp_path) -> None:
    large = images(50).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert frechet_distance(images(50), large, side=4) == pytest.approx(0, abs=1e-6)


def test_a_grid_is_one_picture_and_nothing_is_left_beside_it(tmp_path) -> None:
    from PIL import Image

    path = tmp_path / "samples" / "step-000010.png"
    save_grid(torch.linspace(-2, 2, 16).view(16, 1, 1, 1).expand(-1, 1, 4, 4), path, columns=8, scale=3)
    with Image.open(path) as picture:
        assert picture.size == (8 * (12 + 2) + 2, 2 * (12 + 2) + 2)
        assert picture.getpixel((4, 4)) == (0, 0, 0), "-2 is cut off to black"
        assert picture.getpixel((114 - 5, 30 - 5)) == (255, 255, 255)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
