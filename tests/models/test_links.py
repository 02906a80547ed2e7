"""Links to a model's files, for somebody who has no credentials (M14)."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from wan_fixes.cli.console import ExitCode
from wan_fixes.cli.models_share import share
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import FetchOptions
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.names import ModelName
from wan_fixes.models.sources.links import LinkStore
from wan_fixes.models.sources.web import RetryPolicy

from .command import output_of
from .hub_server import Hub
from .s3_server import BUCKET, S3, Objects, all_that_is_shown, running_objects, running_s3, set_environment
from .test_ensure import LARGE, whole
from .world import PART, content_of, manifest_of, model_files

FOLDER = "wan21/tiny@1.0.0-original"
NAME = ModelName("tiny", "1.0.0", "original")
WHOLE = whole()
RETRY = RetryPolicy(attempts=2, base_seconds=0.001)
SECRET = "what-nobody-may-see"


@pytest.fixture(scope="module")
def objects() -> Iterator[Objects]:
    with running_objects() as server:
        server.put(FOLDER, model_files())
        yield server


@pytest.fixture
def s3(objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A bucket that is a mirror, and its owner's settings."""
    manifest = tmp_path / "tiny.toml"
    manifest.write_bytes(manifest_of().text)
    monkeypatch.setenv("WAN_MODELS_MANIFEST", str(manifest))
    monkeypatch.setenv("MODELS_ROOT", str(tmp_path / "models"))
    with running_s3(objects) as server:
        set_environment(monkeypatch, server)
        monkeypatch.setenv("WAN_MODELS_S3", f"s3://{BUCKET}")
        yield server


