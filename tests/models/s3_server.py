"""S3 on loopback: moto's server keeps the objects, and a proxy before it asks for signatures and makes it fail.

The proxy adds what moto leaves out and S3 does: it checks every signature and how long it is good, says of what a
checksum is, and heeds ``If-Range``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import http.client
import logging
import re
import time
import traceback
from calendar import timegm
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import boto3
import pytest
from botocore import session
from botocore.config import Config
from moto.server import ThreadedMotoServer

from wan_fixes.health.text import plain

from .faulty_server import FaultyServer

BUCKET = "models"
ACCESS_KEY = "WANTESTKEY0000000001"
SECRET_KEY = "test-secret-of-nobody/0123456789+abcdefg"
SESSION_TOKEN = "test-session-of-nobody/0123456789+abcdef=="
SECRETS = (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN)
CREDENTIALS = (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN)
_CHUNK = 1 << 16
_STAMP = "%Y%m%dT%H%M%SZ"
# moto looks whether there is a signature, and not whether it is right.
_FOR_MOTO = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=any"

Files = Mapping[str, bytes]

# To read the descriptions of Amazon's services takes boto3 longer than most tests.
_create_loader = functools.cache(session.create_loader)


class Objects:
    """The objects, by moto. Whoever puts some there needs no signature."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log addresses with their signatures
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self.host, self.port = self._server.get_host_and_port()
        self.boto = boto3.session.Session("any", "any", region_name="us-east-1").client(
            "s3", endpoint_url=f"http://{self.host}:{self.port}", config=Config(proxies={})
        )
        self.boto.create_bucket(Bucket=BUCKET)

    def put(self, prefix: str, files: Files, **named: Any) -> None:
        for path, content in files.items():
            self.boto.put_object(Bucket=BUCKET, Key=f"{prefix}/{path}", Body=content, **named)

    def close(self) -> None:
        self.boto.close()
        self._server.stop()


@contextlib.contextmanager
def running_objects() -> Iterator[Objects]:
    objects = Objects()
    try:
        yield objects
    finally:
        objects.close()


class S3(FaultyServer):
    """The proxy: `address`, `faults`, and what it was asked and gave. Faults match a request's ``METHOD PATH``.

    Kinds of faults: status, stall, drop, redirect, garbage, late (seconds), reset, short, slow, wrong bytes, no ranges.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        #: Whether requests without a signature are answered.
        self.is_public = False
        #: Objects that a page of a list has; 0 for as many as moto gives.
        self.page = 0
        self.heeds_if_range = True
        #: When so many bytes of an object were served, this is called, once.
        self.at_bytes: tuple[str, int, Callable[[], object]] | None = None
        super().__init__(_handler(self))
        self.start()

    def count(self, path: str, count: int) -> None:
        with self.lock:
            self.served[path] += count
            act = self.at_bytes if self.at_bytes and self.served[self.at_bytes[0]] >= self.at_bytes[1] else None
            if act:
                self.at_bytes = None
        if act:
            act[2]()

    def asked(self, pattern: str = "") -> int:
        return sum(bool(re.search(pattern, f"{method} {path}")) for method, path, _ in self.requests)


@contextlib.contextmanager
def running_s3(objects: Objects) -> Iterator[S3]:
    s3 = S3(objects)
    try:
        yield s3
    finally:
        s3.close()


def set_environment(monkeypatch: pytest.MonkeyPatch, s3: S3, *, credentials: bool = True) -> None:
    """boto3 is to ask `s3`, and to know nothing of this machine's user."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "WAN_MODELS_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(session, "create_loader", _create_loader)
    monkeypatch.setenv("WAN_MODELS_KEYRING", "off")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "there-is-none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "there-is-none")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.address)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    for name, value in zip(names, CREDENTIALS, strict=True):
        if credentials:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name, raising=False)


def all_that_is_shown(error: BaseException) -> str:
    """What ``--debug`` shows of an error."""
    return "\n".join(plain(line) for line in "".join(traceback.format_exception(error)).splitlines())


