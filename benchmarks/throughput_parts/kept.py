"""What an interrupted run has measured already. Pure."""

from __future__ import annotations

from bench_parts.records import Records

from .cases import Mode, Workload


class Kept:
    """The records that a run goes on with; none in a run that is new."""

    def __init__(self, records: Records) -> None:
        self._steps = {Workload.of(r): int(r["steps"]) for r in records if r["kind"] == "steps"}
        self._blocks = {
            (Workload.of(r), r["strategy"], r["nproc"], r["round"]) for r in records if r["kind"] == "block"
        }
        self._fits = {(Workload.of(r), r["strategy"], r["nproc"]) for r in records if r["kind"] == "fit"}
        self._models = {r["model"] for r in records if r["kind"] == "model"}

    def steps(self, workload: Workload) -> int | None:
        """Of a block, where that was found already."""
        return self._steps.get(workload)

    def has_block(self, mode: Mode, number: int) -> bool:
        """Whether a mode was measured in this round."""
        return (mode.workload, mode.strategy, mode.nproc, number) in self._blocks

    def has_all(self, mode: Mode, rounds: int) -> bool:
        """Whether nothing of a mode is missing, but the largest batch."""
        return all(self.has_block(mode, number) for number in range(rounds + 1))

    def has_fit(self, mode: Mode) -> bool:
        """Whether the largest batch of a mode was found."""
        return (mode.workload, mode.strategy, mode.nproc) in self._fits

    def has_model(self, model: str) -> bool:
        """Whether the weights of a model were counted."""
        return model in self._models

    def add_model(self, model: str) -> None:
        """Its weights have been counted."""
        self._models.add(model)
