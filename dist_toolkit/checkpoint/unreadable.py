"""Of files that cannot be read: which are damaged, and which may be whole."""

from __future__ import annotations

import errno

_DAMAGE = {
    errno.EIO, errno.EBADMSG, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP,
    errno.EFBIG,
    getattr(errno, "EUCLEAN", errno.EIO),
}  # fmt: skip


def is_damage(error: OSError | EOFError) -> bool:
    """Whether a failure to read means that the bytes are lost: a bad disk, a short or a missing file.

    Anything else (no permission, a stale handle of NFS, too many open files) passes, and the file may be whole: a
    restore that took it for damage would go back further than it must.
    """
    return not isinstance(error, OSError) or error.errno in _DAMAGE
