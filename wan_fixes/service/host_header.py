"""Reading a request's Host header: which name the client believes that it speaks to.

A page of somebody else's can have its own name point at this machine after it was loaded (DNS rebinding), and then read
what is served here. Its requests come with its own name in Host: only names that are ours are answered.
https://datatracker.ietf.org/doc/html/rfc9110#name-host-and-authority
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

LOOPBACK_NAMES: Final = ("127.0.0.1", "::1", "localhost")

_HOST: Final = re.compile(
    rb"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::(?P<port>\d{1,5}))?"
)
_LAST_PORT: Final = 65535


def host_name(header: bytes) -> str | None:
    """The name or address in a Host header, without port and brackets, as `normal_host` has it; None where it is none.

    A port may be any: behind a forwarded one the client knows another than the server.
    """
    match = _HOST.fullmatch(header)
    if match is None or not 0 < int(match["port"] or 1) <= _LAST_PORT:
        return None
    if match["ipv6"] is None:
        return normal_host(match["name"].decode("ascii"))
    try:
        return str(ipaddress.IPv6Address(match["ipv6"].decode("ascii")))
    except ValueError:
        return None


def normal_host(name: str) -> str:
    """A name or address in the one form in which it is compared: lower case, no brackets, IPv6 shortened."""
    bare = name.strip().removeprefix("[").removesuffix("]").lower()
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return bare
