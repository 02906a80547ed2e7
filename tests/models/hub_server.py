"""A server on loopback that speaks the hub's protocol, with faults that can be switched on.

What it answers is what huggingface_hub asks and reads (`test_hub_server.py` drives it with the real one): the list of a
revision's files, and files by way of a redirect to a second address with a signature, as the hub does for large ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .faulty_server import FaultyServer

_LFS_SUFFIXES = (".safetensors", ".model", ".bin", ".pth")
_CHUNK = 1 << 18


@dataclass
class Repository:
    """Files by path; a commit is named by what it holds."""

    files: dict[str, bytes]
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for path, content in sorted(self.files.items()):
            digest.update(f"{path}\0{_sha256(content)}\0".encode())
        commit = digest.hexdigest()
        self.commits.setdefault(commit, dict(self.files))
        return commit


class Hub(FaultyServer):
    """The server: `address`, `repositories`, `faults`, and what it was asked and gave."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.token = ""
        #: When so many bytes were served, this is called, once.
        self.at_bytes: tuple[int, Callable[[], object]] | None = None
        self._active = 0
        super().__init__(_handler(self))
        #: Where large files are: another host by name, the same server.
        self.storage = f"http://localhost:{self.port}"
        self.start()

    def add(self, name: str, files: dict[str, bytes]) -> Repository:
        self.repositories[name] = Repository(dict(files))
        return self.repositories[name]

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While a request is answered."""
        with self.lock:
            self._active += 1
        try:
            yield
        finally:
            with self.lock:
                self._active -= 1

    def settle(self) -> None:
        """Wait until nothing is answered any more: to a client that was killed it takes a moment."""
        while self._active:
            time.sleep(0.005)

    def count(self, path: str, count: int) -> None:
        with self.lock:
            self.served[path] += count
            act = self.at_bytes if self.at_bytes and self.bytes_served >= self.at_bytes[0] else None
            if act:
                self.at_bytes = None
        if act:
            act[1]()

    def asked(self, pattern: str = "") -> int:
        return sum(bool(re.search(pattern, path)) for _, path, _ in self.requests)


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()


# With the content, whose id is its own as long as it is kept.
_digests: dict[int, tuple[bytes, str]] = {}


def _sha256(content: bytes) -> str:
    if id(content) not in _digests:
        _digests[id(content)] = content, hashlib.sha256(content).hexdigest()
    return _digests[id(content)][1]


def _git_id(content: bytes) -> str:
    """For large files the hub gives that of a pointer to them, which is nobody's business here."""
    if len(content) > 1 << 20:
        return "0" * 40
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            with hub.lock:
                hub.requests.append((self.command, self.path, dict(self.headers.items())))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError), hub.answering():
                if self._is_spoilt():
                    return
                parts = urlsplit(self.path)
                path = unquote(parts.path)
                for pattern, answer in (
                    (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self._list),
                    (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._tree),
                    (r"/api/models/([^/]+/[^/]+)/commits/([^/]+)", self._commits),
                    (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
                    (r"/storage/([0-9a-f]{64})", self._storage),
                ):
                    match = re.fullmatch(pattern, path)
                    if match:
                        answer(with_body, *match.groups())
                        return
                self._send(404, b"", {})

        def _is_spoilt(self) -> bool:
            fault = hub.take_fault(self.path, "status", "stall", "drop", "redirect", "garbage")
            if fault is None:
                return False
            if fault.kind == "status":
                status, headers = fault.value
                self._send(status, b"{}", headers)
            elif fault.kind == "stall":
                time.sleep(fault.value)
                self.close_connection = True
            elif fault.kind == "drop":
                self.close_connection = True
            elif fault.kind == "redirect":
                self._send(302, b"", {"Location": fault.value or self.path})
            else:
                self._send(200, fault.value, {"Content-Type": "application/json"})
            return True

        def _send(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool = True) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def _commit(self, name: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
            repository = hub.repositories.get(name)
            if repository is None or (hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}"):
                error = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
                self._send(401, b"{}", error)
                return None
            head = repository.head
            commit = head if revision in (None, "main", head) else revision
            if commit not in repository.commits:
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
                return None
            return commit, repository.commits[commit]

        def _list(self, with_body: bool, name: str, revision: str | None) -> None:
            found = self._commit(name, revision)
            if found is None:
                return
            commit, files = found
            siblings = []
            for path, content in files.items():
                entry: dict[str, Any] = {"rfilename": path}
                if "blobs" in parse_qs(urlsplit(self.path).query):
                    entry |= {"size": len(content), "blobId": _git_id(content)}
                    if path.endswith(_LFS_SUFFIXES):
                        entry["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 134}
                siblings.append(entry)
            fault = hub.take_fault(self.path, "listing")
            if fault is not None:
                siblings = fault.value(siblings)
            renamed = hub.take_fault(self.path, "listing revision")
            sha = commit if renamed is None else renamed.value
            if isinstance(sha, str):
                hub.repositories[name].commits.setdefault(sha, files)
            body = json.dumps({"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []}).encode()
            self._send(200, body, {"Content-Type": "application/json"}, with_body=with_body)

        def _tree(self, with_body: bool, name: str, revision: str) -> None:
            found = self._commit(name, revision)
            if found is None:
                return
            entries = []
            for path, content in found[1].items():
                entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _git_id(content)}
                if path.endswith(_LFS_SUFFIXES):
                    entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
                entries.append(entry)
            self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"}, with_body=with_body)

        def _commits(self, with_body: bool, name: str, revision: str) -> None:
            found = self._commit(name, revision)
            if found is None:
                return
            known = list(hub.repositories[name].commits)
            fixed = {"message": "", "authors": [], "date": "2026-01-02T03:04:05.000Z"}
            entries = [
                {"id": commit, "title": f"change {number}", **fixed}
                for number, commit in enumerate(known[: known.index(found[0]) + 1])
            ]
            body = json.dumps(entries[::-1]).encode()
            self._send(200, body, {"Content-Type": "application/json"}, with_body=with_body)

        def _resolve(self, with_body: bool, name: str, revision: str, path: str) -> None:
            found = self._commit(name, revision)
            if found is None:
                return
            commit, files = found
            if path not in files:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
                return
            content = files[path]
            headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            if not path.endswith(_LFS_SUFFIXES):
                self._file(with_body, path, content, headers | {"ETag": f'"{_git_id(content)}"'})
                return
            headers |= {"X-Linked-Etag": f'"{_sha256(content)}"', "X-Linked-Size": str(len(content))}
            location = f"{hub.storage}/storage/{_sha256(content)}?X-Amz-Signature=secret-of-one-request"
            self._send(302, b"", headers | {"Location": location, "ETag": f'"{_sha256(content)}"'})

        def _storage(self, with_body: bool, digest: str) -> None:
            for repository in hub.repositories.values():
                for files in [repository.files, *repository.commits.values()]:
                    for path, content in files.items():
                        if path.endswith(_LFS_SUFFIXES) and _sha256(content) == digest:
                            self._file(with_body, path, content, {"ETag": f'"{digest[:32]}"'})
                            return
            self._send(404, b"", {})

        def _file(self, with_body: bool, path: str, content: bytes, headers: dict[str, str]) -> None:
            change = hub.take_fault(path, "content")
            if change is not None:
                content, headers = change.value(content), headers | {"ETag": '"another"'}
            spoil = hub.take_fault(path, "wrong bytes")
            if spoil is not None:
                content = spoil.value(content)
            knows_ranges = hub.take_fault(path, "no ranges") is None
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            is_current = self.headers.get("If-Range") in (None, headers["ETag"])
            start, stop, status = 0, len(content), 200
            if wanted and knows_ranges and is_current:
                start, stop = int(wanted[1]), min(int(wanted[2] or len(content) - 1) + 1, len(content))
                if start >= len(content):
                    self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                    return
                status = 206
                headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
            reset = hub.take_fault(path, "reset")
            short = hub.take_fault(path, "short")
            slow = hub.take_fault(path, "slow")
            length = stop - start - (short.value if short else 0)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(length)}.items():
                self.send_header(name, value)
            self.end_headers()
            if not with_body:
                return
            stop = start + length
            until = start + reset.value if reset else stop
            view = memoryview(content)
            for at in range(start, min(until, stop), _CHUNK):
                piece = view[at : min(at + _CHUNK, until, stop)]
                self.wfile.write(piece)
                hub.count(path, len(piece))
                if slow is not None:
                    time.sleep(slow.value)
            if reset is not None and until < stop:
                self.close_connection = True
                self.connection.shutdown(2)

    return Handler


Change = Callable[[bytes], bytes]
