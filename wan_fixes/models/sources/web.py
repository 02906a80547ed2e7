"""Asking web servers: what they answer is checked, and whatever goes wrong becomes a `ModelError` with its code.

Redirects are followed here and not by the library: never from https to http, never to what is no web address, and
what is secret to one server is not told to another.
"""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, urljoin

import requests
import urllib3

from wan_fixes import __version__
from wan_fixes.health.retry import backoff_seconds
from wan_fixes.health.text import plain
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.sources.addresses import is_loopback, problem_with_address, same_origin, split_address

#: What is read first: little enough to come soon, and to be lost when a connection breaks, on a slow line too.
CHUNK_BYTES: Final = 1 << 16
_LARGEST_CHUNK: Final = 1 << 20
#: Seconds in which a piece should come: on a fast line the next one is larger.
_CHUNK_SECONDS: Final = 0.1
_MOST_REDIRECTS: Final = 10
_LONGEST_PATIENCE: Final = 300.0
_LARGEST_DOCUMENT: Final = 64 << 20
_MOST_DIGITS: Final = 18  # of a size in bytes
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_BY_STATUS: Final = {
    401: ErrorCode.AUTH_FAIL,
    403: ErrorCode.AUTH_FAIL,
    404: ErrorCode.NOT_FOUND,
    407: ErrorCode.AUTH_FAIL,
    408: ErrorCode.TIMEOUT,
    410: ErrorCode.NOT_FOUND,
    416: ErrorCode.SOURCE_CHANGED,
    429: ErrorCode.RATE_LIMIT,
}
_FIXES: Final = {
    ErrorCode.AUTH_FAIL: "log in (`hf auth login`, or set HF_TOKEN), and accept the model's conditions on its page",
    ErrorCode.NOT_FOUND: "check the repository and revision in the manifest",
    ErrorCode.RATE_LIMIT: "wait a while, or log in: the hub lets known users ask more often",
    ErrorCode.TLS_FAIL: "check this machine's clock and certificates, and any program that looks into its traffic",
    ErrorCode.SOURCE_CHANGED: "run it again: it then takes the files as they are now",
}
_FIX: Final = "check the network and run it again: it goes on where it was"

Result = TypeVar("Result")


@dataclass(frozen=True)
class RetryPolicy:
    """How often what may be gone a moment later is tried again, and the longest first wait in seconds."""

    attempts: int = 5
    base_seconds: float = 1.0
    rng: random.Random = field(default_factory=random.Random, compare=False)
    sleep: Callable[[float], None] = field(default=time.sleep, compare=False)

    def run(self, work: Callable[[], Result]) -> Result:
        """What `work` gives, tried again while it fails with what is transient.

        A server's word when to come back counts, up to five minutes; beyond that the error is raised at once.
        """
        failures = 0
        while True:
            try:
                return work()
            except ModelError as error:
                self.wait(error, failures)
                failures += 1

    def wait(self, error: ModelError, failures: int, stop: threading.Event | None = None) -> None:
        """Wait before the next attempt, after `failures` others, or until `stop` is set.

        Raises the error where there is to be none.
        """
        pause = max(backoff_seconds(failures, self.base_seconds, self.rng), error.retry_after or 0.0)
        if not error.is_transient or failures == self.attempts or pause > _LONGEST_PATIENCE:
            raise error
        (self.sleep if stop is None else stop.wait)(pause)


