"""How the nodes of a launch reach each other where the name of a node does not lead to it."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import struct
import threading
from dataclasses import replace

from dtk_launch.allocation import Allocation
from dtk_launch.asking import ask
from dtk_launch.errors import PlanError
from dtk_launch.meeting import LOOPBACK

_SIOCGIFADDR = 0x8915  # netdevice(7): the IPv4 address of an interface
_ELSEWHERE = "192.0.2.1"  # of no machine (RFC 5737): asked for the way there, nothing is sent
_PATIENCE = 20  # seconds for a controller that is busy
FIX_LOOPBACK = "ip link set lo up, as root; in a network namespace of your own (unshare -n), before what runs in it"
_LONGEST = 2.0  # seconds for the host's own name


def addressed(step: Allocation) -> Allocation:
    """The step with the addresses of its first and of this node, where their names are not known on this node.

    Raises PlanError where SLURM does not know them either: the ranks would look for each other until a timeout.
    """
    names = [name for name in dict.fromkeys((step.head, step.node_name)) if not _addresses(name)]
    found = {name: _address_by_slurm(name) for name in names}
    for name, address in found.items():
        if not address:
            raise PlanError(
                f"the node name {name} is not known on {step.node_name}, and scontrol show node {name} says no "
                "address, so its nodes cannot meet; ask your admin for a DNS entry or a NodeAddr in slurm.conf"
            )
    return replace(
        step, head_address=found.get(step.head, step.head_address), own_address=found.get(step.node_name, "")
    )


def gloo_interface(head: str) -> str:
    """The interface that gloo has to be told of (GLOO_SOCKET_IFNAME); '' where it finds the right one by itself.

    gloo listens at the address that this host's own name has. Where it has none, or that of the loopback (as Debian
    writes it into /etc/hosts), ranks of other nodes cannot reach it. `head` is where the nodes meet.
    """
    own = next((address for address in _addresses(socket.gethostname()) if _can_bind(address)), "")
    if own and not _loopback(own):
        return ""
    here = _way_to(head)
    if _loopback(here) and not _loopback(head):
        here = _way_to(_ELSEWHERE)
    return "" if not here or _loopback(here) else _interface_of(here)


def loopback_is_down() -> bool:
    """Whether processes of this host cannot reach each other at 127.0.0.1. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((LOOPBACK, 9))
            return not _loopback(str(probe.getsockname()[0]))
    except OSError as error:
        return error.errno == errno.ENETUNREACH


def unnamed(patience: float = _LONGEST) -> str:
    """Why ranks would not find this host by the name that torchrun looks up; '' where they would.

    The look-up is waited for during `patience` seconds.
    """
    said: list[str] = []
    asking = threading.Thread(target=lambda: said.append(_unnamed()), daemon=True)
    asking.start()
    asking.join(patience)
    return said[0] if said else f"the look-up of this host's own name was not over after {patience:g} seconds"


def _unnamed() -> str:
    name = socket.getfqdn()  # as torch.distributed.elastic.rendezvous does
    found = list(dict.fromkeys(_addresses(name)))
    if any(map(_can_bind, found)):
        return ""
    return f"the name {name} of this host " + (
        f"leads to {', '.join(found)}, no address of it" if found else "is not known here"
    )


def _addresses(name: str) -> list[str]:
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []


def _address_by_slurm(name: str) -> str:
    """The node's address in the words of SLURM's controller, if it is one that this host knows."""
    said = ask(("scontrol", "show", "node", "-o", name), patience=_PATIENCE)
    found = re.search(r"\bNodeAddr=(\S+)", said.stdout)
    return found[1] if found and _addresses(found[1]) else ""


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "localhost")


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _way_to(host: str) -> str:
    """This host's IPv4 address on the way there; '' if there is no way. Nothing is sent."""
    with contextlib.suppress(OSError, UnicodeError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])
    return ""


def _interface_of(address: str) -> str:
    """The interface with this IPv4 address; '' where that cannot be seen."""
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):
                    answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                    if socket.inet_ntoa(answer[20:24]) == address:
                        return name
    except (ImportError, OSError):
        return ""
    return ""
