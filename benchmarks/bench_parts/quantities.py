"""What `dtk bench compare` compares. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Quantity:
    """A measured number, once a round."""

    name: tuple[str, ...]
    """Of what, from the general to the special: model, strategy, what is measured. The same in each result."""
    unit: str
    better: Literal["higher", "lower"]
    values: tuple[float, ...]
    """In the order of the rounds; at least one."""
