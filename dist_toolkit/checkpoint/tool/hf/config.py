"""The config.json that a Hugging Face folder gets, the files that go with it, and the names its own weights have."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_toolkit.checkpoint.tool.hf.shards import INDEX
from dist_toolkit.checkpoint.tool.outcome import UsageError

CONFIG = "config.json"
_BESIDE = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json", "preprocessor_config.json",
    "processor_config.json",
)  # fmt: skip
_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_HEADER_LIMIT = 100 << 20  # bytes: what the safetensors format allows


@dataclass(frozen=True)
class Config:
    """What `--config` names: the values, other files to copy, and the names of the folder's weights, if it has any."""

    values: Mapping[str, Any]
    beside: tuple[Path, ...]
    names: frozenset[str] | None

    @property
    def ties(self) -> bool:
        """Whether the model ties its embeddings; transformers does unless the config says no."""
        inner = self.values.get("text_config")
        sections = [self.values, *([inner] if isinstance(inner, Mapping) else [])]
        return all(section.get("tie_word_embeddings") is not False for section in sections)

    def encode(self, types: Collection[str]) -> str:
        """The text of config.json; a type that it names is set to that of the weights, if all floats have one."""
        floats = {_TYPES[dtype] for dtype in types if dtype in _TYPES}
        values = dict(self.values)
        if len(floats) == 1:
            values |= {key: next(iter(floats)) for key in ("dtype", "torch_dtype") if key in values}
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def read_config(given: str | None) -> Config:
    """Of a folder, or of a config.json alone.

    Raises:
        UsageError: none was given, or it cannot be read.
    """
    if given is None:
        raise UsageError(
            "a Hugging Face folder needs a config.json, and a checkpoint has none; pass --config with the folder of "
            "the model that training began with, or one that model.config.save_pretrained(DIR) wrote"
        )
    path = Path(given)
    file = path / CONFIG if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--config {given}: {file} does not exist") from None
    except (ValueError, OSError) as error:
        raise UsageError(f"--config {given}: {file} cannot be read: {error}") from None
    if not isinstance(values, dict) or not ({"model_type", "architectures"} & set(values)):
        raise UsageError(f"--config {given}: {file} is no model's config: it has no model_type")
    if not path.is_dir():
        return Config(values, (), None)
    beside = tuple(path / name for name in _BESIDE if (path / name).is_file())
    return Config(values, beside, _names(path))


def _names(folder: Path) -> frozenset[str] | None:
    """The names of a folder's weights, without reading them; None if it holds none as safetensors."""
    try:
        if (folder / INDEX).is_file():
            return frozenset(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
        with (folder / "model.safetensors").open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _HEADER_LIMIT)))
        return frozenset(header) - {"__metadata__"}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the weights in {folder} cannot be read ({type(error).__name__}: {error})") from None
