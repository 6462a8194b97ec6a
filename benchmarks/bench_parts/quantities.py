"""What `dtk bench compare` compares. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


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
    work: Mapping[str, Any] = field(default_factory=dict)
    """What was done beside what `name` says, as option -> value: see `work`. Where it differs nothing is judged."""
