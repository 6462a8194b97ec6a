"""Storage: where checkpoint bytes go. It knows bytes and names, not tensors."""

from dist_toolkit.storage.base import FileReader, Storage
from dist_toolkit.storage.local import LocalStorage

__all__ = ["FileReader", "LocalStorage", "Storage"]
