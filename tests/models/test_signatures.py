"""Where a key is configured, nothing is believed that it did not sign (M1, M14)."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
import xxhash
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wan_fixes.cli import models_manifest
from wan_fixes.cli.console import ExitCode
from wan_fixes.cli.main import ReportingGroup
from wan_fixes.models import ErrorCode, ModelError, load_manifest
from wan_fixes.models.installed import ModelState
from wan_fixes.models.json_file import write_json
from wan_fixes.models.lock_file import LockFile
from wan_fixes.models.locks import LockManager
from wan_fixes.models.manifest import manifest_path
from wan_fixes.models.pinning import signable
from wan_fixes.models.signatures import Signed, public_key_of, require_signature, sign, signature_path
from wan_fixes.models.signing_key import load_signing_key, make_signing_key

from .hub_server import Hub
from .test_ensure import whole
from .world import REPOSITORY, content_of, ensurer, manifest_of, some_bytes

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Ed25519PrivateKey:
    """Whose public half is trusted."""
    found = Ed25519PrivateKey.generate()
    trust(monkeypatch, found)
    return found


def trust(monkeypatch: pytest.MonkeyPatch, *keys: Ed25519PrivateKey) -> None:
    monkeypatch.setenv("WAN_MODELS_PUBLIC_KEY", ", ".join(public_key_of(key).text for key in keys))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_bytes(manifest_of().text)
    return path


def sign_file(path: Path, key: Ed25519PrivateKey, kind: Signed = Signed.MANIFEST) -> None:
    sign(path, path.read_bytes(), kind, key)


def refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load_manifest(path)
    assert caught.value.code is ErrorCode.SIGNATURE_FAIL
    assert caught.value.fix
    return caught.value


def test_m14_a_signed_manifest_is_taken_and_an_unsigned_one_is_not(manifest: Path, key: Ed25519PrivateKey) -> None:
    assert "not signed" in refused(manifest).reason
    sign_file(manifest, key)
    assert load_manifest(manifest).find("tiny")
    manifest.write_bytes(manifest.read_bytes() + b"# a word more\n")
    assert "changed" in refused(manifest).reason


def test_m14_without_a_key_nothing_changes(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN_MODELS_PUBLIC_KEY", " ")
    signature_path(manifest).write_text("no signature")
    assert load_manifest(manifest).find("tiny")


def test_m14_another_key_s_signature_does_not_count(
    manifest: Path, key: Ed25519PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Ed25519PrivateKey.generate()
    sign_file(manifest, other)
    assert public_key_of(other).fingerprint in refused(manifest).reason
    claimed = json.loads(signature_path(manifest).read_text()) | {"key": public_key_of(key).fingerprint}
    signature_path(manifest).write_text(json.dumps(claimed))
    refused(manifest)
    trust(monkeypatch, key, other)
    sign_file(manifest, other)
    assert load_manifest(manifest).find("tiny")


def test_m14_a_signature_counts_for_its_own_kind_of_file(manifest: Path, key: Ed25519PrivateKey) -> None:
    sign_file(manifest, key, Signed.LOCK)
    refused(manifest)
    assert require_signature(manifest, manifest.read_bytes(), Signed.LOCK) == public_key_of(key)


def test_m14_any_byte_of_the_signature_counts(manifest: Path, key: Ed25519PrivateKey) -> None:
    sign_file(manifest, key)
    content = json.loads(signature_path(manifest).read_text())
    raw = base64.b64decode(content["signature"])
    assert len(raw) == 64
    for at in range(64):
        spoilt = bytes([*raw[:at], raw[at] ^ 1, *raw[at + 1 :]])
        signature_path(manifest).write_text(json.dumps(content | {"signature": base64.b64encode(spoilt).decode()}))
        refused(manifest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '"text"',
        "[" * 60_000,
        '{"format": 1, "algorithm": "none", "key": "", "signature": ""}',
        '{"format": 1, "algorithm": "Ed25519", "key": 3, "signature": ""}',
        '{"format": 1, "algorithm": "Ed25519", "key": "KEY", "signature": "!"}',
        '{"format": 1, "algorithm": "Ed25519", "key": "KEY", "signature": ""}',
        '{"format": 1, "algorithm": "Ed25519", "key": "KEY", "signature": 7}',
    ],
)
def test_m14_what_is_no_signature_is_refused(manifest: Path, key: Ed25519PrivateKey, text: str) -> None:
    signature_path(manifest).write_text(text.replace("KEY", public_key_of(key).fingerprint))
    refused(manifest)


def test_m14_the_built_in_manifest_needs_a_signed_copy(key: Ed25519PrivateKey) -> None:
    with pytest.raises(ModelError) as caught:
        load_manifest()
    assert caught.value.code is ErrorCode.SIGNATURE_FAIL
    assert "copy it" in caught.value.fix and "WAN_MODELS_MANIFEST" in caught.value.fix


def pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return encoded


def test_m14_a_key_may_be_a_pem_file(
    manifest: Path, key: Ed25519PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "public.pem").write_bytes(pem(key))
    monkeypatch.setenv("WAN_MODELS_PUBLIC_KEY", str(tmp_path / "public.pem"))
    refused(manifest)
    sign_file(manifest, key)
    assert load_manifest(manifest).find("tiny")


@pytest.mark.parametrize("named", ["absent.pem", "AAAA", ",", "rsa.pem", "private.pem", "junk.pem"])
def test_m14_what_is_no_key_is_refused_and_not_left_out(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "rsa.pem").write_bytes(pem(rsa.generate_private_key(65537, 2048)))
    make_signing_key(tmp_path / "private.pem", lambda: "")
    (tmp_path / "junk.pem").write_bytes(b"junk")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAN_MODELS_PUBLIC_KEY", f"{public_key_of(key).text},{named}")
    sign_file(manifest, key)
    with pytest.raises(ModelError) as caught:
        load_manifest(manifest)
    assert caught.value.code is ErrorCode.INVALID_CONFIG


def test_m14_without_cryptography_a_configured_key_is_no_empty_promise(manifest: Path, key: Ed25519PrivateKey) -> None:
    """In a process of its own, in which the package cannot be imported."""
    sign_file(manifest, key)
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'cryptography':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from wan_fixes.models import ModelError, load_manifest\n"
        "try:\n"
        "    load_manifest(sys.argv[1])\n"
        "except ModelError as error:\n"
        "    print(error.code.value, error.fix)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(manifest)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout.strip() == 'INVALID_CONFIG pip install "wan-fixes[security]"'


# The lock file


def test_m14_a_signed_lock_file_is_what_is_fetched_and_nothing_is_pinned_by_the_way(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    models = ensurer(tmp_path, hub)
    trust(monkeypatch, key)
    with pytest.raises(ModelError) as caught:
        models.ensure("tiny")
    assert caught.value.code is ErrorCode.SIGNATURE_FAIL and "manifest lock" in caught.value.fix
    assert hub.bytes_served == 0
    monkeypatch.delenv("WAN_MODELS_PUBLIC_KEY")
    listing = models.lock("tiny")
    trust(monkeypatch, key)
    with pytest.raises(ModelError) as caught:
        models.status("tiny")
    assert caught.value.code is ErrorCode.SIGNATURE_FAIL
    lock_file = models.resolver.lock_file
    sign_file(lock_file, key, Signed.LOCK)
    assert content_of(models.ensure("tiny")) == whole()
    assert models.status("tiny").state is ModelState.COMPLETE
    name = models.target("tiny").name
    models.lock_file.put(name, listing)  # what is pinned already is no news
    before = lock_file.read_bytes()
    with pytest.raises(ModelError):
        models.lock_file.put(name, type(listing)(listing.source, "another", listing.files))
    assert lock_file.read_bytes() == before
    lock_file.write_bytes(before.replace(b"tiny@1", b"tiny@2"))
    with pytest.raises(ModelError) as caught:
        models.status("tiny")
    assert caught.value.code is ErrorCode.SIGNATURE_FAIL


def test_m14_a_manifest_with_all_digests_needs_no_lock_file(hub: Hub, tmp_path: Path, key: Ed25519PrivateKey) -> None:
    lines = [
        f'{{ path = "{path}", size = {len(content)}, sha256 = "{hashlib.sha256(content).hexdigest()}" }},'
        for path, content in whole().items()
    ]
    models = ensurer(tmp_path, hub, manifest_of(files="files = [\n" + "\n".join(lines) + "\n]"))
    assert content_of(models.ensure("tiny")) == whole()
    assert not models.resolver.lock_file.exists()


# The commands


def run_manifest(capsys: Capture, *arguments: str, code: int = ExitCode.OK) -> str:
    """The output of `wan models manifest ARGUMENTS`."""
    app = typer.Typer(cls=ReportingGroup, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.add_typer(models_manifest.app, name="manifest")
    with pytest.raises(SystemExit) as left:
        app(["manifest", *arguments], prog_name="wan models")
    captured = capsys.readouterr()
    assert left.value.code == code, captured.err
    return captured.out if code in (ExitCode.OK, ExitCode.INCOMPLETE) else captured.err


def lock_file_of(root: Path) -> LockFile:
    return LockFile(root / "models.lock", LockManager(root / ".locks"))


def test_m14_from_an_unsigned_manifest_to_trusted_models(
    cli_root: Path, hub: Hub, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN_MODELS_KEY_PASSPHRASE", "open sesame, of mine")
    manifest, private = tmp_path / "tiny.toml", tmp_path / "private.pem"
    assert "not signed" in run_manifest(capsys, "validate")
    line = run_manifest(capsys, "sign", str(manifest), "--key", str(private), "--new-key").splitlines()[-1]
    name, _, value = line.partition("=")
    assert name == "WAN_MODELS_PUBLIC_KEY"
    assert "nobody checked" in run_manifest(capsys, "validate")
    monkeypatch.setenv(name, value)
    found = json.loads(run_manifest(capsys, "validate", "--json"))
    assert found["signature"]["is_checked"] is True
    found = json.loads(run_manifest(capsys, "lock", "--check", "--json", code=ExitCode.INCOMPLETE))
    assert [one["state"] for one in found["models"]] == ["new"]
    assert not (cli_root / "models.lock").exists()
    assert "tiny@1.0.0" in run_manifest(capsys, "lock")
    assert hub.bytes_served == 0
    signed = json.loads(run_manifest(capsys, "sign", str(cli_root / "models.lock"), "--key", str(private), "--json"))
    assert (signed["kind"], signed["public_key"]) == ("lock", value)
    run_manifest(capsys, "lock", "tiny", "--check")
    assert content_of(ensurer(cli_root, hub, load_manifest()).ensure("tiny")) == whole()


def test_m14_what_changed_at_the_source_is_named_before_it_is_pinned(cli_root: Path, hub: Hub, capsys: Capture) -> None:
    run_manifest(capsys, "lock")
    hub.repositories[REPOSITORY].files["README.md"] = b"for other people"
    run_manifest(capsys, "lock", "--check")
    hub.repositories[REPOSITORY].files["vae/config.json"] = b"[]"
    del hub.repositories[REPOSITORY].files["tokenizer/spiece.model"]
    before = (cli_root / "models.lock").read_bytes()
    out = run_manifest(capsys, "lock", "--check", code=ExitCode.INCOMPLETE)
    assert "changed: tokenizer/spiece.model, vae/config.json" in out
    assert (cli_root / "models.lock").read_bytes() == before
    run_manifest(capsys, "lock")
    run_manifest(capsys, "lock", "--check")


def test_m14_unsigned_pins_of_others_are_not_signed_along(
    cli_root: Path, hub: Hub, capsys: Capture, key: Ed25519PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_file(manifest_path(), key)
    run_manifest(capsys, "lock")
    monkeypatch.delenv("WAN_MODELS_PUBLIC_KEY")
    lock = lock_file_of(cli_root)
    listing = lock.get(ensurer(cli_root, hub).target("tiny").name)
    assert listing is not None
    stranger = ensurer(cli_root, hub, manifest_of(manifest_of().text.decode().replace("1.0.0", "9.0.0")))
    lock.put(stranger.target("tiny").name, listing)
    hub.repositories[REPOSITORY].files["vae/config.json"] = b"[1]"
    trust(monkeypatch, key)
    before = lock.path.read_bytes()
    assert "not signed" in run_manifest(capsys, "lock", code=ExitCode.FAILED)
    assert lock.path.read_bytes() == before


def test_m14_only_what_is_sound_is_signed(
    cli_root: Path, hub: Hub, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private.pem"
    make_signing_key(private, lambda: "")
    bad = tmp_path / "bad.toml"
    bad.write_bytes(manifest_of().text.replace(b'"wan21"', b'"wan9"'))
    assert "family" in run_manifest(capsys, "sign", str(bad), "--key", str(private), code=ExitCode.USAGE)
    run_manifest(capsys, "lock")
    lock = cli_root / "models.lock"
    content = json.loads(lock.read_bytes().partition(b"\n")[2])
    for entry in content["models"].values():
        entry["files"][0] |= {"sha256": "", "git_id": ""}
    write_json(lock, content)
    assert "no digest" in run_manifest(capsys, "sign", str(lock), "--key", str(private), code=ExitCode.FAILED)
    lock.write_bytes(b"junk")
    run_manifest(capsys, "sign", str(lock), "--key", str(private), code=ExitCode.USAGE)
    assert not signature_path(bad).exists() and not signature_path(lock).exists()


def test_m14_what_is_signed_is_what_was_checked(tmp_path: Path, cli_root: Path, capsys: Capture) -> None:
    """The bytes count that were read, whatever the file has become since."""
    run_manifest(capsys, "lock")
    data = (cli_root / "models.lock").read_bytes()
    path = tmp_path / "gone.lock"
    assert signable(path, data) is Signed.LOCK
    path.write_bytes(manifest_of().text)
    assert signable(path, data) is Signed.LOCK
    path.write_bytes(data)
    assert signable(path, manifest_of().text) is Signed.MANIFEST


def test_m14_a_lock_file_that_is_not_sound_is_called_that(tmp_path: Path, cli_root: Path, capsys: Capture) -> None:
    run_manifest(capsys, "lock")
    lock = cli_root / "models.lock"
    sound = json.loads(lock.read_bytes().partition(b"\n")[2])
    spoilt = {**sound["models"], "other@2.0.0#original": {"source": "hub", "revision": "1", "files": [{}]}}
    for models, said in ((spoilt, "other@2.0.0#original"), ({}, "pins nothing"), (3, "pins nothing")):
        write_json(lock, sound | {"models": models})
        refused_lock(lock, said)
    write_json(lock, sound | {"format": 2})
    refused_lock(lock, "later wan-fixes")
    lock.write_bytes(lock.read_bytes() + b" ")
    refused_lock(lock, "checksum")
    lock.write_bytes(xxhash.xxh3_128_hexdigest(b"{").encode() + b"\n{")
    refused_lock(lock, "not JSON")


def refused_lock(lock: Path, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        signable(lock, lock.read_bytes())
    assert caught.value.code is ErrorCode.BAD_REPLY and said in caught.value.reason and caught.value.fix


def test_m14_a_private_key_is_its_owner_s_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "private.pem"
    key = make_signing_key(path, lambda: "open sesame")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    with pytest.raises(ModelError) as caught:
        make_signing_key(path, lambda: "another")
    assert caught.value.code is ErrorCode.NOT_WRITABLE
    assert public_key_of(load_signing_key(path, lambda: "open sesame")) == public_key_of(key)
    for word in ("no-passphrase", ""):
        with pytest.raises(ModelError) as caught:
            load_signing_key(path, partial(str, word))
        assert caught.value.code is ErrorCode.INVALID_CONFIG


def test_m14_others_that_can_read_a_private_key_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "private.pem"
    make_signing_key(path, lambda: "")
    load_signing_key(path, lambda: "")
    assert caplog.text == ""
    path.chmod(0o644)
    load_signing_key(path, lambda: "")
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    "content", [b"", some_bytes(100), b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_m14_what_is_no_private_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "private.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ModelError) as caught:
        load_signing_key(path, lambda: "")
    assert caught.value.code is ErrorCode.INVALID_CONFIG


def test_m14_where_nobody_can_be_asked_for_a_passphrase_it_says_so(
    tmp_path: Path, manifest: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WAN_MODELS_KEY_PASSPHRASE", raising=False)
    private = tmp_path / "private.pem"
    arguments = ("sign", str(manifest), "--key", str(private))
    assert "WAN_MODELS_KEY_PASSPHRASE" in run_manifest(capsys, *arguments, "--new-key", code=ExitCode.USAGE)
    assert not private.exists()
    make_signing_key(private, lambda: "open sesame")
    assert "WAN_MODELS_KEY_PASSPHRASE" in run_manifest(capsys, *arguments, code=ExitCode.USAGE)
    assert not signature_path(manifest).exists()