def run_share(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(share)
    return CliRunner().invoke(app, arguments)


def shared(*arguments: str) -> dict[str, Any]:
    """What `wan models share` prints."""
    result = run_share("tiny", *arguments)
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def written(folder: Path, content: Any) -> Path:
    path = folder / "links.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def ensurer(root: Path, links: Path) -> ModelEnsurer:
    options = FetchOptions(connections=2, part_bytes=4 * PART, retry=RETRY, safety_margin=0)
    return ModelEnsurer(
        manifest_of(),
        ModelResolver(root),
        options=options,
        make_sources=lambda target: [LinkStore(links, target.name, timeouts=(5.0, 0.5))],
    )


def test_m14_links_give_a_model_to_who_has_no_credentials(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = shared()
    assert (content["format"], content["name"]) == (1, str(NAME))
    assert {entry["path"] for entry in content["files"]} == set(WHOLE)
    set_environment(monkeypatch, s3, credentials=False)
    s3.requests.clear()
    models = ensurer(tmp_path / "theirs", written(tmp_path, content))
    assert content_of(models.ensure("tiny")) == WHOLE
    assert models.status("tiny").source == "links:links.json"
    assert s3.requests and not any("Authorization" in headers for _, _, headers in s3.requests)


def test_m14_links_end_when_they_say(s3: S3, tmp_path: Path) -> None:
    content = shared("--hours", "2")
    path = written(tmp_path, {**content, "expires": content["expires"] - 7201})
    for seconds, is_good in ((7000, True), (7300, False)):
        s3.fail("late", "GET", 1, seconds)
        store = LinkStore(path)
        file = store.listing().files[0]
        if is_good:
            store.open(file, "", 0, file.size).close()
            continue
        with pytest.raises(ModelError, match="the links were good until") as caught:
            store.open(file, "", 0, file.size)
        assert caught.value.code is ErrorCode.AUTH_FAIL
        assert f"wan models share {NAME}" in caught.value.fix
        store.close()


def test_m14_digests_that_the_bucket_lacks_come_from_the_model_on_the_disk(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = shared()
    assert not any(entry["sha256"] for entry in content["files"])
    ensurer(tmp_path / "models", written(tmp_path, content)).ensure("tiny")
    assert {entry["path"]: entry["sha256"] for entry in shared()["files"]} == {
        path: hashlib.sha256(file).hexdigest() for path, file in WHOLE.items()
    }
    s3.objects.put(f"newer/{FOLDER}", {**WHOLE, LARGE: b"of another size"})
    monkeypatch.setenv("WAN_MODELS_S3", f"s3://{BUCKET}/newer")
    assert [entry["path"] for entry in shared()["files"] if not entry["sha256"]] == [LARGE]


def test_m14_a_file_that_is_another_than_its_link_says_is_refused(s3: S3, tmp_path: Path) -> None:
    content = shared()
    for entry in content["files"]:
        entry["sha256"] = "0" * 64
    with pytest.raises(ModelError) as caught:
        ensurer(tmp_path / "theirs", written(tmp_path, content)).ensure("tiny")
    assert caught.value.code is ErrorCode.CHECKSUM_FAIL


FAULTS: dict[str, Callable[[S3], None]] = {
    "a stall": lambda s3: s3.fail("stall", "GET .*safetensors", 1, 0.7),
    "a reset": lambda s3: s3.fail("reset", "GET .*safetensors", 2, PART),
    "too often": lambda s3: s3.fail("status", "GET .*safetensors", 2, (503, "SlowDown", {})),
}


@pytest.mark.parametrize("prepare", FAULTS.values(), ids=FAULTS)
def test_m7_what_passes_is_lived_through(s3: S3, tmp_path: Path, prepare: Callable[[S3], None]) -> None:
    path = written(tmp_path, shared())
    prepare(s3)
    assert content_of(ensurer(tmp_path / "theirs", path).ensure("tiny")) == WHOLE


LASTING: dict[str, tuple[tuple[str, str, int, Any], ErrorCode]] = {
    "refused": (("status", "GET", 999, (403, "AccessDenied", {})), ErrorCode.AUTH_FAIL),
    "gone": (("status", "GET", 999, (404, "NoSuchKey", {})), ErrorCode.NOT_FOUND),
    "down": (("status", "GET", 999, (500, "InternalError", {})), ErrorCode.SERVER_ERROR),
    "dropped": (("drop", "GET", 999, None), ErrorCode.NETWORK),
    "led to plain http": (("redirect", "GET", 999, "http://example.com/x"), ErrorCode.UNTRUSTED_HOST),
}


@pytest.mark.parametrize(("fault", "code"), LASTING.values(), ids=LASTING)
def test_m14_no_error_shows_the_right_to_read(
    fault: tuple[str, str, int, Any],
    code: ErrorCode,
    s3: S3,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = shared()
    for entry in content["files"]:
        entry["url"] += f"&right={SECRET}"
    s3.fail(*fault)
    with caplog.at_level(logging.DEBUG, "wan_fixes"), pytest.raises(ModelError) as caught:
        ensurer(tmp_path / "theirs", written(tmp_path, content)).ensure("tiny")
    assert caught.value.code is code
    shown = str(caught.value) + all_that_is_shown(caught.value) + caplog.text
    assert SECRET not in shown and "X-Amz-" not in shown


def test_m14_nobody_answers_and_the_address_is_not_shown(tmp_path: Path) -> None:
    store = LinkStore(written(tmp_path, links(url=f"http://127.0.0.1:9/x?right={SECRET}")))
    with pytest.raises(ModelError) as caught:
        store.open(store.listing().files[0], "", 0, 2)
    assert caught.value.code is ErrorCode.NETWORK
    assert SECRET not in all_that_is_shown(caught.value)


def links(**changes: Any) -> dict[str, Any]:
    """A file of one link, with another value for some of its fields."""
    entry = {"path": "vae/a.json", "size": 2, "sha256": "0" * 64, "url": f"https://example.com/a?right={SECRET}"}
    top = {"format": 1, "name": str(NAME), "expires": 1}
    given = {name: value for name, value in changes.items() if name in (*top, "files")}
    return {**top, "files": [{**entry, **{name: changes[name] for name in changes if name in entry}}], **given}


def without(name: str) -> dict[str, Any]:
    content = links()
    for table in (content, content["files"][0]):
        table.pop(name, None)
    return content


BAD = {
    "no JSON": ("links", "not JSON"),
    "deep JSON": ("[" * 100_000, "not JSON"),
    "a list": ([], "`format`"),
    "no format": (without("format"), "`format`"),
    "a format of tomorrow": (links(format=2), "its format is 2"),
    "a format of another kind": (links(format=True), "`format`"),
    "no name": (without("name"), "`name`"),
    "a name that is none": (links(name="../x"), "`name`"),
    "a name in short": (links(name="tiny"), "`name`"),
    "no end": (without("expires"), "`expires`"),
    "an end that is none": (links(expires="never"), "`expires`"),
    "an end far away": (links(expires=1 << 60), "`expires`"),
    "no files": (without("files"), "`files`"),
    "files of another kind": (links(files={"a": 1}), "`files`"),
    "an entry of another kind": (links(files=["x"]), r"files\[0\]"),
    "no path": (without("path"), r"files\[0\] has no text as `path`"),
    "a path of another kind": (links(path=3), "`path`"),
    "no size": (without("size"), "`size`"),
    "no digest": (without("sha256"), "`sha256`"),
    "no address": (without("url"), "`url`"),
    "plain http": (links(url=f"http://example.com/a?right={SECRET}"), "not https"),
    "a file": (links(url="file:///etc/passwd"), "names no host"),
    "a password": (links(url=f"https://me:{SECRET}@example.com/a"), "password"),
    "an address that is none": (links(url=f"https://[{SECRET}/a"), "is not asked"),
    "an empty list": (links(files=[]), "no file of a model"),
    "nothing but code": (links(path="vae/a.pth"), "no file of a model"),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_m14_a_file_of_links_that_cannot_be_used_says_why(tmp_path: Path, content: Any, reason: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ModelError, match=reason) as caught:
        LinkStore(path)
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    assert caught.value.path == str(path) and "wan models share" in caught.value.fix
    assert SECRET not in all_that_is_shown(caught.value)


FILES = {
    "a way out": (links(path="vae/../../a.json"), ErrorCode.UNSAFE_PATH),
    "an absolute path": (links(path="/etc/a.json"), ErrorCode.UNSAFE_PATH),
    "a reserved name": (links(path="vae/con.json"), ErrorCode.UNSAFE_PATH),
    "a file twice": (links(files=links()["files"] * 2), ErrorCode.UNSAFE_PATH),
    "a negative size": (links(size=-1), ErrorCode.BAD_REPLY),
    "a size of another kind": (links(size="2"), ErrorCode.BAD_REPLY),
    "a digest that is none": (links(sha256="../x"), ErrorCode.BAD_REPLY),
}


@pytest.mark.parametrize(("content", "code"), FILES.values(), ids=FILES)
def test_m1_a_list_that_leads_astray_is_refused(tmp_path: Path, content: Any, code: ErrorCode) -> None:
    with pytest.raises(ModelError) as caught:
        LinkStore(written(tmp_path, content))
    assert caught.value.code is code


def test_m14_a_file_that_is_not_there_or_has_no_end(tmp_path: Path) -> None:
    path = tmp_path / "links.json"
    with pytest.raises(ModelError) as caught:
        LinkStore(path)
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    with path.open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(ModelError, match="larger than 16 MiB"):
        LinkStore(path)


def test_m14_links_to_another_model_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, links(name="tiny@2.0.0#original"))
    with pytest.raises(ModelError, match=r"they are for tiny@2\.0\.0#original"):
        LinkStore(path, NAME)
    assert len(LinkStore(path).listing().files) == 1


def test_m14_a_file_without_a_link_is_named(tmp_path: Path) -> None:
    store = LinkStore(written(tmp_path, links()))
    with pytest.raises(ModelError, match=LARGE) as caught:
        store.open(RemoteFile(LARGE, 2), "", 0, 2)
    assert caught.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_m14_what_a_shell_of_windows_writes_can_be_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "links.json"
    path.write_text(json.dumps(links()), encoding)
    assert LinkStore(path, NAME).listing().files[0].path == "vae/a.json"


def test_m14_nothing_can_be_shared_without_a_bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN_MODELS_S3", f"s3://{BUCKET}/nothing")
    error = run_share("tiny").exception
    assert isinstance(error, ModelError) and error.code is ErrorCode.NOT_FOUND
    monkeypatch.delenv("WAN_MODELS_S3")
    error = run_share("tiny").exception
    assert isinstance(error, ModelError) and error.code is ErrorCode.INVALID_CONFIG
    assert "WAN_MODELS_S3" in error.fix


def test_m14_offline_nobody_is_asked(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "1")
    error = run_share("tiny").exception
    assert isinstance(error, ModelError) and error.code is ErrorCode.OFFLINE
    assert s3.requests == []


@pytest.mark.parametrize("hours", ["0", "169", "nan", "soon"])
def test_m14_links_are_good_for_up_to_seven_days(hours: str, s3: S3) -> None:
    assert run_share("tiny", "--hours", hours).exit_code == 2
    assert s3.requests == []


def test_m14_of_several_models_the_links_are_for_one(
    cli_root: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, _, rest = manifest_of().text.decode().partition("\n[models.")
    both = head + "".join(("\n[models." + rest).replace("tiny@", f"{name}@") for name in ("tiny", "other"))
    (tmp_path / "tiny.toml").write_text(both)
    path = written(tmp_path, links(name="third@1.0.0#original"))
    code, _, err = output_of(capsys, "ensure", "tiny", "other", "--links", str(path))
    assert code == ExitCode.USAGE and err.count("they are for third@1.0.0#original") == 1
    assert hub.requests == []
    path = written(tmp_path, links(name="other@1.0.0#original"))
    code, _, err = output_of(capsys, "ensure", "tiny", "other", "--links", str(path))
    assert code == ExitCode.OK, err
