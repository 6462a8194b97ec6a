"""Python's search for cyclic garbage, put off."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_put_off() -> Iterator[None]:
    """No search for cyclic garbage meanwhile, for work that makes many objects which all stay.

    Each search looks at all objects of a program that has loaded torch, and the records of thousands of tensors would
    cause several. For the main thread alone: the switch is one for the process.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
