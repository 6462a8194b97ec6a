"""Storage: where checkpoint bytes go. It knows bytes and names, not tensors."""

from dist_toolkit.storage.base import FileReader, Storage
from dist_toolkit.storage.local import LocalStorage
from dist_toolkit.storage.place import is_url, open_storage

__all__ = ["FileReader", "LocalStorage", "Storage", "is_url", "open_storage"]
