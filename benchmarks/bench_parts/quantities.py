"""What `dtk bench compare` compares. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Quantity:
    """A measured number, once a round or once a run."""

    name: tuple[str, ...]
    """Of what, from the general to the special: model, strategy, what is measured. The same in each result."""
    unit: str
    better: Literal["higher", "lower"]
    values: tuple[float, ...]
    """In the order of the rounds; at least one."""
    once: bool = False
    """Whether it is one number of the whole run, as a peak is; then there is no noise within the run to see."""