class Answer:
    """What a server sends: a piece of a file, read once."""

    def __init__(self, response: requests.Response, address: str, start: int, total: int | None) -> None:
        self._response = response
        self.address = address
        #: Where it begins in the file, in bytes.
        self.start = start
        #: Bytes of the whole file, where the server says so.
        self.total = total
        etag = response.headers.get("ETag", "")
        #: What names this state of the file; "" where the server gives none that is strong enough.
        self.etag = "" if etag.startswith("W/") else etag
        #: Whether all of the file comes, since the server knows no parts.
        self.is_whole = response.status_code == 200

    def chunks(self) -> Iterator[bytes]:
        """The bytes. Raises ModelError when they stop coming, or end early."""
        announced = _content_length(self._response)
        received, size, began = 0, CHUNK_BYTES, time.monotonic()
        try:
            while chunk := self._response.raw.read(size, decode_content=False):
                is_fast = time.monotonic() - began < _CHUNK_SECONDS
                size = min(2 * size, _LARGEST_CHUNK) if is_fast else CHUNK_BYTES
                received += len(chunk)
                yield chunk
                began = time.monotonic()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise failure_of(error, self.address) from error
        if announced is not None and received < announced:
            raise _failed(ErrorCode.NETWORK, self.address, f"it ended after {received} of {announced} bytes")

    def close(self) -> None:
        """Stop reading."""
        self._response.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WebClient:
    """Connections that are kept, for one server's files.

    Parameters
    ----------
    endpoint:
        The server that `headers` are for; others never get them.
    headers:
        What it needs to know who asks.
    timeouts:
        Seconds until a connection stands, and between two pieces of an answer.
    """

    def __init__(
        self, endpoint: str, headers: Mapping[str, str] | None = None, *, timeouts: tuple[float, float] = (10.0, 30.0)
    ) -> None:
        self._endpoint = split_address(endpoint)
        self._headers = dict(headers or {})
        self._timeouts = timeouts
        self._session = _session()
        # No proxy is asked for this machine. Told so by an argument, the library changes the environment for a moment,
        # and other threads with it: https://github.com/psf/requests/blob/main/src/requests/utils.py, `set_environ`.
        self._local = _session()
        self._local.trust_env = False

    def json(self, address: str, params: Mapping[str, str] | None = None) -> Any:
        """A JSON document. Raises ModelError."""
        response, final = self._open(address, {}, params)
        with Answer(response, final, 0, None) as answer:
            document = bytearray()
            for chunk in answer.chunks():
                document += chunk
                if len(document) > _LARGEST_DOCUMENT:
                    raise _failed(ErrorCode.BAD_REPLY, address, "its answer has no end")
        try:
            return json.loads(document)
        except (ValueError, RecursionError) as error:
            raise _failed(ErrorCode.BAD_REPLY, address, "its answer is no JSON") from error

    def read(self, address: str, start: int, stop: int, etag: str = "") -> Answer:
        """A file's bytes from `start` to before `stop`, while it is in the state that `etag` names.

        A server that knows no ranges gives all of it: `Answer.start` is 0 then. Raises ModelError.
        """
        headers = {"Range": f"bytes={start}-{stop - 1}"} | ({"If-Range": etag} if etag else {})
        response, final = self._open(address, headers, None)
        try:
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise _failed(ErrorCode.BAD_REPLY, final, "it sends the file in another encoding")
            if response.status_code == 206:
                match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
                if match is None or int(match[1]) != start or int(match[2]) >= stop:
                    raise _failed(ErrorCode.BAD_REPLY, final, "it sends another part than it was asked for")
                return Answer(response, final, start, None if match[3] == "*" else int(match[3]))
            answer = Answer(response, final, 0, _content_length(response))
            if etag and answer.etag != etag:
                raise _failed(ErrorCode.SOURCE_CHANGED, final, "the file is another one than when it was begun")
            return answer
        except BaseException:
            response.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._session.close()
        self._local.close()

    def _open(
        self, address: str, headers: Mapping[str, str], params: Mapping[str, str] | None
    ) -> tuple[requests.Response, str]:
        """The answer that is no redirect, and where it came from."""
        for _ in range(_MOST_REDIRECTS + 1):
            parts = split_address(address)
            response = self._ask(address, parts, headers, params)
            if response.status_code not in (301, 302, 303, 307, 308):
                break
            location = response.headers.get("Location", "")
            response.close()
            following = urljoin(address, location)
            problem = problem_with_address(following) if location else "it does not say where to"
            if problem is None and parts.scheme == "https" and not following.startswith("https:"):
                problem = "it leads from https to http"
            if problem is not None:
                raise _failed(ErrorCode.UNTRUSTED_HOST, address, f"its redirect is not followed: {problem}")
            address, params = following, None
        else:
            raise _failed(ErrorCode.BAD_REPLY, address, f"more than {_MOST_REDIRECTS} redirects")
        if response.status_code not in (200, 206):
            try:
                raise _failure_of_status(response, address)
            finally:
                response.close()
        return response, address

    def _ask(
        self, address: str, parts: SplitResult, headers: Mapping[str, str], params: Mapping[str, str] | None
    ) -> requests.Response:
        own = self._headers if same_origin(parts, self._endpoint) else {}
        session = self._local if is_loopback(parts.hostname or "") else self._session
        try:
            return session.get(
                address,
                params=params,
                headers={**own, **headers},
                stream=True,
                allow_redirects=False,
                timeout=self._timeouts,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise failure_of(error, address) from error


def _session() -> requests.Session:
    session = requests.Session()
    session.auth = lambda request: request  # else the library looks for a password of its own in ~/.netrc
    session.headers.update({"User-Agent": f"wan-fixes/{__version__}", "Accept-Encoding": "identity"})
    adapter = requests.adapters.HTTPAdapter(pool_connections=8, pool_maxsize=64, max_retries=0)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session


def failure_of(error: BaseException, address: str) -> ModelError:
    """What a broken connection means."""
    causes = list(_causes(error))
    if any(isinstance(cause, (ssl.SSLError, requests.exceptions.SSLError)) for cause in causes):
        return _failed(ErrorCode.TLS_FAIL, address, "its certificate or encryption is not accepted")
    if any(isinstance(cause, (socket.gaierror, urllib3.exceptions.NameResolutionError)) for cause in causes):
        return _failed(ErrorCode.NETWORK, address, "no name server knows it")
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return _failed(ErrorCode.NETWORK, address, "nobody answers there")
    if any(isinstance(cause, (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)) for cause in causes):
        return _failed(ErrorCode.TIMEOUT, address, "it does not answer in time")
    if any(isinstance(cause, (requests.exceptions.InvalidURL, ValueError, UnicodeError)) for cause in causes[:1]):
        return _failed(ErrorCode.BAD_REPLY, address, "it is no web address")
    return _failed(ErrorCode.NETWORK, address, f"the connection broke: {plain(causes[-1], 200)}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = next((argument for argument in current.args if isinstance(argument, BaseException)), None)
        reason = getattr(current, "reason", None)
        if isinstance(reason, BaseException):
            inner = reason
        current = inner or current.__cause__ or current.__context__


def _failure_of_status(response: requests.Response, address: str) -> ModelError:
    status = response.status_code
    code = _BY_STATUS.get(status, ErrorCode.SERVER_ERROR if status >= 500 else ErrorCode.BAD_REPLY)
    # The hub says "repository not found" with 401 to those that it does not know.
    said = response.headers.get("X-Error-Message", "") or (response.reason or "")
    error = _failed(code, address, f"it answers {status} {plain(said, 200)}".rstrip())
    error.retry_after = retry_after_of(response.headers.get("Retry-After", ""), time.time())
    return error


def retry_after_of(text: str, now: float) -> float | None:
    """The seconds that a ``Retry-After`` header means: a number, or a date."""
    if _is_number(text.strip()):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None


def _content_length(response: requests.Response) -> int | None:
    """The bytes that an answer is to have; None where it does not say."""
    text = response.headers.get("Content-Length", "")
    return int(text) if _is_number(text) and len(text) <= _MOST_DIGITS else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _failed(code: ErrorCode, address: str, reason: str) -> ModelError:
    shown = plain(address.partition("?")[0], 200)  # what comes behind it may be the right to read
    what = "a server does not give what is needed"
    return ModelError(code, what, path=shown, reason=reason, fix=_FIXES.get(code, _FIX))
