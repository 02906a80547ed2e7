"""Secrets come from the keyring, else the environment, go to nobody else, and are written down nowhere (M14)."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import keyring
import pytest
import typer
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from wan_fixes.cli import models_manifest
from wan_fixes.cli.console import ExitCode
from wan_fixes.cli.main import ReportingGroup
from wan_fixes.health import plain
from wan_fixes.models import credentials
from wan_fixes.models.credentials import SERVICE, VARIABLES, SystemKeyring, s3_credentials, secret, store_secret
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.sealing import encryption_key
from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.sources.source import Source
from wan_fixes.models.target import Target

from .command import output_of
from .hub_server import Hub
from .world import content_of, ensurer

TOKEN = "hf_k9Zq2Lw8Xv4Tn6Rb1Pd3"


class InMemory(KeyringBackend):
    """A keyring of the library's own kind."""

    priority: float = 5

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.asked = 0

    def get_password(self, service: str, username: str) -> str | None:
        self.asked += 1
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


class Locked(InMemory):
    def get_password(self, service: str, username: str) -> str | None:
        self.asked += 1
        raise KeyringLocked("somebody has to unlock it")


class Hanging(InMemory):
    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.asked += 1
        self.free.wait(30)
        return None


class AsksForItsPassword(InMemory):
    """Locked until somebody has typed its password, which takes longer than it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.typed = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.typed.wait(30)
        return super().get_password(service, username)


class Forgetful(InMemory):
    def set_password(self, service: str, username: str, password: str) -> None:
        """As the library's null backend does."""


class InTheClear(InMemory):
    priority = 0.5


