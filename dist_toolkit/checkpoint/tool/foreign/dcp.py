"""Directories of torch.distributed.checkpoint. Metadata through a list of known classes, tensors by weights_only."""

from __future__ import annotations

import io
import math
import pathlib
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import filesystem, metadata

from dist_toolkit.checkpoint.tool.foreign import pickles
from dist_toolkit.checkpoint.tool.foreign.source import Deferred, LazyTensor, Piece, check_dtype
from dist_toolkit.checkpoint.tool.outcome import UsageError

_METADATA = ("BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta",
             "TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING")  # fmt: skip
_KNOWN: dict[tuple[str, str], Any] = {
    **{("torch.distributed.checkpoint.metadata", name): getattr(metadata, name) for name in _METADATA},
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): filesystem._StorageInfo,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("torch", "Size"): torch.Size,
    ("collections", "OrderedDict"): OrderedDict,
    **{(m, n): pathlib.PurePosixPath for m in ("pathlib", "pathlib._local") for n in ("PosixPath", "PurePosixPath")},
}


def read_tree(folder: Path) -> dict[str, Any]:
    """What was saved, as nested mappings with lazy tensors and deferred values; the data is read later.

    Raises:
        UsageError: damaged, compressed, or metadata that needs other classes than torch's own.
    """
    path = folder / ".metadata"
    try:
        found = pickles.read(path.read_bytes(), str(path), _KNOWN, _dtype)
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no .metadata: its save did not finish, or it is no DCP checkpoint") from None
    if not isinstance(found, metadata.Metadata) or not isinstance(found.storage_data, Mapping):
        raise UsageError(f"{path} is no metadata of torch.distributed.checkpoint as torch writes it to files")
    places = {(index.fqn, tuple(index.offset or ())): info for index, info in found.storage_data.items()}
    paths = found.planner_data if isinstance(found.planner_data, Mapping) else {}
    order = [*(name for name in paths if name in found.state_dict_metadata)]  # the order of the state_dict
    order += [name for name in found.state_dict_metadata if name not in paths]
    tree: dict[Any, Any] = {}
    for name in order:
        _put(tree, paths.get(name, (name,)), _leaf(folder, name, found.state_dict_metadata[name], places))
    made = _with_lists(tree)
    return made if isinstance(made, dict) else {"": made}


def _leaf(folder: Path, name: str, entry: Any, places: Mapping[Any, Any]) -> LazyTensor | Deferred:
    if not isinstance(entry, metadata.TensorStorageMetadata):
        return Deferred(_reader(folder, name, places.get((name, ()))))
    dtype, shape = entry.properties.dtype, tuple(entry.size)
    check_dtype(dtype, name)
    pieces = []
    for chunk in entry.chunks:
        offsets, sizes = tuple(chunk.offsets), tuple(chunk.sizes)
        read = _reader(folder, name, places.get((name, offsets)))
        pieces.append(Piece(offsets, sizes, _checked(read, name, dtype, sizes)))
    if sum(math.prod(piece.sizes) for piece in pieces) != math.prod(shape):
        raise UsageError(f"{folder}: the pieces of {name} are not the whole of it")
    return LazyTensor(dtype, shape, tuple(pieces))


def _reader(folder: Path, name: str, info: Any) -> Callable[[], Any]:
    if info is None:
        raise UsageError(f"{folder}: the metadata does not say where {name} is")
    if getattr(info, "transform_descriptors", None):
        raise UsageError(f"{folder}: {name} is compressed or encrypted; save it again without extensions")
    path = folder / info.relative_path
    if path.resolve().parent != folder.resolve():
        raise UsageError(f"{folder}: {name} is said to be in {info.relative_path}, outside the checkpoint")

    def read() -> Any:
        try:
            with path.open("rb") as file:
                file.seek(info.offset)
                data = file.read(info.length)
            if len(data) == info.length:
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise UsageError(f"{path} is missing, and with it {name}") from None
        except pickle.UnpicklingError as error:
            words = str(error).splitlines()[0]
            raise UsageError(f"{path}: {name} is not read, as it may execute anything: {words}") from None
        except (RuntimeError, EOFError) as error:
            raise UsageError(f"{path}: {name} cannot be read: {str(error).splitlines()[0]}") from None
        raise UsageError(f"{path} ends within {name}")

    return read


def _checked(read: Callable[[], Any], name: str, dtype: torch.dtype, sizes: tuple[int, ...]) -> Callable[[], Any]:
    def load() -> torch.Tensor:
        tensor = read()
        if not isinstance(tensor, torch.Tensor) or (tensor.dtype, tuple(tensor.shape)) != (dtype, sizes):
            raise UsageError(
                f"{name}: the file does not hold the {dtype} of shape {list(sizes)} that the metadata says"
            )
        return tensor.detach()

    return load


def _dtype(module: str, name: str) -> Any:
    """torch.float32 and the like, which pickles name as if they were functions."""
    found = getattr(torch, name, None) if module == "torch" else None
    return found if isinstance(found, torch.dtype) else None


def _put(tree: dict[Any, Any], path: tuple[Any, ...], leaf: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = leaf


def _with_lists(tree: Any) -> Any:
    """Mappings whose keys are all numbers are lists: torch writes the keys of a dict as texts."""
    if not isinstance(tree, dict):
        return tree
    made = {key: _with_lists(value) for key, value in tree.items()}
    return [made[key] for key in sorted(made)] if made and all(type(key) is int for key in made) else made
