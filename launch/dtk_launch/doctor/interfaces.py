"""The network interfaces of this host, and which of them gloo and NCCL will take."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_SIOCGIFADDR, _SIOCGIFFLAGS, _SIOCGIFMTU = 0x8915, 0x8913, 0x8921  # netdevice(7)
_UP, _LOOPBACK = 0x1, 0x8
_NOT_FIRST = ("docker", "lo", "virbr")


@dataclass(frozen=True)
class Interface:
    """One interface. `speed` in Mb/s, None where it is not told; `addresses` IPv4 first, without link-local IPv6."""

    name: str
    up: bool
    loopback: bool
    addresses: tuple[str, ...]
    mtu: int = 1500
    speed: int | None = None

    @property
    def between_hosts(self) -> bool:
        """Whether others can probably be reached by it: not the loopback, not a bridge for containers."""
        return self.up and bool(self.addresses) and not self.loopback and not self.name.startswith(_NOT_FIRST)


def probe(root: Path = Path("/")) -> tuple[Interface, ...]:
    """The interfaces, in the system's order. `root` is where /proc and /sys are found."""
    v6 = dict(_v6_addresses(root))
    found = []
    for _, name in socket.if_nameindex():
        flags = _ask(name, _SIOCGIFFLAGS, "H")
        mtu = _ask(name, _SIOCGIFMTU, "i")
        v4 = _v4_address(name)
        addresses = ((v4,) if v4 else ()) + tuple(address for address, on in v6.items() if on == name)
        if flags is not None:
            up, loopback = bool(flags & _UP), bool(flags & _LOOPBACK)
            found.append(Interface(name, up, loopback, addresses, mtu or 0, _speed(root, name)))
    return tuple(found)


def _ask(name: str, request: int, kind: str) -> int | None:
    answer = _ioctl(name, request)
    return int(struct.unpack_from(kind, answer, 16)[0]) if answer else None


def _v4_address(name: str) -> str:
    answer = _ioctl(name, _SIOCGIFADDR)
    return socket.inet_ntoa(answer[20:24]) if answer else ""


def _ioctl(name: str, request: int) -> bytes:
    """The kernel's answer; empty where there is none."""
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            return bytes(fcntl.ioctl(probe, request, struct.pack("256s", name.encode()[:15])))
    except (ImportError, OSError):
        return b""


def _v6_addresses(root: Path) -> Iterator[tuple[str, str]]:
    """(address, interface), those of a link alone left out."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/net/if_inet6").read_text().splitlines():
            digits, *_, name = line.split()
            address = ipaddress.IPv6Address(bytes.fromhex(digits))
            if not address.is_link_local:
                yield str(address), name


def _speed(root: Path, name: str) -> int | None:
    try:
        speed = int((root / "sys/class/net" / name / "speed").read_text())
    except (OSError, ValueError):
        return None
    return speed if speed > 0 else None


def of_address(interfaces: Sequence[Interface], address: str) -> str:
    """The interface that has this address, '' if none; 127.0.1.1 is the loopback's, too."""
    for interface in interfaces:
        if address in interface.addresses or (interface.loopback and address.startswith("127.")):
            return interface.name
    return ""


def named(interfaces: Sequence[Interface], names: str) -> tuple[tuple[Interface, ...], tuple[str, ...]]:
    """(those that GLOO_SOCKET_IFNAME=`names` means, the names that are of no interface here)."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    there = {interface.name: interface for interface in interfaces}
    return tuple(there[name] for name in wanted if name in there), tuple(name for name in wanted if name not in there)


def nccl_takes(interfaces: Sequence[Interface], names: str = "", family: str = "") -> tuple[str, ...]:
    """The interfaces that NCCL will take, the first for its bootstrap. `names`, `family`: its variables.

    NCCL_SOCKET_IFNAME is a list of prefixes, with `=` of names, with `^` of what is left out. Without it NCCL takes
    ib*, else all but docker*, lo and virbr*, else one of those (its misc/socket.cc, ncclFindInterfaces).
    """
    usable = [interface for interface in interfaces if interface.up and _of_family(interface, family)]
    if names:
        without, exact = names.startswith("^"), names.lstrip("^").startswith("=")
        words = [word for word in names.lstrip("^=").split(",") if word]
        return tuple(i.name for i in usable if _matches(i.name, words, exact) != without)
    for prefix in ("ib", None, "docker", "lo", "virbr"):
        if prefix is None:
            found = tuple(i.name for i in usable if not i.name.startswith(_NOT_FIRST))
        else:
            found = tuple(i.name for i in usable if i.name.startswith(prefix))
        if found:
            return found
    return ()


def _matches(name: str, words: Sequence[str], exact: bool) -> bool:
    return any(name == word if exact else name.startswith(word) for word in words)


def _of_family(interface: Interface, family: str) -> bool:
    v6 = [address for address in interface.addresses if ":" in address and address != "::1"]
    v4 = [address for address in interface.addresses if ":" not in address]
    return bool({"AF_INET": v4, "AF_INET6": v6}.get(family, v4 + v6))
