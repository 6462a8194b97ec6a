"""Random numbers: one stream that all ranks share while a program is set up, then one stream a rank.

Seeds are derived with BLAKE2b from (seed, words...), so streams of different purposes never coincide by arithmetic.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

RngState = dict[str, torch.Tensor]


def derive(seed: int, *words: int | str) -> int:
    """A 63-bit seed from `seed` and the words that say what it is for."""
    text = ":".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators (CUDA's too where one is in use) with 64-bit `seed`."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)


def capture(device: torch.device) -> RngState:
    """The state of every generator of this process, as tensors (no pickle).

    Keys: `python` (int64, 626 and one), `numpy` (int64, 628), `torch` (uint8), and `cuda` (uint8) on a CUDA device.
    """
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    inner = numpy_state["state"]
    state = {
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_gauss": torch.tensor([gauss is not None, gauss or 0.0], dtype=torch.float64),
        "numpy": torch.from_numpy(np.append(inner["key"].astype(np.int64), inner["pos"])),
        "numpy_gauss": torch.tensor([numpy_state["has_gauss"], numpy_state["gauss"]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore(state: RngState, device: torch.device) -> None:
    """Set every generator to a captured state.

    Raises:
        KeyError: the state lacks a generator that this process uses.
    """
    words = state["python"].tolist()
    has_gauss, gauss = state["python_gauss"].tolist()
    random.setstate((words[0], tuple(words[1:]), gauss if has_gauss else None))
    key = state["numpy"].numpy()
    np_has, np_gauss = state["numpy_gauss"].tolist()
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": key[:-1].astype(np.uint32), "pos": int(key[-1])},
            "has_gauss": int(np_has),
            "gauss": np_gauss,
        }
    )
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Leave all generators as they were found, whatever the body draws."""
    state = capture(device)
    try:
        yield
    finally:
        restore(state, device)


@contextmanager
def common_stream(device: torch.device, seed: int) -> Iterator[None]:
    """Run the body on streams seeded with `seed`, the same on every rank that passes it; then go on as before."""
    with preserved(device):
        seed_all(seed)
        yield
