"""Whatever a server does: it ends in a code and a clear message, or well; and the store is whole (M7, M14)."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import ModelState
from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.sources.web import WebClient, retry_after_of
from wan_fixes.models.spec import HubSource

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .world import NEEDED_BYTES, PART, REPOSITORY, content_of, ensurer, model_files, some_bytes

Prepare = Callable[[Hub], None]


def status(code: int, times: int = 1, pattern: str = "", **headers: str) -> Prepare:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda hub: hub.fail("status", pattern, times, (code, named))


def fault(kind: str, value: Any = None, times: int = 1, pattern: str = "safetensors") -> Prepare:
    return lambda hub: hub.fail(kind, pattern, times, value)


PASSING = {
    "a list refused once": status(503, pattern="/api/"),
    "a file refused once": status(500, pattern="resolve"),
    "too many requests": status(429, 2, "resolve", Retry_After="0"),
    "a stall": fault("stall", 0.7),
    "a dropped connection": fault("drop", pattern="storage"),
    "a reset in the middle": fault("reset", PART // 2, times=3),
    "a reset at the first byte": fault("reset", 0),
    "fewer bytes than asked for": fault("short", 100),
    "wrong bytes once": fault("wrong bytes", lambda content: b"X" + content[1:]),
    "a file that changes between two parts": fault("content", lambda content: some_bytes(len(content), 8)),
    "no ranges": fault("no ranges", times=1000),
    "no ranges, and a reset": lambda hub: [fault("no ranges", times=1000)(hub), fault("reset", PART + 9)(hub)],
}


@pytest.mark.parametrize("prepare", PASSING.values(), ids=PASSING)
def test_what_passes_is_lived_through(hub: Hub, tmp_path: Path, prepare: Prepare) -> None:
    prepare(hub)
    folder = ensurer(tmp_path, hub, timeouts=(0.5, 0.5)).ensure("tiny")
    assert content_of(folder) == whole()
    assert list((tmp_path / ".tmp").iterdir()) == []


LASTING = {
    "the list needs a login": (status(401, 99, "/api/"), ErrorCode.AUTH_FAIL),
    "the model's conditions are not accepted": (status(403, 99, "resolve"), ErrorCode.AUTH_FAIL),
    "no such repository": (status(404, 99, "/api/"), ErrorCode.NOT_FOUND),
    "no such file": (status(404, 99, "resolve"), ErrorCode.NOT_FOUND),
    "a server that is down": (status(500, 99), ErrorCode.SERVER_ERROR),
    "come back much later": (status(429, 99, Retry_After="4000"), ErrorCode.RATE_LIMIT),
    "come back soon, for ever": (status(429, 99, Retry_After="0"), ErrorCode.RATE_LIMIT),
    "no answer": (fault("stall", 0.8, 99, "/api/"), ErrorCode.TIMEOUT),
    "every connection dropped": (fault("drop", None, 999, ""), ErrorCode.NETWORK),
    "a redirect in a circle": (fault("redirect", None, 99, "resolve"), ErrorCode.BAD_REPLY),
    "a redirect to plain http": (fault("redirect", "http://example.com/x", 9, "resolve"), ErrorCode.UNTRUSTED_HOST),
    "a redirect to a file": (fault("redirect", "file:///etc/passwd", 9, "resolve"), ErrorCode.UNTRUSTED_HOST),
    "no JSON": (fault("garbage", b"<html>", 9, "/api/"), ErrorCode.BAD_REPLY),
    "deep JSON": (fault("garbage", b"[" * 100_000, 9, "/api/"), ErrorCode.BAD_REPLY),
    "a list of no revision": (fault("garbage", b'{"siblings": [], "sha": null}', 9, "/api/"), ErrorCode.BAD_REPLY),
    "JSON of something else": (fault("garbage", b"[1]", 9, "/api/"), ErrorCode.BAD_REPLY),
    "wrong bytes for ever": (fault("wrong bytes", lambda content: b"X" + content[1:], 999), ErrorCode.CHECKSUM_FAIL),
}


@pytest.mark.parametrize(("prepare", "code"), LASTING.values(), ids=LASTING)
def test_what_lasts_is_named_and_the_next_start_goes_on(
    hub: Hub, tmp_path: Path, prepare: Prepare, code: ErrorCode
) -> None:
    prepare(hub)
    models = ensurer(tmp_path, hub, timeouts=(0.5, 0.5))
    with pytest.raises(ModelError) as caught:
        models.ensure("tiny")
    assert caught.value.code is code
    assert caught.value.reason and caught.value.fix
    assert "secret-of-one-request" not in str(caught.value)
    assert models.status("tiny").state in (ModelState.NOT_PRESENT, ModelState.PARTIAL)
    assert not (tmp_path / "wan21").exists()
    hub.faults.clear()
    assert content_of(models.ensure("tiny")) == whole()


LISTS = {
    "a way out": lambda files: [*files, {"rfilename": "vae/../../x.json", "size": 1, "blobId": "0" * 40}],
    "a reserved name": lambda files: [*files, {"rfilename": "vae/con.json", "size": 1, "blobId": "0" * 40}],
    "two names of one file": lambda files: [*files, {"rfilename": "vae/Config.json", "size": 1, "blobId": "0" * 40}],
    "a negative size": lambda files: [*files, {"rfilename": "vae/x.json", "size": -1, "blobId": "0" * 40}],
    "no size": lambda files: [*files, {"rfilename": "vae/x.json", "blobId": "0" * 40}],
    "no digest": lambda files: [*files, {"rfilename": "vae/x.json", "size": 1, "blobId": "../x"}],
    "no files": lambda files: [],
}


@pytest.mark.parametrize("spoil", LISTS.values(), ids=LISTS)
def test_a_list_that_leads_astray_is_refused_whole(hub: Hub, tmp_path: Path, spoil: Callable[[Any], Any]) -> None:
    hub.fail("listing", "", 99, spoil)
    with pytest.raises(ModelError) as caught:
        ensurer(tmp_path, hub).ensure("tiny")
    assert caught.value.code in (ErrorCode.UNSAFE_PATH, ErrorCode.BAD_REPLY, ErrorCode.MISSING_FILES)
    assert hub.bytes_served == 0
    assert not (tmp_path / "wan21").exists()


def test_m5_what_is_not_needed_is_passed_over_whatever_it_is_called(hub: Hub, tmp_path: Path) -> None:
    for path in ("/etc/x.json", "../x.json", "VAE/config.json", "notes?/x.json"):
        entry = {"rfilename": path, "size": -1, "blobId": "?"}
        hub.fail("listing", "", 1, lambda files, entry=entry: [*files, entry])
        assert content_of(ensurer(tmp_path / str(len(hub.faults)), hub).ensure("tiny")) == whole()


def test_after_a_failure_what_came_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.fail("status", "vae/diffusion", 99, (404, {}))
    models = ensurer(tmp_path, hub, connections=1)
    with pytest.raises(ModelError):
        models.ensure("tiny")
    there = models.status("tiny")
    assert there.state is ModelState.PARTIAL and there.bytes_there > 0
    hub.faults.clear()
    hub.served.clear()
    models.ensure("tiny")
    assert hub.bytes_served == NEEDED_BYTES - there.bytes_there == there.bytes_needed


def test_a_server_without_ranges_gives_each_file_once(hub: Hub, tmp_path: Path) -> None:
    hub.fail("no ranges", "", 1000)
    ensurer(tmp_path, hub).ensure("tiny")
    assert hub.bytes_served <= NEEDED_BYTES + PART


def test_m14_the_token_goes_to_the_hub_alone(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_secretsecretsecret"
    ensurer(tmp_path, hub, token=hub.token).ensure("tiny")
    to_storage = [headers for _, path, headers in hub.requests if path.startswith("/storage")]
    to_hub = [headers for _, path, headers in hub.requests if not path.startswith("/storage")]
    assert to_storage and not any("Authorization" in headers for headers in to_storage)
    assert all(headers["Authorization"] == f"Bearer {hub.token}" for headers in to_hub)


def test_m14_no_password_of_netrc_is_sent(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text(
        "machine localhost login me password secret\nmachine 127.0.0.1 login a password b\n"
    )
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    ensurer(tmp_path / "models", hub).ensure("tiny")
    assert not any("Authorization" in headers for _, _, headers in hub.requests)


def test_m14_plain_http_is_for_this_machine_alone() -> None:
    for address in (
        "http://example.com",
        "ftp://127.0.0.1",
        "https://me:secret@example.com",
        "http://127.0.0.1.evil.com",
    ):
        with pytest.raises(ModelError) as caught:
            WebClient(address)
        assert caught.value.code is ErrorCode.UNTRUSTED_HOST
        assert "secret" not in str(caught.value)
    for address in ("https://example.com", "http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost"):
        WebClient(address).close()


def test_m7_no_name_server_knows_it() -> None:
    with pytest.raises(ModelError) as caught:
        WebClient("https://there-is-no-such-host.invalid").json("https://there-is-no-such-host.invalid/x")
    assert caught.value.code is ErrorCode.NETWORK


def test_m7_a_server_that_speaks_no_tls(hub: Hub) -> None:
    address = hub.address.replace("http:", "https:")
    with pytest.raises(ModelError) as caught:
        WebClient(address).json(address)
    assert caught.value.code is ErrorCode.TLS_FAIL


def test_m7_a_file_in_another_encoding_is_refused(hub: Hub) -> None:
    body = gzip.compress(b"{}" * 10)
    hub.fail("status", "x.json", 1, (200, {"Content-Encoding": "gzip", "Content-Length": str(len(body))}))
    with pytest.raises(ModelError) as caught:
        WebClient(hub.address).read(f"{hub.address}/x.json", 0, 10)
    assert caught.value.code is ErrorCode.BAD_REPLY


def test_m7_when_to_come_back() -> None:
    assert retry_after_of("7", 0.0) == 7.0
    assert retry_after_of("Thu, 01 Jan 1970 00:01:00 GMT", 50.0) == 10.0
    assert retry_after_of("Thu, 01 Jan 1970 00:00:00 GMT", 50.0) == 0.0
    assert retry_after_of("soon", 0.0) is None
    assert retry_after_of("²", 0.0) is None


def test_m7_a_length_in_other_digits_is_none(hub: Hub) -> None:
    hub.fail("status", "x.json", 1, (200, {"Content-Length": "²", "Connection": "close"}))
    with WebClient(hub.address).read(f"{hub.address}/x.json", 0, 2) as answer:
        assert answer.total is None
        assert b"".join(answer.chunks()) == b"{}"


@pytest.mark.parametrize("reply", [b"null", b"5", b"{}"])
def test_m11_a_log_that_is_none_tells_of_no_commits(hub: Hub, reply: bytes) -> None:
    hub.fail("garbage", "/commits/", 1, reply)
    store = HubStore(HubSource(REPOSITORY), endpoint=hub.address, token="")
    assert store.commits("a", "b") == []


def test_it_can_be_stopped_and_keeps_what_is_there(hub: Hub, tmp_path: Path) -> None:
    hub.fail("slow", LARGE, 99, 0.2)
    stop = threading.Event()
    models = ensurer(tmp_path, hub)
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    with pytest.raises(ModelError) as caught:
        models.ensure("tiny", stop=stop)
    timer.join()
    assert caught.value.code is ErrorCode.STOPPED
    assert models.status("tiny").state is ModelState.PARTIAL
    hub.faults.clear()
    assert content_of(models.ensure("tiny")) == whole()


def test_the_files_of_a_folder_that_somebody_put_there_are_taken_over(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "wan21" / "tiny@1.0.0-original"
    for path, content in whole().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / "notes of mine.txt").write_text("mine")
    ensurer(tmp_path, hub).ensure("tiny")
    assert hub.bytes_served == 0
    assert (folder / "notes of mine.txt").read_text() == "mine"


def test_a_readme_commit_moves_no_weights(hub: Hub, tmp_path: Path) -> None:
    ensurer(tmp_path, hub).ensure("tiny")
    (tmp_path / "models.lock").unlink()
    hub.repositories[REPOSITORY].files["README.md"] = b"another text"
    hub.served.clear()
    (tmp_path / "wan21/tiny@1.0.0-original/.verified.json").unlink()
    ensurer(tmp_path, hub).ensure("tiny")
    assert hub.bytes_served == 0
    assert model_files()["README.md"] != b"another text"
