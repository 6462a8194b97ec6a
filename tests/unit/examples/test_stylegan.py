"""Parts of the small StyleGAN: shapes, and what a demodulated convolution keeps."""

import pytest
import torch
from shared.stylegan import STYLE, Discriminator, Generator, Mapping, Modulated


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("side", "layers"), [(4, 1), (8, 3), (16, 5), (32, 7)])
def test_images_have_the_side_and_the_channels_asked_for(side: int, layers: int) -> None:
    generator, discriminator = Generator(side, 6, channels=3), Discriminator(side, 6, channels=3)
    assert len(generator.layers) == layers
    z = torch.randn(5, STYLE)
    images = generator(z, z, torch.full((5,), layers))
    assert images.shape == (5, 3, side, side)
    assert discriminator(images).shape == (5,)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_a_demodulated_convolution_keeps_unit_variance_whatever_the_style(scale: float) -> None:
    """Karras et al. (2020), section 2.2: of independent inputs of unit variance, whose places are all inside."""
    convolution = Modulated(64, 48, 3)
    with torch.no_grad():
        out = convolution(torch.randn(16, 64, 34, 34), scale * torch.randn(16, STYLE))[:, :, 1:-1, 1:-1]
    assert out.shape == (16, 48, 32, 32)
    assert out.var((0, 2, 3)) == pytest.approx(torch.ones(48), abs=0.15)
    assert float(out.var()) == pytest.approx(1.0, abs=0.03)


def test_without_demodulation_the_style_scales_the_output() -> None:
    convolution = Modulated(8, 4, 1, demodulate=False)
    with torch.no_grad():
        x, w = torch.randn(2, 8, 4, 4), torch.randn(2, STYLE)
        expected = torch.einsum("oi,ni,nihw->nohw", convolution.weight[:, :, 0, 0] / 8**0.5, convolution.style(w), x)
        assert torch.allclose(convolution(x, w), expected, atol=1e-5)


def test_each_sample_has_its_own_style() -> None:
    """One convolution of groups is the same as one of each sample."""
    convolution = Modulated(8, 4, 3)
    x, w = torch.randn(3, 8, 5, 5), torch.randn(3, STYLE)
    each = torch.cat([convolution(x[i : i + 1], w[i : i + 1]) for i in range(3)])
    assert torch.allclose(convolution(x, w), each, atol=1e-5)


def test_the_mapping_does_not_depend_on_the_length_of_z() -> None:
    mapping, z = Mapping(), torch.randn(4, STYLE)
    assert torch.allclose(mapping(z), mapping(7 * z), atol=1e-5)


def test_mixing_takes_the_second_style_from_the_crossover_on() -> None:
    generator = Generator(8, 6)
    z, other = torch.randn(2, 3, STYLE)
    never, always = torch.full((3,), len(generator.layers)), torch.zeros(3, dtype=torch.long)
    with torch.no_grad():
        assert torch.allclose(generator(z, other, never), generator(z, z, never), atol=1e-5)
        assert torch.allclose(generator(z, other, always), generator(other, other, never), atol=1e-5)
        middle = generator(z, other, torch.ones(3, dtype=torch.long))
        assert not torch.allclose(middle, generator(z, z, never), atol=1e-3)
        assert not torch.allclose(middle, generator(other, other, never), atol=1e-3)


def test_the_discriminator_sees_how_much_a_batch_differs() -> None:
    discriminator, image = Discriminator(8, 6), torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        alone = discriminator(image)
        among_equals = discriminator(image.expand(4, -1, -1, -1))
        among_others = discriminator(torch.cat([image, torch.randn(3, 1, 8, 8)]))
    assert torch.allclose(alone, among_equals[:1], atol=1e-5)
    assert not torch.allclose(alone, among_others[:1], atol=1e-5)


def test_every_parameter_of_both_players_gets_a_gradient() -> None:
    generator, discriminator = Generator(8, 6), Discriminator(8, 6)
    z, other = torch.randn(2, 4, STYLE)
    discriminator(generator(z, other, torch.tensor([1, 2, 3, 3]))).sum().backward()
    for player in (generator, discriminator):
        assert [name for name, parameter in player.named_parameters() if parameter.grad is None] == []
