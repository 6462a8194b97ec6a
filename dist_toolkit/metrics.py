"""Metrics over all samples of all ranks, exact where ranks have different numbers of them."""

from __future__ import annotations

import torch

from dist_toolkit.process_group import Group


class Mean:
    """The mean of a value over every sample that any rank has seen: sums and counts are reduced, not means."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._total = torch.zeros(2, dtype=torch.float64, device=group.device)

    def update(self, values: torch.Tensor | float, weight: float | torch.Tensor = 1.0) -> None:
        """Add values, one a sample (any shape), or one mean with `weight` = the number of samples behind it. Local.

        In a training loop over a loader with drop_last=False, pass `weight=float(loader.weight > 0)`: a rank without a
        sample of the last batch has a copy, which does not count.
        """
        values = torch.as_tensor(values).detach().to(self._total.device, torch.float64)
        weights = torch.as_tensor(weight, dtype=torch.float64, device=self._total.device).expand_as(values)
        self._total += torch.stack([(values * weights).sum(), weights.sum()])

    def compute(self) -> float:
        """The mean over all ranks' updates; nan if there were none. Collective."""
        with self._group.watched("rt.mean().compute"):
            total, count = self._group.all_reduce(self._total.clone()).tolist()
        return total / count if count else float("nan")


class MetricWindow:
    """Running means of named metrics since the last reduction, without waiting for the device."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._sums: dict[str, float | torch.Tensor] = {}
        self._counts: dict[str, float] = {}

    def add(self, metrics: dict[str, float | torch.Tensor], weight: float = 1.0) -> None:
        """Add one step's scalars; a window has the same names on every rank, though not as often. Local.

        `weight`: of this rank's values among the ranks', as of `BatchWeight`.
        """
        for name, value in metrics.items():
            # a number stays one: a copy to the device would make the loop wait for it
            scalar = value.detach().float().reshape(()) if isinstance(value, torch.Tensor) else float(value)
            weighted = scalar if weight == 1.0 else scalar * weight
            self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted
            self._counts[name] = self._counts.get(name, 0.0) + weight

    def reduce(self) -> dict[str, float]:
        """Means over all values of all ranks, and a new window. Collective: one reduction in all."""
        names = sorted(self._sums)
        if not names:
            return {}
        device = self._group.device
        sums = torch.stack([torch.as_tensor(self._sums[name], dtype=torch.float32, device=device) for name in names])
        counts = torch.tensor([self._counts[name] for name in names], dtype=torch.float32).to(sums.device)
        with self._group.watched(f"rt.log({', '.join(names)})"):
            totals, numbers = self._group.all_reduce(torch.stack([sums, counts])).tolist()
        self._sums, self._counts = {}, {}
        return {
            name: total / number if number else float("nan")
            for name, total, number in zip(names, totals, numbers, strict=True)
        }
