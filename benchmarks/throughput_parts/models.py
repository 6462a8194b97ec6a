"""The models of `tables.MODELS`, each from its Size. Weights are random: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .tables import Size

_HIDDEN, _LAYERS, _HEADS = 192, 4, 4  # of small language models


def mlp(size: Size) -> nn.Module:
    """A multi-layer perceptron of about 1.9 million weights."""
    (inputs,) = size.shape
    return nn.Sequential(
        nn.Linear(inputs, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, size.classes)
    )


def resnet18(size: Size) -> nn.Module:
    """torchvision's ResNet-18: 11.2 million weights with ten classes, batch normalisation."""
    return _torchvision("resnet18", size)


def resnet50(size: Size) -> nn.Module:
    """torchvision's ResNet-50: 23.5 million weights with ten classes, batch normalisation."""
    return _torchvision("resnet50", size)


def vgg11(size: Size) -> nn.Module:
    """torchvision's VGG-11; on small images its convolutions (9.2 million weights) and one linear layer."""
    if size.shape[-1] >= 64:
        return _torchvision("vgg11", size)
    from torchvision.models import vgg  # the whole model has 120 million weights more, for images of 224x224

    features = vgg.make_layers(vgg.cfgs["A"])
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, size.classes))


class Logits(nn.Module):
    """A model of transformers, from token ids to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids of shape (samples, tokens); logits of shape (samples, tokens, vocabulary)."""
        logits: torch.Tensor = self.model(input_ids=ids).logits
        return logits


def bert(size: Size) -> nn.Module:
    """transformers' BertForMaskedLM without dropout; bert-base on sequences of 512."""
    from transformers import BertConfig, BertForMaskedLM

    (tokens,) = size.shape
    common: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if tokens < 512:
        common |= {"hidden_size": _HIDDEN, "num_hidden_layers": _LAYERS, "num_attention_heads": _HEADS}
        common |= {"intermediate_size": 4 * _HIDDEN, "max_position_embeddings": tokens}
    return Logits(BertForMaskedLM(BertConfig(vocab_size=size.classes, **common)))


def gpt2(size: Size) -> nn.Module:
    """transformers' GPT2LMHeadModel without dropout; gpt2-small on sequences of 1024."""
    from transformers import GPT2Config, GPT2LMHeadModel

    (tokens,) = size.shape
    common: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
    common |= {"bos_token_id": None, "eos_token_id": None}
    if tokens < 1024:
        common |= {"n_embd": _HIDDEN, "n_layer": _LAYERS, "n_head": _HEADS}
    return Logits(GPT2LMHeadModel(GPT2Config(vocab_size=size.classes, n_positions=tokens, **common)))


class Generator(nn.Module):
    """From noise of `noise` numbers to images of `side` x `side`, after Radford et al. (2016)."""

    def __init__(self, noise: int, side: int, width: int) -> None:
        super().__init__()
        channels = width * side // 8
        layers: list[nn.Module] = [nn.ConvTranspose2d(noise, channels, 4, 1, 0, bias=False)]
        while channels > width:
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            layers += [nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False)]
            channels //= 2
        layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.ConvTranspose2d(channels, 3, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise of shape (samples, noise)."""
        images: torch.Tensor = self.layers(noise[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """From images of `side` x `side` to one logit each."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels, side = width, side // 2
        while side > 4:
            layers += [nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(2 * channels), nn.LeakyReLU(0.2)]
            channels, side = 2 * channels, side // 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of shape (samples,)."""
        logits: torch.Tensor = self.layers(images)
        return logits.flatten()


def dcgan(size: Size) -> tuple[nn.Module, nn.Module]:
    """The generator and the discriminator."""
    side, width = size.shape[-1], 32 if size.shape[-1] < 64 else 64
    return Generator(size.classes, side, width), Discriminator(side, width)


def _torchvision(name: str, size: Size) -> nn.Module:
    from torchvision import models

    model: nn.Module = getattr(models, name)(num_classes=size.classes)
    return model
