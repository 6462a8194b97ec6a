"""Which failures of an object store may pass, and how often and how long a request is tried again."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from dist_toolkit.errors import ConfigError

_LOG = logging.getLogger("dist_toolkit")
_T = TypeVar("_T")

_PASSING = {
    errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EIO,
    errno.ENETDOWN, errno.ENETUNREACH, errno.EPIPE, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EIO),
}  # fmt: skip
_LASTING = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_NETWORK = {"aiohttp", "aiobotocore", "azure", "botocore", "google", "httpx", "requests", "urllib3"}
"""Packages whose errors have no type that this one could name without importing them."""
_CREDENTIALS = ("Credential", "Token", "Profile", "Auth", "Login")
_SIGNS = ("Timeout", "Connect", "Endpoint", "Disconnected", "HTTPClientError", "IncompleteRead", "Payload", "Protocol")

_jitter = random.Random()  # one of its own: the generators of a run are part of its checkpoints


@dataclass(frozen=True)
class Bound:
    """How long one request is tried.

    Attributes:
        attempts: at most so many.
        seconds: none begins later than so many seconds after the first.
        pause: seconds before the second attempt; doubled for each further one, up to 20, and shortened by up to a half
            by chance, so that ranks do not come back together.
    """

    attempts: int = 8
    seconds: float = 120.0
    pause: float = 0.25


def bound_from(env: Mapping[str, str]) -> Bound:
    """The bound that DTK_STORAGE_ATTEMPTS and DTK_STORAGE_SECONDS say.

    Raises:
        ConfigError: not a whole number of 1 or more; not a number of 0 or more.
    """
    attempts = _number(env, "DTK_STORAGE_ATTEMPTS", Bound.attempts)
    seconds = _number(env, "DTK_STORAGE_SECONDS", Bound.seconds)
    if attempts < 1 or attempts != int(attempts):
        raise ConfigError(f"DTK_STORAGE_ATTEMPTS={env['DTK_STORAGE_ATTEMPTS']!r} is not a whole number of 1 or more")
    return Bound(int(attempts), seconds)


def retried(what: str, call: Callable[[], _T], bound: Bound) -> _T:
    """What `call` returns; a failure that may pass is tried again within the bound.

    Args:
        what: the place and what is done there, for messages.

    Raises:
        FileNotFoundError: there is no such file, at once.
        PermissionError: the place refuses, or there are no credentials, at once.
        OSError: any other failure.
    """
    began = time.monotonic()
    for attempt in range(1, bound.attempts + 1):
        try:
            return call()
        except Exception as error:
            waited = time.monotonic() - began
            pause = min(bound.pause * 2 ** (attempt - 1), 20.0) * _jitter.uniform(0.5, 1.0)
            if not may_pass(error) or (attempt == 1 == bound.attempts):
                raise _as_os_error(what, error) from error
            if attempt == bound.attempts or waited + pause > bound.seconds:
                tried = f"given up after {attempt} attempt(s) in {waited:.0f} s"
                raise OSError(f"{what}: {tried}: {_words(error)}") from error
            _LOG.warning("%s: attempt %d failed, next in %.1f s: %s", what, attempt, pause, _words(error))
            time.sleep(pause)
    raise AssertionError("a bound has one attempt at least")


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: a lost connection, a timeout, a server in trouble or too busy."""
    status = _status(error)
    if status is not None:
        return status in _PASSING_STATUS
    if isinstance(error, (ConnectionError, EOFError)) or "TimeoutError" in [
        kind.__name__ for kind in type(error).__mro__
    ]:
        return True  # that of asyncio is one of its own before Python 3.11
    if isinstance(error, _LASTING):
        return False
    names = _type_names(error)
    if any(sign in name for name in names for sign in _CREDENTIALS):
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    return any(sign in name for name in names for sign in _SIGNS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        yield current
        seen.append(current)
        current = current.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error: botocore has it in a dict, aiohttp, gcsfs and azure in an attribute."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(found, int):
                return found
        for name in ("status", "status_code", "code"):
            found = getattr(one, name, None)
            if isinstance(found, int) and 100 <= found < 600:
                return found
    return None


def _type_names(error: BaseException) -> list[str]:
    """Names of its classes that come from libraries of the network."""
    return [kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] in _NETWORK]


def _as_os_error(what: str, error: Exception) -> OSError:
    """An OSError that names the place, of the kind that callers tell apart."""
    if _code(error) == "NoSuchBucket":
        return OSError(f"{what}: the bucket does not exist")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such object", what)
    if any("Credential" in name for name in _type_names(error)):
        return PermissionError(f"{what}: no usable credentials: {_words(error)}")
    if isinstance(error, PermissionError) or _status(error) in (401, 403):
        return PermissionError(f"{what}: refused: {_words(error)}")
    return OSError(f"{what}: {_words(error)}")


def _code(error: BaseException) -> str:
    """The error code of S3, where there is one."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{name}={text!r} is not a number of 0 or more")
    return value
