"""Whose server it is that listens on this machine.

On a shared machine anyone can listen on a well-known port. A server of another ordinary user is not spoken to unless the
person names it: it would read their prompts.

Linux tells in 50 µs who listens at one port (`man 7 sock_diag`), which is little enough to ask before each request. Where it
does not, its tables of all connections are read, which takes it up to 10 ms.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

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

PORT_AT, ADDRESS_AT, OWNER_AT = 4, 8, 64
"""Where an answer (`inet_diag_msg`) has the port, the address, and the owner's id."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK: tuple[Address, Address] = ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1")
"""This machine by its numbers; a name of it may mean either."""


class Listener(NamedTuple):
    """Who listens for TCP: where, and the id of the user."""

    address: Address
    port: int
    owner: int

    def takes(self, address: Address) -> bool:
        """Whether a connection to that address may end here: `0.0.0.0` takes all of IPv4, and `::` may take that too."""
        if self.address.is_unspecified:
            return address.version <= self.address.version
        return _unmapped(self.address) == address


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
    others = [one for one in found if one.owner >= FIRST_ORDINARY_USER and one.owner != os.getuid()]
    return frozenset(
        url
        for url, port in ports.items()
        if any(one.port == port and one.takes(address) for one in others for address in reached(url))
    )


def reached(url: str) -> Collection[Address]:
    """The addresses of this machine at which a connection to a loopback URL may end."""
    try:
        address = _unmapped(ipaddress.ip_address((urlsplit(url).hostname or "").removesuffix(".")))
    except ValueError:  # a name
        return LOOPBACK
    return LOOPBACK if address.is_unspecified else (address,)


def listeners(ports: Collection[int]) -> set[Listener]:
    """Everything that listens for TCP at these ports; perhaps more."""
    try:
        return {one for port in ports for one in _at(port)}
    except (OSError, struct.error):  # no such protocol: a sandbox, or not Linux
        return listening(PROC_NET)


def listening(tables: Path) -> set[Listener]:
    """Everything that listens for TCP, from the system's tables."""
    found: set[Listener] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (tables / name).read_text().splitlines()[1:]:
                fields = line.split(maxsplit=8)
                with contextlib.suppress(ValueError, IndexError, OverflowError):  # a line that is cut off
                    if fields[3] == LISTENING:
                        address, _, port = fields[1].partition(":")
                        found.add(Listener(_from_table(address), int(port, 16), int(fields[7])))
    return found


def _unmapped(address: Address) -> Address:
    """An address of IPv4 as what it is, also where it is written as one of IPv6."""
    return getattr(address, "ipv4_mapped", None) or address


def _from_table(digits: str) -> Address:
    """An address as the system's tables write it: words of 32 bits, each as this machine reads it."""
    words = (int(digits[at : at + 8], 16) for at in range(0, len(digits), 8))
    return ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _at(port: int) -> set[Listener]:
    """Who listens at a port. Raises `OSError` where the system does not tell in this way."""
    if sys.platform != "linux":
        raise OSError("only Linux tells")
    found: set[Listener] = set()
    for family, length in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        body = QUESTION.pack(family, socket.IPPROTO_TCP, 0, 1 << int(LISTENING, 16), port.to_bytes(2, "big"))
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as asking:
            asking.settimeout(1.0)
            asking.send(HEADER.pack(HEADER.size + len(body), BY_FAMILY, DUMP, 1, 0) + body)
            for answer in _answers(asking):
                if int.from_bytes(answer[PORT_AT : PORT_AT + 2], "big") == port:
                    address = ipaddress.ip_address(answer[ADDRESS_AT : ADDRESS_AT + length])
                    found.add(Listener(address, port, struct.unpack_from("=I", answer, OWNER_AT)[0]))
    return found


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
