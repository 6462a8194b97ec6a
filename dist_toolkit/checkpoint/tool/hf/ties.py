"""Weights that a Hugging Face model ties are stored once: `from_pretrained` ties them again. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from dist_toolkit.checkpoint.manifest import TensorEntry

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "shared.weight", "word_embeddings.weight", "embeddings.weight")
_TIES = (
    ("lm_head.weight", _EMBEDDINGS),
    ("lm_head.decoder.weight", _EMBEDDINGS),
    ("lm_head.decoder.bias", ("lm_head.bias",)),
    ("predictions.decoder.weight", _EMBEDDINGS),
    ("predictions.decoder.bias", ("predictions.bias",)),
    ("vocab_projector.weight", _EMBEDDINGS),
    ("proj_out.weight", _EMBEDDINGS),
    ("encoder.embed_tokens.weight", ("shared.weight",)),
    ("decoder.embed_tokens.weight", ("shared.weight",)),
)
"""How the names end: what transformers ties, and to what. Ties of other names are stored twice, which loads as well."""


def tied(tensors: Mapping[str, TensorEntry]) -> dict[str, str]:
    """Name to leave out -> the name that is stored for it: same bytes, and names that transformers ties.

    Equal bytes alone are not a tie: fresh biases are all zero.
    """
    alike: dict[object, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        alike[_content(tensor)].append(name)
    found: dict[str, str] = {}
    for names in alike.values():
        for name in names:
            kept = next((other for other in names if other != name and _is_tie(name, other)), None)
            if kept is not None:
                found[name] = kept
    return {name: _end(kept, found) for name, kept in found.items()}


def _end(name: str, found: Mapping[str, str]) -> str:
    """A tie to what is itself tied (the head to the decoder's embedding, that to the shared one) goes to the last."""
    while name in found:
        name = found[name]
    return name


def _is_tie(name: str, kept: str) -> bool:
    return any(_ends(name, end) and any(_ends(kept, other) for other in others) for end, others in _TIES)


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _content(tensor: TensorEntry) -> object:
    chunks = frozenset((chunk.offsets, chunk.sizes, chunk.digest) for chunk in tensor.chunks)
    return tensor.dtype, tensor.shape, chunks
