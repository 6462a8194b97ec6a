"""Before the first save of a program that has not restored: whose run is in the directory?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from dist_toolkit.checkpoint.catalog import committed_checkpoints, refuse_foreign
from dist_toolkit.checkpoint.manifest import Manifest
from dist_toolkit.checkpoint.parts import Part
from dist_toolkit.checkpoint.plan import SavePlan
from dist_toolkit.checkpoint.reader import saved_tensors
from dist_toolkit.errors import CheckpointError, OtherFormat, StateMismatch
from dist_toolkit.process_group import Group
from dist_toolkit.storage import Storage
from dist_toolkit.tensors import DTYPES, TensorMeta, misfit


def refuse_another_run(
    storage: Storage, group: Group, parts: Sequence[Part], plan: SavePlan, waive: Collection[str]
) -> None:
    """Before a first save: what a restore would refuse by a look at the records, in the same words. Collective.

    Args:
        parts: what is compared with the newest checkpoint; none where the run went back to one of its own choice.
        plan: of that save.
        waive: names of parts that are not compared.

    Raises:
        StateMismatch: the newest checkpoint is of another strategy or another model. Nothing was written.
        CheckpointError: some checkpoint is of another format version.
    """
    error = None
    if group.world.is_main:
        try:
            known = committed_checkpoints(storage)
            refuse_foreign(known, storage.root)
            found = next((entry for entry in known if entry.manifest is not None), None)
            if found is not None and found.manifest is not None:
                compared = [part for part in parts if part.name not in waive]
                _refuse_strategy(found.manifest, compared)
                _refuse_model(found.manifest, compared, _planned(plan), f"{storage.root}/{found.folder}")
        except StateMismatch as caught:
            error = [caught.part, str(caught)]
        except OtherFormat as caught:
            error = ["", str(caught)]
        except Exception:
            error = None  # the save itself will say it
    error = group.broadcast_json(error)
    if error is not None:
        raise StateMismatch(*error) if error[0] else CheckpointError(error[1])


def _refuse_strategy(manifest: Manifest, parts: Iterable[Part]) -> None:
    for part in parts:
        if part.name.rpartition(".")[2] == "strategy" and part.name in manifest.values:
            part.template({}, manifest.values[part.name])


def _refuse_model(manifest: Manifest, parts: Iterable[Part], mine: Mapping[str, TensorMeta], folder: str) -> None:
    """Compare the tensors that a run has from its first step to its last."""
    saved = saved_tensors(manifest)
    for part in parts:
        fixed = {key: meta for key, meta in mine.items() if part.is_fixed(key)}
        if not fixed:
            continue
        kind, words = part.name, f"the checkpoint holds no state of {part.name!r}"
        if part.name in manifest.values:
            theirs = {key: meta for key, meta in saved.items() if part.is_fixed(key)}
            kind, words = "model", misfit(theirs, fixed, "model")
        if words:
            raise StateMismatch(
                kind,
                f"{folder} is of another run: {words}; save in another directory, or waive=[{part.name!r}] in "
                "rt.checkpointer lets this run take its place",
            )


def _planned(plan: SavePlan) -> dict[str, TensorMeta]:
    """All tensors of a save, of all ranks. Rank 0 knows them."""
    return {box.name: TensorMeta(box.shape, DTYPES[box.dtype]) for file in plan.everyone for box in file.boxes}
