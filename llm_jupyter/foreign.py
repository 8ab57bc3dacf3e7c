"""Whose server it is that listens on this machine.

On a shared machine anyone can listen on a well-known port. A server of another ordinary user is not spoken to unless the
person names it: it would read their prompts.

Linux tells in 50 µs who listens at one port (`man 7 sock_diag`), which is little enough to ask before each request. Where it
does not, its tables of all connections are read, which takes it up to 10 ms.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from llm_jupyter.ports import port_of

LISTENING = "0A"
FIRST_ORDINARY_USER = 1000
"""Below are root and the system's services (Linux: `UID_MIN` of login.defs)."""

PROC_NET = Path("/proc/net")

SOCK_DIAG, BY_FAMILY, DUMP = 4, 20, 0x301
"""Linux's numbers for the protocol, for the question (`SOCK_DIAG_BY_FAMILY`), and for wanting all that fits it."""

FAILED, DONE = 2, 3
"""Types of a message of Linux in place of an answer."""

HEADER = struct.Struct("=IHHII")
QUESTION = struct.Struct("=BBBxI2s46x")
"""Family, protocol, nothing more, states as bits, and the port as it travels; all else of the address is left open."""

PORT_AT, OWNER_AT = 4, 64
"""Where an answer (`inet_diag_msg`) has the port and the owner's id."""


def is_foreign(url: str, tables: Path | None = None) -> bool:
    """Whether another ordinary user of this machine listens at that loopback address."""
    return bool(foreign_among([url], tables))


def foreign_among(urls: Collection[str], tables: Path | None = None) -> frozenset[str]:
    """Those of the loopback addresses at which another ordinary user of this machine listens, if any.

    Empty where the system does not tell (anywhere but on Linux). With a folder of `tables`, those are read.
    """
    if not urls or not hasattr(os, "getuid"):
        return frozenset()
    ports = {url: port_of(url) for url in urls}
    found = listeners(set(ports.values())) if tables is None else listening(tables)
    others = {port for port, owner in found if owner >= FIRST_ORDINARY_USER and owner != os.getuid()}
    return frozenset(url for url, port in ports.items() if port in others)


def listeners(ports: Collection[int]) -> set[tuple[int, int]]:
    """Port and user id of everything that listens for TCP at these ports; perhaps of more."""
    try:
        return {(port, owner) for port in ports for owner in _owners(port)}
    except (OSError, struct.error):  # no such protocol: a sandbox, or not Linux
        return listening(PROC_NET)


def listening(tables: Path) -> set[tuple[int, int]]:
    """Port and user id of everything that listens for TCP, from the system's tables."""
    found: set[tuple[int, int]] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (tables / name).read_text().splitlines()[1:]:
                fields = line.split(maxsplit=8)
                with contextlib.suppress(ValueError, IndexError):  # a line that is cut off
                    if fields[3] == LISTENING:
                        found.add((int(fields[1].rpartition(":")[2], 16), int(fields[7])))
    return found


def _owners(port: int) -> set[int]:
    """The user ids of whoever listens at a port. Raises `OSError` where the system does not tell in this way."""
    if sys.platform != "linux":
        raise OSError("only Linux tells")
    owners: set[int] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        body = QUESTION.pack(family, socket.IPPROTO_TCP, 0, 1 << int(LISTENING, 16), port.to_bytes(2, "big"))
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as asking:
            asking.settimeout(1.0)
            asking.send(HEADER.pack(HEADER.size + len(body), BY_FAMILY, DUMP, 1, 0) + body)
            for answer in _answers(asking):
                if int.from_bytes(answer[PORT_AT : PORT_AT + 2], "big") == port:
                    owners.add(struct.unpack_from("=I", answer, OWNER_AT)[0])
    return owners


def _answers(asking: socket.socket) -> Iterator[bytes]:
    """What Linux answers, message by message."""
    while True:
        packet = asking.recv(65536)
        while packet:
            length, kind, *_ = HEADER.unpack_from(packet)
            if kind == DONE:
                return
            if kind == FAILED:
                raise OSError("it was refused")
            yield packet[HEADER.size : length]
            packet = packet[-(-length // 4) * 4 :]
