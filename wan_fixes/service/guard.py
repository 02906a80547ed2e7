"""What every request passes before it is answered: the Host check, the token; and what every answer gets."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from wan_fixes.service.host_header import host_name, normal_host

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_EVERY_ANSWER: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
_POLICY_VIOLATION: Final = 1008  # https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered."""

    status: HTTPStatus
    code: str
    what: str
    fix: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": error_of(self.code, self.what, fix=self.fix)}


def error_of(code: str, what: str, *, reason: str = "", fix: str = "") -> dict[str, str]:
    """An error as programs and people read it, the same in every answer that is one."""
    return {"code": code, "what": what, "reason": reason, "fix": fix}


_BAD_HOST: Final = Refusal(
    HTTPStatus.BAD_REQUEST,
    "BAD_HOST",
    "the Host header is missing, there twice, or malformed",
    "use an ordinary HTTP client",
)
_UNKNOWN_HOST: Final = Refusal(
    HTTPStatus.MISDIRECTED_REQUEST,
    "UNKNOWN_HOST",
    "this server is not known by that name",
    "call it by the address that it printed, or start it with --allow-host NAME",
)
_UNAUTHORIZED: Final = Refusal(
    HTTPStatus.UNAUTHORIZED,
    "UNAUTHORIZED",
    "the token is missing or wrong",
    "send the header Authorization: Bearer TOKEN",
    ((b"www-authenticate", b"Bearer"),),
)
#: What is said where no answer could be made.
FAULT: Final = Refusal(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "INTERNAL",
    "this is a fault of the program, not yours",
    "report it with the log of `wan serve`",
)


class Guard:
    """An ASGI application around another one.

    Parameters
    ----------
    hosts:
        Names and addresses that a request may call this server by.
    token:
        What each request must bring as ``Authorization: Bearer``; "" for none.
    """

    def __init__(self, inner: Application, hosts: Iterable[str], token: str = "") -> None:
        self._inner = inner
        self._hosts = frozenset(map(normal_host, hosts))
        self._token = token.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        answer = _Answer(send, without_body=scope["method"] == "HEAD")
        refusal = self._refusal(list(scope["headers"]))
        if refusal is not None:
            await answer.refuse(refusal)
            return
        try:
            # HEAD is answered as GET is, less the body.
            await self._inner({**scope, "method": "GET" if answer.without_body else scope["method"]}, receive, answer)
        except Exception:
            logger.exception("a request could not be answered")
            if not answer.is_begun:
                await answer.refuse(FAULT)

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
        hosts, sent = (
            [value for name, value in headers if name.lower() == wanted] for wanted in (b"host", b"authorization")
        )
        host = host_name(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            return _BAD_HOST
        if host not in self._hosts:
            return _UNKNOWN_HOST
        if self._token and not (len(sent) == 1 and self._is_right(sent[0])):
            return _UNAUTHORIZED
        return None

    def _is_right(self, authorization: bytes) -> bool:
        scheme, _, token = authorization.partition(b" ")
        return secrets.compare_digest(token.strip(), self._token) and scheme.lower() == b"bearer"


class _Answer:
    """What is sent back, with the headers that every answer has."""

    def __init__(self, send: Send, *, without_body: bool) -> None:
        self._send = send
        self.without_body = without_body
        self.is_begun = False

    async def __call__(self, message: Message) -> None:
        """Pass on a part of the answer, as the application sends it."""
        if message["type"] == "http.response.start":
            self.is_begun = True
            message = {**message, "headers": [*message.get("headers", ()), *_EVERY_ANSWER]}
        elif message["type"] == "http.response.body" and self.without_body:
            message = {**message, "body": b""}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Send an error of our own, in the form that all have."""
        body = json.dumps(refusal.as_json()).encode("ascii")
        own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *refusal.headers]
        await self({"type": "http.response.start", "status": int(refusal.status), "headers": own})
        await self({"type": "http.response.body", "body": body})
