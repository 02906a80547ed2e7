"""Which addresses may be asked: https, or plain http on this very machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from wan_fixes.health.text import plain
from wan_fixes.models.failures import ErrorCode, ModelError


def split_address(address: str) -> SplitResult:
    """The parts of an address. Raises ModelError unless it is https, or http on loopback."""
    problem = problem_with_address(address)
    if problem is not None:
        raise ModelError(
            ErrorCode.UNTRUSTED_HOST,
            "this address is not asked",
            reason=f"{plain(address, 200)!r}: {problem}",
            fix="use an https address",
        )
    return urlsplit(address)


def problem_with_address(address: str) -> str | None:
    """Why an address is not asked, or None where it may be."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if not host or any(character.isspace() or ord(character) < 32 for character in address):
        return "it names no host"
    if parts.username is not None or parts.password is not None:
        return "it holds a name or password, which would be logged"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return None
    return "it is not https, and no address of this machine"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its address and not by what a name server says."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def same_origin(one: SplitResult, other: SplitResult) -> bool:
    """Whether two addresses have one scheme, host and port, so that what is secret to one is to the other."""
    return _origin(one) == _origin(other)


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port
