"""What the servers of the tests share: faults that can be switched on, and a memory of what was asked and given."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Fault:
    """Something that goes wrong for requests that match, `times` times; then all is well again."""

    kind: str
    pattern: str = ""
    times: int = 1
    value: Any = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Clients that are killed leave without a word."""


class FaultyServer:
    """A server on loopback: `address`, `faults`, and what it was asked and gave."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.served = Counter[str]()
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def fail(self, kind: str, pattern: str = "", times: int = 1, value: Any = None) -> None:
        self.faults.append(Fault(kind, pattern, times, value))

    def take_fault(self, request: str, *kinds: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.kind in kinds and fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    @property
    def bytes_served(self) -> int:
        """Of the files' contents."""
        return sum(self.served.values())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
