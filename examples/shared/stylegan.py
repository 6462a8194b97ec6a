"""A small StyleGAN2 (Karras et al., 2019 and 2020): mapping network, modulated convolutions, noise, style mixing."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

STYLE = 64  # numbers of z and of w


class Scaled(nn.Module):
    """A linear layer or convolution whose weights are scaled when they are used: equal learning rates for all."""

    def __init__(self, *shape: int, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) / rate)
        self.bias = nn.Parameter(torch.full((shape[0],), bias / rate))
        self.gain, self.rate = rate / math.sqrt(math.prod(shape[1:])), rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        weight, bias = self.weight * self.gain, self.bias * self.rate
        return (
            F.linear(x, weight, bias) if weight.ndim == 2 else F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        )


class Mapping(nn.Module):
    """From z to w, both of shape (samples, STYLE)."""

    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Scaled(STYLE, STYLE, rate=0.01) for _ in range(layers))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """w of z."""
        w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            w = F.leaky_relu(layer(w), 0.2) * math.sqrt(2)
        return w


class Modulated(nn.Module):
    """A convolution whose input channels are scaled by each sample's style, and whose output by what keeps its size."""

    def __init__(self, inputs: int, outputs: int, size: int, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.style = Scaled(inputs, STYLE, bias=1.0)
        self.gain, self.demodulate = 1 / math.sqrt(inputs * size * size), demodulate

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """`w`, of shape (samples, STYLE), is the style of each sample."""
        samples, _, height, width = x.shape
        weight = self.weight * self.gain * self.style(w)[:, None, :, None, None]
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        grouped = F.conv2d(  # one convolution with a group for each sample
            x.reshape(1, -1, height, width), weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=samples
        )
        return grouped.view(samples, -1, height, width)


class Layer(nn.Module):
    """A modulated convolution, noise and a nonlinearity."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Modulated(inputs, outputs, 3)
        self.noise = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """`w` as of Modulated."""
        x = self.conv(x, w)
        noise = torch.randn(len(x), 1, *x.shape[2:], dtype=x.dtype, device=x.device)
        return F.leaky_relu(x + self.noise * noise + self.bias[:, None, None], 0.2) * math.sqrt(2)


class Generator(nn.Module):
    """From z to images of shape (samples, channels, side, side), about -1 to 1; `side` is 4 times a power of 2."""

    def __init__(self, side: int, width: int, channels: int = 1) -> None:
        super().__init__()
        self.mapping = Mapping()
        self.start = nn.Parameter(torch.randn(1, width, 4, 4))
        self.layers = nn.ModuleList(Layer(width, width) for _ in range(1 + 2 * int(math.log2(side // 4))))
        self.to_image = nn.ModuleList(Modulated(width, channels, 1, demodulate=False) for _ in self.layers[::2])

    def forward(self, z: torch.Tensor, mixed: torch.Tensor, crossover: torch.Tensor) -> torch.Tensor:
        """Style mixing: sample i takes the style of `mixed[i]` from layer `crossover[i]` on, that of `z[i]` before."""
        first, second = self.mapping(torch.cat([z, mixed])).chunk(2)
        x = self.start.expand(len(z), -1, -1, -1)
        image = torch.zeros((), device=x.device)
        for number, layer in enumerate(self.layers):
            w = torch.where((crossover > number)[:, None], first, second)
            if number % 2 == 1:  # to the next resolution
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
                image = F.interpolate(image, scale_factor=2, mode="bilinear")
            x = layer(x, w)
            if number % 2 == 0:
                image = image + self.to_image[number // 2](x, w)
        return image


class Discriminator(nn.Module):
    """From images to one logit each: residual blocks, and how much a batch's samples differ."""

    def __init__(self, side: int, width: int, channels: int = 1) -> None:
        super().__init__()
        self.first = Scaled(width, channels, 1, 1)
        blocks = int(math.log2(side // 4))
        self.blocks = nn.ModuleList(Scaled(width, width, 3, 3) for _ in range(2 * blocks))
        self.skips = nn.ModuleList(Scaled(width, width, 1, 1) for _ in range(blocks))
        self.last = Scaled(width, width + 1, 3, 3)
        self.head = nn.Sequential(Scaled(width, 16 * width), nn.LeakyReLU(0.2), Scaled(1, width))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits: above 0 for what it takes to be real."""
        x = F.leaky_relu(self.first(image), 0.2)
        for number, skip in enumerate(self.skips):
            y = F.leaky_relu(self.blocks[2 * number](x), 0.2)
            y = F.avg_pool2d(F.leaky_relu(self.blocks[2 * number + 1](y), 0.2), 2)
            x = (y + skip(F.avg_pool2d(x, 2))) / math.sqrt(2)
        spread = torch.sqrt(x.var(0, unbiased=False) + 1e-8).mean().expand(len(x), 1, *x.shape[2:])
        x = F.leaky_relu(self.last(torch.cat([x, spread], 1)), 0.2)
        return self.head(x.flatten(1)).flatten()