@pytest.fixture(autouse=True)
def no_other_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    before = keyring.get_keyring()
    for names in VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for name in ("WAN_MODELS_KEYRING", "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(credentials, "_keyring", SystemKeyring(seconds=5.0))
    yield
    keyring.set_keyring(before)


@pytest.fixture
def backend() -> InMemory:
    found = InMemory()
    keyring.set_keyring(found)
    return found


def test_m14_the_keyring_comes_before_the_environment(backend: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-the-environment")
    assert secret("hub-token") == "of-the-environment"
    keyring.set_password(SERVICE, "hub-token", f" {TOKEN}\n")
    assert secret("hub-token") == TOKEN
    monkeypatch.setenv("WAN_MODELS_KEYRING", "0")
    backend.asked = 0
    assert secret("hub-token") == "of-the-environment"
    assert backend.asked == 0


@pytest.mark.parametrize("name", VARIABLES)
def test_m14_each_secret_has_its_variables(
    backend: InMemory, monkeypatch: pytest.MonkeyPatch, name: credentials.SecretName
) -> None:
    assert secret(name) == ""
    for variable in reversed(VARIABLES[name]):
        monkeypatch.setenv(variable, f"value-of-{variable}")
        assert secret(name) == f"value-of-{variable}"


def test_m14_the_hub_client_s_own_token_is_found(
    backend: InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n")
    assert secret("hub-token") == TOKEN
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert secret("hub-token") == ""


@pytest.mark.skipif(os.name == "nt", reason="there a user has a profile")
@pytest.mark.parametrize("variable", ["HF_TOKEN_PATH", "HF_HOME", ""])
def test_m14_the_hub_client_s_own_token_is_found_without_a_home(
    backend: InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """As in a container whose user has none."""

    def unknown(user: int) -> NoReturn:
        raise KeyError(user)

    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    (tmp_path / "token").write_text(TOKEN)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "token" if variable == "HF_TOKEN_PATH" else tmp_path))
    assert secret("hub-token") == (TOKEN if variable else "")


@pytest.mark.parametrize("kind", [Locked, Hanging])
def test_m14_a_keyring_that_does_not_answer_is_asked_once(
    kind: type[InMemory], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = kind()
    keyring.set_keyring(backend)
    monkeypatch.setattr(credentials, "_keyring", SystemKeyring(seconds=0.3))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG, logger="wan_fixes")
    assert [secret("hub-token"), secret("hub-token"), secret("serve-token")] == [TOKEN, TOKEN, ""]
    assert backend.asked == 1
    [record] = [record for record in caplog.records if "keyring" in record.getMessage()]
    assert record.levelno == logging.DEBUG
    if isinstance(backend, Hanging):
        backend.free.set()


def test_m14_without_the_package_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert secret("hub-token") == TOKEN
    with pytest.raises(ModelError, match=r"wan-fixes\[security\]"):
        store_secret("hub-token", TOKEN)


@pytest.mark.parametrize("value", ["schlüssel-of-mine", "two\nlines-of-it", "bell\x07-in-it", "x" * 20_000])
def test_m14_what_can_be_no_secret_is_refused_and_not_shown(
    backend: InMemory, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    keyring.set_password(SERVICE, "hub-token", value)
    with pytest.raises(ModelError) as caught:
        secret("hub-token")
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    assert value not in str(caught.value)
    keyring.delete_password(SERVICE, "hub-token")
    monkeypatch.setenv("WAN_SERVE_TOKEN", value)
    with pytest.raises(ModelError, match="WAN_SERVE_TOKEN"):
        secret("serve-token")


def test_m14_the_keys_of_a_bucket_come_from_one_place(backend: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_credentials() is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access-of-env")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-env")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-of-env")
    keyring.set_password(SERVICE, "s3-access-key", "access-of-keyring")
    assert s3_credentials() == ("access-of-env", "secret-of-env", "session-of-env")
    keyring.set_password(SERVICE, "s3-secret-key", "secret-of-keyring")
    assert s3_credentials() == ("access-of-keyring", "secret-of-keyring", "")


@pytest.mark.parametrize("name", VARIABLES)
def test_m14_what_was_handed_out_is_masked(
    backend: InMemory, monkeypatch: pytest.MonkeyPatch, name: credentials.SecretName
) -> None:
    value = f"no pattern knows this: {name}"
    keyring.set_password(SERVICE, name, value)
    assert secret(name) == value
    error = ModelError(ErrorCode.AUTH_FAIL, "refused", reason=f"the server quotes {value!r}")
    assert value not in plain(error) and "***" in plain(error)


def test_m14_a_secret_is_stored_only_where_it_is_guarded(backend: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    store_secret("serve-token", "value-of-mine")
    assert backend.held == {(SERVICE, "serve-token"): "value-of-mine"}
    in_the_clear = InTheClear()
    for unfit in (Forgetful(), in_the_clear, Locked()):
        keyring.set_keyring(unfit)
        with pytest.raises(ModelError) as caught:
            store_secret("serve-token", "value-of-mine")
        assert caught.value.code is ErrorCode.NOT_WRITABLE
        assert "value-of-mine" not in str(caught.value) and "WAN_SERVE_TOKEN" in caught.value.fix
    assert in_the_clear.held == {}
    monkeypatch.setenv("WAN_MODELS_KEYRING", "off")
    with pytest.raises(ModelError, match="WAN_MODELS_KEYRING"):
        store_secret("serve-token", "value-of-mine")


def test_m14_the_hub_gets_the_token_of_the_keyring_and_nobody_else_does(
    backend: InMemory, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.token = TOKEN

    def sources(target: Target) -> list[Source]:
        return [HubStore(target.variant.hub, endpoint=hub.address)]

    models = ensurer(tmp_path, hub, make_sources=sources)
    with pytest.raises(ModelError) as caught:
        models.ensure("tiny")
    assert caught.value.code is ErrorCode.AUTH_FAIL
    keyring.set_password(SERVICE, "hub-token", TOKEN)
    folder = models.ensure("tiny")
    to_storage = [headers for _, path, headers in hub.requests if path.startswith("/storage")]
    to_hub = [headers for _, path, headers in hub.requests if "/resolve/" in path]
    assert to_storage and not any("Authorization" in headers for headers in to_storage)
    assert to_hub and all(headers["Authorization"] == f"Bearer {TOKEN}" for headers in to_hub)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in path.read_bytes(), path
    assert TOKEN not in caplog.text and TOKEN not in str(caught.value)
    assert (folder / ".verified.json").is_file() and (tmp_path / "models.lock").is_file()
    assert TOKEN.encode() not in b"".join(content_of(folder).values())


def test_m14_a_command_says_no_secret_even_when_it_fails(
    cli_root: Path, hub: Hub, backend: InMemory, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    keyring.set_password(SERVICE, "hub-token", TOKEN)
    hub.token = "hf_anotheranotherone"
    said = {"X-Error-Message": f"this token is not valid: {TOKEN}"}
    hub.fail("status", "", 99, (401, said))
    code, out, err = output_of(capsys, "ensure", "tiny", "--debug")
    assert code == ExitCode.FAILED and "401" in err and "***" in err
    assert TOKEN not in out + err + json.dumps([record.getMessage() for record in caplog.records])


def test_m14_a_new_key_goes_to_the_keyring_and_is_never_replaced(
    backend: InMemory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run_key(capsys, "new")
    assert code == ExitCode.OK, err
    key = backend.held[SERVICE, "encryption-key"]
    assert encryption_key() == key and key not in out + err
    code, out, err = run_key(capsys, "new")
    assert code == ExitCode.USAGE and "a key already" in err
    assert backend.held[SERVICE, "encryption-key"] == key


def test_m14_a_key_that_a_locked_keyring_holds_is_not_replaced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = AsksForItsPassword()
    locked.held[SERVICE, "encryption-key"] = "the-only-key"
    keyring.set_keyring(locked)
    monkeypatch.setattr(credentials, "_keyring", SystemKeyring(seconds=0.2))
    assert secret("encryption-key") == ""
    locked.typed.set()
    code, _, err = run_key(capsys, "new")
    assert code == ExitCode.FAILED and "holds another one already" in err
    assert locked.held[SERVICE, "encryption-key"] == "the-only-key"


def test_m14_a_secret_that_is_held_already_can_be_stored_again(backend: InMemory) -> None:
    store_secret("serve-token", "value-of-mine")
    store_secret("serve-token", "value-of-mine")
    with pytest.raises(ModelError, match="another one already"):
        store_secret("serve-token", "another-of-mine")
    assert backend.held == {(SERVICE, "serve-token"): "value-of-mine"}


def test_m14_without_a_keyring_a_new_key_is_printed_only_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN_MODELS_KEYRING", "0")
    code, out, err = run_key(capsys, "new")
    assert code == ExitCode.FAILED and "WAN_MODELS_ENCRYPTION_KEY" in err
    assert "AGE-SECRET-KEY" not in out + err
    code, out, _ = run_key(capsys, "new", "--print")
    name, _, value = out.strip().partition("=")
    assert code == ExitCode.OK and name == "WAN_MODELS_ENCRYPTION_KEY"
    monkeypatch.setenv(name, value)
    assert encryption_key() == value
    code, out, _ = run_key(capsys, "new", "--print", "--json")
    assert json.loads(out)["key"].startswith("AGE-SECRET-KEY-1")


def run_key(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """`wan models key ARGUMENTS`."""
    app = typer.Typer(cls=ReportingGroup, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.add_typer(models_manifest.key_app, name="key")
    with pytest.raises(SystemExit) as left:
        app(["key", *arguments], prog_name="wan models")
    captured = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, captured.out, captured.err
