"""Complete models are read again in the background, the oldest first, and what was found is remembered (M13)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import ModelState, Verified
from wan_fixes.models.json_file import write_json
from wan_fixes.models.locks import LockManager
from wan_fixes.models.revalidation import Revalidation
from wan_fixes.models.signatures import public_key_of
from wan_fixes.models.validations import Validation, Validations

from .hub_server import Hub
from .world import NEEDED_BYTES, ensurer, manifest_of

LARGE = "transformer/diffusion_pytorch_model.safetensors"
HOUR = 3600.0


@pytest.fixture
def models(hub: Hub, tmp_path: Path) -> ModelEnsurer:
    """Two models, both complete; a third is not there."""
    head, _, rest = manifest_of().text.decode().partition("\n[models.")
    tables = (("\n[models." + rest).replace("tiny@", f"{name}@") for name in ("first", "second", "third"))
    found = ensurer(tmp_path, hub, manifest_of(head + "".join(tables)))
    found.ensure("first")
    found.ensure("second")
    return found


def verified_at(models: ModelEnsurer, name: str, seconds: float) -> None:
    """Have a model say that it was verified at that time."""
    folder = models.target(name).folder
    verified = Verified.read(folder)
    assert verified is not None
    replace(verified, seconds=seconds).write(folder)


def spoil(path: Path) -> None:
    """Change a byte so that neither size nor time shows it."""
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()  # the other model may have the same file
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_m13_the_oldest_is_due_and_only_when_it_is_old(models: ModelEnsurer) -> None:
    verified_at(models, "first", 1000.0)
    verified_at(models, "second", 500.0)
    later = Revalidation(models, 2.0, clock=lambda: 500.0 + 2 * HOUR)
    assert later.due() is None
    later = Revalidation(models, 2.0, clock=lambda: 501.0 + 2 * HOUR)
    assert later.due() == "second@1.0.0#original"
    (models.target("second").folder / "vae/config.json").unlink()
    assert later.due() is None, "what is not complete is known to be wrong"


def test_m13_what_is_found_is_remembered(models: ModelEnsurer, tmp_path: Path) -> None:
    spoil(models.target("first").folder / LARGE)
    reader = Revalidation(models, 1.0)
    for name in ("first@1.0.0#original", "second@1.0.0#original"):
        reader.read(name)
    found = Validations(models.resolver, models.locks).all()
    assert found["first@1.0.0#original"].outcome == "CORRUPT"
    assert found["first@1.0.0#original"].wrong == (LARGE,)
    assert found["second@1.0.0#original"].outcome == "COMPLETE"
    assert found["second@1.0.0#original"].finished_at == pytest.approx(time.time(), abs=600)
    assert models.status("first").state is ModelState.CORRUPT
    assert (tmp_path / ".state" / "validations.json").is_file()


def test_m13_the_thread_reads_one_after_the_other_until_none_is_due(models: ModelEnsurer) -> None:
    for name in ("first", "second"):
        verified_at(models, name, 1000.0)
    reader = Revalidation(models, 1.0, look_seconds=0.01)
    reader.start()
    remembered = Validations(models.resolver, models.locks)
    until(lambda: len(remembered.all()) == 2)
    reader.stop()
    assert {entry.outcome for entry in remembered.all().values()} == {"COMPLETE"}
    assert all((models.status(name).verified_at or 0) > 1000.0 for name in ("first", "second"))
    assert reader.due() is None


def test_m13_it_stops_in_the_middle_of_a_model_and_says_nothing_of_it(models: ModelEnsurer) -> None:
    verified_at(models, "first", 1000.0)
    reader = Revalidation(models, 1.0, pace=1000.0, look_seconds=60)
    reader.start()
    until(lambda: models.status("first").state is ModelState.VERIFYING)
    began = time.monotonic()
    reader.stop()
    assert time.monotonic() - began < 2
    assert Validations(models.resolver, models.locks).all() == {}
    there = models.status("first")
    assert (there.state, there.verified_at) == (ModelState.COMPLETE, 1000.0)


def test_m13_it_reads_no_faster_than_its_pace(models: ModelEnsurer) -> None:
    reader = Revalidation(models, 1.0, pace=NEEDED_BYTES / 1.5)
    began = time.monotonic()
    assert reader.read("first") is not None
    assert time.monotonic() - began > 0.3, "a second's worth comes at once"


def test_m13_what_cannot_be_written_down_is_not_read_again_and_again(
    models: ModelEnsurer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    verified_at(models, "first", 1000.0)
    spoil(models.target("first").folder / LARGE)
    state = tmp_path / ".state"
    if state.exists():
        state.rename(tmp_path / "aside")
    state.write_bytes(b"a file where the folder should be")
    reader = Revalidation(models, 1.0)
    found = reader.read("first@1.0.0#original")
    assert found is not None and found.outcome == "CORRUPT"
    assert "cannot be written down" in caplog.text
    assert reader.due() is None


def test_m13_a_reading_that_fails_is_remembered_and_not_tried_at_once(
    models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified_at(models, "first", 1000.0)

    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    reader = Revalidation(models, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr("wan_fixes.models.ensure.verify_files", refuses)
        assert reader.read("first@1.0.0#original") is not None
    assert Validations(models.resolver, models.locks).all()["first@1.0.0#original"].outcome == "UNREADABLE"
    assert reader.due() is None


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"format": 2, "models": {}},
        {"format": 1, "models": []},
        {"format": 1, "models": {"tiny": {"finished_at": 1, "seconds": 1, "outcome": "x", "wrong": "abc"}}},
        {"format": 1, "models": {"tiny": {"finished_at": None, "seconds": 1, "outcome": "x", "wrong": []}}},
        {"format": 1, "models": {"tiny": 3}},
    ],
)
def test_m13_a_file_that_is_not_sound_is_not_believed(hub: Hub, tmp_path: Path, content: object) -> None:
    models = ensurer(tmp_path, hub)
    validations = Validations(models.resolver, models.locks)
    validations.path.parent.mkdir(parents=True)
    write_json(validations.path, content)
    assert validations.all() == {}
    validations.put("tiny", Validation(1.0, 2.0, "COMPLETE"))
    assert validations.all() == {"tiny": Validation(1.0, 2.0, "COMPLETE")}
    validations.path.write_bytes(b"\x00" * 40)
    assert validations.all() == {}


def test_m13_who_is_kept_waiting_says_so(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = ensurer(tmp_path, hub)
    monkeypatch.setattr("wan_fixes.models.validations._LOCK_SECONDS", 0.05)
    with LockManager(models.resolver.locks).hold("validations"), pytest.raises(ModelError) as caught:
        Validations(models.resolver, models.locks).put("tiny", Validation(1.0, 2.0, "COMPLETE"))
    assert caught.value.code is ErrorCode.LOCK_TIMEOUT


def test_m13_pins_that_are_not_believed_do_not_end_it(
    models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("first", "second"):
        verified_at(models, name, 1000.0)
    key = Ed25519PrivateKey.generate()
    monkeypatch.setenv("WAN_MODELS_PUBLIC_KEY", public_key_of(key).text)
    reader = Revalidation(models, 1.0, look_seconds=0.01)
    reader.start()
    until(lambda: "cannot be looked at" in caplog.text)
    monkeypatch.delenv("WAN_MODELS_PUBLIC_KEY")
    until(lambda: len(Validations(models.resolver, models.locks).all()) == 2)
    reader.stop()


def test_m13_a_time_that_is_yet_to_come_does_not_count(models: ModelEnsurer) -> None:
    """The clock was ahead when the model was verified."""
    now = 1000 * HOUR
    verified_at(models, "first", now + 25 * HOUR)
    verified_at(models, "second", now + 23 * HOUR)
    reader = Revalidation(models, 2.0, clock=lambda: now)
    assert reader.due() == "first@1.0.0#original"
    reader._read_at["first@1.0.0#original"] = now
    assert reader.due() is None, "where the record cannot be written it is not read again and again"


def test_m13_a_model_that_somebody_works_on_is_not_waited_for(models: ModelEnsurer) -> None:
    reader = Revalidation(models, 1.0)
    with LockManager(models.resolver.locks).hold(models.target("first").name.folder_name):
        assert reader.read("first@1.0.0#original") is None
    assert Validations(models.resolver, models.locks).all() == {}
