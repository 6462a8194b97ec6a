#!/usr/bin/env python3
"""wire.py PID N MS: the link of node N, whose first process is PID; each frame takes MS milliseconds, either way.

A stand-in for the kernel's sch_netem, which many kernels of containers and small machines lack: two taps, one on the
bridge of the login node, one that becomes eth0 of the node, and this process between them. Needs root and /dev/net/tun.
It runs until it is killed, or its node is gone.
"""

import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
LONGEST_FRAME = 65536
AT_ONCE = 64  # frames that are read from one side before the other has its turn


def tap(name: str) -> int:
    """Descriptor of a new interface: what is written to it arrives there, what is sent there is read from it."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def ip(*words: str) -> None:
    """Run ip(8). Raises CalledProcessError."""
    subprocess.run(["ip", "link", "set", *words], check=True)


def carry(one: int, other: int, delay: float) -> None:
    """Hand every frame of either side to the other, `delay` seconds after it came. Ends when a side is gone."""
    to = {one: other, other: one}
    under_way: collections.deque[tuple[float, int, bytes]] = collections.deque()
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for side in select.select([one, other], [], [], wait)[0]:  # poll() would sleep whole milliseconds
            for _ in range(AT_ONCE):
                try:
                    frame = os.read(side, LONGEST_FRAME)
                except BlockingIOError:
                    break
                under_way.append((time.monotonic() + delay, to[side], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, side, frame = under_way.popleft()
            try:
                os.write(side, frame)
            except OSError:
                continue  # that side is down, or full: the frame is lost, as on a wire


def main() -> None:
    """Make the link and be it."""
    pid, node, milliseconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    bridge, inside = tap(f"v{node}"), tap(f"e{node}")
    for name in (f"v{node}", f"e{node}"):
        ip(name, "txqueuelen", "5000")
    ip(f"v{node}", "master", "br0", "up")
    ip(f"e{node}", "netns", pid, "name", "eth0")
    try:
        carry(bridge, inside, milliseconds / 1000)
    except OSError as error:
        sys.exit(f"wire.py: the link of node {node} has ended: {error.strerror}")


if __name__ == "__main__":
    main()