def error_body(code: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>No.</Message></Error>'.encode()


def _handler(s3: S3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            with s3.lock:
                s3.requests.append((self.command, self.path, dict(self.headers.items())))
            self._request = f"{self.command} {self.path}"
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if self._is_spoilt():
                    return
                refusal = self._refusal()
                if refusal:
                    self._send(403, error_body(refusal), {})
                else:
                    self._pass_on()

        def _is_spoilt(self) -> bool:
            fault = s3.take_fault(self._request, "status", "stall", "drop", "redirect", "garbage")
            if fault is None:
                return False
            if fault.kind == "status":
                status, code, headers = fault.value
                self._send(status, error_body(code), headers)
            elif fault.kind == "stall":
                time.sleep(fault.value)
                self.close_connection = True
            elif fault.kind == "drop":
                self.close_connection = True
            elif fault.kind == "redirect":
                self._send(307, error_body("TemporaryRedirect"), {"Location": fault.value or self.path})
            else:
                self._send(200, fault.value, {"Content-Type": "application/xml"})
            return True

        def _refusal(self) -> str:
            """Why S3 would refuse this request; "" where it would not."""
            late = s3.take_fault(self._request, "late")
            return problem_with_signature(
                self.command, self.path, self.headers, time.time() + (late.value if late else 0), s3.is_public
            )

        def _pass_on(self) -> None:
            headers = {name: self.headers[name] for name in ("Range", "x-amz-checksum-mode") if name in self.headers}
            is_list = "list-type=2" in self.path
            if s3.take_fault(self._request, "no ranges") is not None:
                headers.pop("Range", None)
            status, said, body = self._from_moto(headers)
            if s3.heeds_if_range and self.headers.get("If-Range", said.get("ETag")) != said.get("ETag"):
                headers.pop("Range", None)
                status, said, body = self._from_moto(headers)
            if "x-amz-checksum-sha256" in said and "-" not in said.get("ETag", ""):
                said.setdefault("x-amz-checksum-type", "FULL_OBJECT")
            if is_list or self.command == "HEAD" or status >= 300:
                self._send(status, body, said)
            else:
                self._content(status, body, said)

        def _from_moto(self, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            path = self.path
            if s3.page and "list-type=2" in path:
                path += f"&max-keys={s3.page}"
            connection = http.client.HTTPConnection(s3.objects.host, s3.objects.port)
            try:
                connection.request(self.command, path, headers={**headers, "Authorization": _FOR_MOTO})
                response = connection.getresponse()
                kept = {
                    name: value
                    for name, value in response.getheaders()
                    if name.lower() not in ("connection", "date", "server", "transfer-encoding")
                }
                return response.status, kept, response.read()
            finally:
                connection.close()

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if not any(name.lower() == "content-length" for name in headers):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _content(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            spoil = s3.take_fault(self._request, "wrong bytes")
            reset = s3.take_fault(self._request, "reset")
            short = s3.take_fault(self._request, "short")
            slow = s3.take_fault(self._request, "slow")
            if spoil is not None:
                body = spoil.value(body)
            if short is not None:
                body = body[: -short.value]
            until = reset.value if reset else len(body)
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            path = unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")
            for at in range(0, until, _CHUNK):
                piece = body[at : min(at + _CHUNK, until)]
                self.wfile.write(piece)
                s3.count(path, len(piece))
                if slow is not None:
                    time.sleep(slow.value)
            if until < len(body):
                self.close_connection = True
                self.connection.shutdown(2)

    return Handler


def problem_with_signature(method: str, target: str, headers: Any, now: float, is_public: bool) -> str:
    """The code with which S3 refuses a request, "" where it does not.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
    """
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    signed = query.pop("X-Amz-Signature", "")
    if signed:
        scope, names, stamp = query["X-Amz-Credential"], query["X-Amz-SignedHeaders"], query["X-Amz-Date"]
        token, content = query.get("X-Amz-Security-Token", ""), "UNSIGNED-PAYLOAD"
        ends = timegm(time.strptime(stamp, _STAMP)) + int(query["X-Amz-Expires"])
        if not 0 < int(query["X-Amz-Expires"]) <= 604800:
            return "AuthorizationQueryParametersError"
    elif "Authorization" in headers:
        match = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=(.+), SignedHeaders=(.+), Signature=(.+)", headers["Authorization"]
        )
        if match is None:
            return "AuthorizationHeaderMalformed"
        scope, names, signed = match.groups()
        stamp, token = headers["X-Amz-Date"], headers.get("X-Amz-Security-Token", "")
        content = headers["X-Amz-Content-SHA256"]
        ends = timegm(time.strptime(stamp, _STAMP)) + 900
    else:
        return "" if is_public else "AccessDenied"
    if now > ends:
        return "AccessDenied" if "X-Amz-Expires" in query else "RequestTimeTooSkewed"
    key, *rest = scope.split("/")
    if key != ACCESS_KEY or token != SESSION_TOKEN:
        return "InvalidAccessKeyId"
    canonical = "\n".join(
        (
            method,
            quote(unquote(parts.path), safe="/-_.~"),
            "&".join(
                f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items())
            ),
            *(f"{name}:{' '.join(headers[name].split())}" for name in names.split(";")),
            "",
            names,
            content,
        )
    )
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, "/".join(rest), hashlib.sha256(canonical.encode()).hexdigest()))
    secret = f"AWS4{SECRET_KEY}".encode()
    for part in rest:
        secret = hmac.digest(secret, part.encode(), "sha256")
    right = hmac.new(secret, text.encode(), "sha256").hexdigest()
    return "" if hmac.compare_digest(right, signed) else "SignatureDoesNotMatch"
