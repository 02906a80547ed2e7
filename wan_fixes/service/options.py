"""How the service is started, checked before anything is opened."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wan_fixes.errors import UserError
from wan_fixes.service.host_header import LOOPBACK_NAMES, host_name, normal_host

PORT: Final = 8787
#: How long a request waits for the disk.
LOOK_SECONDS: Final = 3.0
TOKEN_VARIABLE: Final = "WAN_SERVE_TOKEN"
_SHORTEST_TOKEN: Final = 16


@dataclass(frozen=True)
class ServeOptions:
    """Where the service listens, and what it demands.

    Attributes
    ----------
    host:
        An address of this machine, or "localhost".
    port:
        0 for any that is free.
    allowed_hosts:
        Further names and addresses that it may be called by.
    token:
        What each request must bring; "" for none.
    tls_cert, tls_key:
        PEM files of a certificate with its chain, and of its key.

    Raises UserError where that cannot be, or would be readable by others.
    """

    host: str = LOOPBACK_NAMES[0]
    port: int = PORT
    allowed_hosts: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        address = self.address
        self._check_hosts()
        _check_token(self.token)
        if (self.tls_cert is None) is not (self.tls_key is None):
            raise UserError(
                "TLS needs a certificate and a key",
                reason="one of --tls-cert and --tls-key is missing",
                fix="name both files, or neither",
            )
        if self.tls_cert is not None and self.tls_key is not None:
            _check_certificate(self.tls_cert, self.tls_key)
        lacking = [name for name, given in (("a token", self.token), ("TLS", self.tls_cert)) if not given]
        if lacking and not address.is_loopback:
            raise UserError(
                f"others could read what is served at {self.host}",
                reason=f"an address that other machines reach needs {' and '.join(lacking)}",
                fix=f"set {TOKEN_VARIABLE} and name --tls-cert and --tls-key, or leave --host out",
            )

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """Where it listens. Raises UserError for a name."""
        host = normal_host(self.host)
        try:
            return ipaddress.ip_address(LOOPBACK_NAMES[0] if host == "localhost" else host)
        except ValueError as error:
            raise UserError(
                "the service cannot listen there",
                reason=f"{self.host[:100]!r} is no address",
                fix="name an address of this machine, such as 127.0.0.1; --allow-host takes names",
            ) from error

    @property
    def names(self) -> tuple[str, ...]:
        """All names and addresses that it may be called by."""
        own = () if self.address.is_unspecified else (str(self.address),)
        return (*LOOPBACK_NAMES, *own, *self.allowed_hosts)

    def url(self, port: int) -> str:
        """How it is called on this machine, with the port that it got."""
        scheme = "http" if self.tls_cert is None else "https"
        named = self.allowed_hosts[0] if self.address.is_unspecified and self.allowed_hosts else str(self.address)
        return f"{scheme}://{_in_url(named)}:{port}"

    def _check_hosts(self) -> None:
        for name in self.allowed_hosts:
            if host_name(_in_url(normal_host(name)).encode("ascii", "replace")) != normal_host(name):
                raise UserError(
                    "this is no name of a server",
                    reason=f"{name[:100]!r} cannot be in a Host header",
                    fix="write a name or an address, without scheme and port",
                )
        if self.address.is_unspecified and not self.allowed_hosts:
            raise UserError(
                "the service would not know its own name",
                reason=f"{self.host} is every address of this machine, and a request must name one that is allowed",
                fix="name what it is called by with --allow-host, or listen at one address",
            )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _check_token(token: str) -> None:
    if not token:
        return
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            "the token cannot be used",
            reason=f"it must have {_SHORTEST_TOKEN} characters or more, of ASCII and without spaces",
            fix='make one: python -c "import secrets; print(secrets.token_urlsafe())"',
        )


def _check_certificate(cert: Path, key: Path) -> None:
    """Load both as the server will. An encrypted key is refused: nobody is there to type its password."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for file in (cert, key):
        try:
            file.read_bytes()
        except OSError as error:
            raise UserError(
                "the certificate cannot be used", path=file, reason=error.strerror or str(error), fix="check the path"
            ) from error
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise UserError(
            "the certificate cannot be used",
            path=cert,
            reason=f"with {key} it is no pair that can be loaded: {getattr(error, 'reason', None) or error}",
            fix="name a PEM certificate, and its PEM key without a password",
        ) from error
