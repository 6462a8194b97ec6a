"""One attempt to write a checkpoint: where its files go meanwhile, and what makes it the checkpoint of its step.

Where directories can be renamed, an attempt is a directory of its own, and the rename commits. Object stores have no
rename: there the files of an attempt lie beside those of a committed checkpoint under names of their own, and the
commit record, put in one request, commits. In between, every rank can see whose attempt it is by its token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from dist_toolkit.checkpoint.aside import NOTE
from dist_toolkit.checkpoint.catalog import (
    clean_up,
    clear,
    folders,
    left_behind,
    note_later,
    set_later_aside,
    sweep,
    tolerated,
)
from dist_toolkit.checkpoint.layout import (
    ATTEMPT,
    MANIFEST,
    ROOT_ATTEMPT,
    rank_file,
    replaced_dir,
    step_dir,
    temporary_dir,
)
from dist_toolkit.checkpoint.shared import sees
from dist_toolkit.errors import CheckpointError
from dist_toolkit.storage import Storage


class Attempt(ABC):
    """An attempt, as each rank handles it. `token` is that of rank 0."""

    def __init__(self, storage: Storage, step: int, token: str) -> None:
        self.token = token
        self._storage, self._step = storage, step

    @abstractmethod
    def open(self) -> None:
        """Clear what killed saves left, and leave the token where all ranks find it. Rank 0 calls this.

        Raises:
            OSError, CheckpointError: the storage refuses; another program has taken over.
        """

    @abstractmethod
    def file(self, rank: int) -> str:
        """The name that the commit record has for the file of a rank."""

    @abstractmethod
    def path(self, file: str) -> str:
        """Where to write that file."""

    @abstractmethod
    def publish(self, record: bytes) -> None:
        """Make it the checkpoint of its step, with this commit record, in one step. Rank 0 calls this.

        Raises:
            OSError, CheckpointError: as `open`.
        """

    def discard(self) -> None:  # noqa: B027  # in an object store it fills no disk, and the next save clears it
        """Remove what it has written, after it failed: it may be what has filled the disk. Rank 0 calls this.

        Raises:
            OSError: as `open`.
        """

    @property
    @abstractmethod
    def mark(self) -> str:
        """The file that holds the token."""

    def _ours(self) -> bool:
        """Whether the token is still there. OSError where that cannot be told."""
        return sees(self._storage, self.mark, self.token.encode())

    def _check_place(self) -> None:
        """Raises where another program has claimed the place."""
        owner = self._storage.taken_by()
        if owner is not None:
            raise CheckpointError(f"{self._storage.root} was taken over by {owner}; end one of the two")

    def _check_ours(self) -> None:
        """Raises where another program has opened an attempt of its own, or has claimed the place."""
        owner = self._storage.taken_by()
        if owner is not None or not self._ours():
            raise CheckpointError(
                f"{self._storage.root}/{self.mark} was taken over by {owner or 'another run'}; end one of the two"
            )


class RenamedAttempt(Attempt):
    """In `step-N.tmp`, which is renamed."""

    def open(self) -> None:
        """Make the directory."""
        self._check_place()
        clean_up(self._storage, self._step)
        self._storage.make_dir(temporary_dir(self._step))
        self._storage.write_file(self.mark, [self.token.encode()])

    def file(self, rank: int) -> str:
        """A name for each rank: the directory is ours alone."""
        return rank_file(rank)

    def path(self, file: str) -> str:
        """In the temporary directory."""
        return f"{temporary_dir(self._step)}/{file}"

    def publish(self, record: bytes) -> None:
        """Record, rename; one of the same step stands aside for a moment, where it still counts."""
        storage, temporary = self._storage, temporary_dir(self._step)
        final, replaced = step_dir(self._step), replaced_dir(self._step)
        self._check_ours()
        storage.write_file(f"{temporary}/{MANIFEST}", [record])
        storage.remove_file(self.mark)
        storage.sync_dir(temporary)
        note = note_later(storage, self._step, self.token)
        if final in storage.list():
            storage.rename(final, replaced)
        storage.rename(temporary, final)
        with tolerated(storage, f"{replaced} stays behind"):
            storage.remove_tree(replaced)
        with tolerated(storage, f"later steps than {self._step} count as set aside"):
            if note is not None:
                set_later_aside(storage, note.left)

    def discard(self) -> None:
        """The directory goes, if it is still ours."""
        if self._ours():
            self._storage.remove_tree(temporary_dir(self._step))

    @property
    def mark(self) -> str:
        """In that directory."""
        return f"{temporary_dir(self._step)}/{ATTEMPT}"


class RecordedAttempt(Attempt):
    """In `step-N` itself, under names with the token; the record is put last.

    Two programs: each puts its token before it lists what to clear away, and finds it still there before it clears; and
    it looks for its token once more after it has put its record. So if this one still finds its own then, the other
    came later, and sees the record when it clears: what `publish` did not refuse is whole. What is left open is another
    program that saves the same step, as a whole, while this one's request with the record is on its way: this one is
    refused, but its record stands in the other's place, and names files that are gone; a restore finds that, and takes
    an older checkpoint.
    """

    def open(self) -> None:
        """Leave the token, then clear away."""
        self._check_place()
        self._storage.replace_file(self.mark, self.token.encode())
        inside = folders(self._storage)
        self._check_ours()  # so nobody who has come since has written any of them
        clear(self._storage, inside)
        names = self._storage.list()
        if NOTE in names:
            set_later_aside(self._storage, left_behind(self._storage, names))

    def file(self, rank: int) -> str:
        """A name that no other attempt has."""
        return rank_file(rank, self.token)

    def path(self, file: str) -> str:
        """Where it stays."""
        return f"{step_dir(self._step)}/{file}"

    def publish(self, record: bytes) -> None:
        """Put the record; then files of an older checkpoint of this step may go."""
        storage, folder = self._storage, step_dir(self._step)
        self._check_ours()
        note = note_later(storage, self._step, self.token)
        self._check_ours()  # that may have taken long
        storage.replace_file(f"{folder}/{MANIFEST}", record)
        names: list[str] = []
        with tolerated(storage, f"what {folder} has replaced stays behind"):
            names = storage.list(folder)  # before the look: what another program writes after it is not in the list
        self._check_ours()
        with tolerated(storage, f"what {folder} has replaced stays behind"):
            sweep(storage, folder, names)
            if note is not None:
                set_later_aside(storage, note.left)
            storage.remove_file(self.mark)

    @property
    def mark(self) -> str:
        """One for the whole place."""
        return ROOT_ATTEMPT


def attempt(storage: Storage, step: int, token: str) -> Attempt:
    """The kind that the storage allows."""
    return RenamedAttempt(storage, step, token) if storage.renames else RecordedAttempt(storage, step, token)
