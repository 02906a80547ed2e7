"""A model is fetched once, whole, and never asked for again (M5, M6)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import ModelState

from .hub_server import Hub
from .world import NEEDED, NEEDED_BYTES, PART, REPOSITORY, content_of, ensurer, manifest_of, model_files, some_bytes

LARGE = "transformer/diffusion_pytorch_model.safetensors"


def whole() -> dict[str, bytes]:
    files = model_files()
    return {path: files[path] for path in NEEDED}


def test_m5_a_model_is_fetched_into_its_place_and_nothing_else_is(hub: Hub, tmp_path: Path) -> None:
    folder = ensurer(tmp_path, hub).ensure("tiny")
    assert folder == tmp_path / "wan21" / "tiny@1.0.0-original"
    assert content_of(folder) == whole()
    assert hub.bytes_served == NEEDED_BYTES
    assert not hub.asked(r"\.pth|README|picture")
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_m5_a_complete_model_asks_no_server(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    models.ensure("tiny")
    hub.requests.clear()
    assert models.ensure("tiny@1.0.0#original") == ensurer(tmp_path, hub).ensure("TINY")
    assert hub.requests == []


def test_m6_the_states_of_a_model(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    before = models.status("tiny")
    assert (before.state, before.bytes_needed) == (ModelState.NOT_PRESENT, None)
    folder = models.ensure("tiny")
    there = models.status("tiny")
    assert (there.state, there.bytes_needed, there.bytes_there) == (ModelState.COMPLETE, 0, NEEDED_BYTES)
    (folder / "vae/config.json").unlink()
    lacking = models.status("tiny")
    assert (lacking.state, lacking.missing, lacking.bytes_needed) == (ModelState.PARTIAL, ("vae/config.json",), 2)
    (folder / LARGE).write_bytes(b"short")
    spoilt = models.status("tiny")
    assert (spoilt.state, spoilt.corrupt) == (ModelState.CORRUPT, (LARGE,))
    assert spoilt.bytes_needed == 2 + 10 * PART


def test_m6_only_what_is_bad_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    folder = models.ensure("tiny")
    content = bytearray((folder / LARGE).read_bytes())
    content[5] ^= 1
    (folder / LARGE).write_bytes(content)
    (folder / "vae/config.json").unlink()
    hub.served.clear()
    models.ensure("tiny")
    assert content_of(folder) == whole()
    assert set(hub.served) == {LARGE, "vae/config.json"}


def test_m6_a_touched_file_is_read_again_and_nothing_is_fetched(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    folder = models.ensure("tiny")
    os.utime(folder / LARGE, (1, 1))
    hub.requests.clear()
    assert models.status("tiny").unverified == (LARGE,)
    models.ensure("tiny")
    assert models.status("tiny").state is ModelState.COMPLETE
    assert hub.requests == []


def test_m6_verify_finds_a_flipped_bit_that_no_size_or_time_shows(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    folder = models.ensure("tiny")
    path = folder / LARGE
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 128
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert models.status("tiny").state is ModelState.COMPLETE
    found = models.verify_integrity("tiny")
    assert (found.state, found.corrupt) == (ModelState.CORRUPT, (LARGE,))


def test_m5_a_model_whose_digests_the_manifest_knows_needs_no_list_of_files(hub: Hub, tmp_path: Path) -> None:
    lines = [
        f'{{ path = "{path}", size = {len(content)}, sha256 = "{hashlib.sha256(content).hexdigest()}" }},'
        for path, content in whole().items()
    ]
    manifest = manifest_of(files="files = [\n" + "\n".join(lines) + "\n]")
    models = ensurer(tmp_path, hub, manifest)
    assert models.status("tiny").bytes_needed == NEEDED_BYTES
    assert content_of(models.ensure("tiny")) == whole()
    assert not hub.asked("/api/")


def test_what_the_hub_says_must_agree_with_the_manifest(hub: Hub, tmp_path: Path) -> None:
    manifest = manifest_of(files=f'files = [{{ path = "{LARGE}", sha256 = "{"0" * 64}" }}]')
    with pytest.raises(ModelError, match="is another file") as caught:
        ensurer(tmp_path, hub, manifest).ensure("tiny")
    assert caught.value.code is ErrorCode.CHECKSUM_FAIL
    assert hub.bytes_served == 0


def test_the_first_revision_is_pinned(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    folder = models.ensure("tiny")
    commit = models.status("tiny").revision
    hub.repositories[REPOSITORY].files[LARGE] = some_bytes(10 * PART, 99)
    (folder / LARGE).unlink()
    ensurer(tmp_path, hub).ensure("tiny")
    assert content_of(folder) == whole()
    assert models.status("tiny").revision == commit != hub.repositories[REPOSITORY].head


def test_m7_offline_says_what_is_missing_and_asks_nobody(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE") as caught:
        ensurer(tmp_path, hub).ensure("tiny")
    assert caught.value.code is ErrorCode.OFFLINE
    assert hub.requests == []


def test_m7_the_variable_of_ours_decides_where_it_is_set(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "0")
    assert content_of(ensurer(tmp_path, hub).ensure("tiny")) == whole()


def test_m5_too_little_space_is_said_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wan models gc") as caught:
        ensurer(tmp_path, hub, safety_margin=1 << 60).ensure("tiny")
    assert caught.value.code is ErrorCode.NO_SPACE
    assert hub.bytes_served == 0


def test_m9_a_quota_is_kept_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN_MODELS_QUOTA", "900kB")
    with pytest.raises(ModelError, match="WAN_MODELS_QUOTA") as caught:
        ensurer(tmp_path, hub).ensure("tiny")
    assert (caught.value.code, hub.bytes_served) == (ErrorCode.NO_SPACE, 0)
    monkeypatch.setenv("WAN_MODELS_QUOTA", "lots")
    with pytest.raises(ModelError, match="lots") as caught:
        ensurer(tmp_path, hub).ensure("tiny")
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    monkeypatch.setenv("WAN_MODELS_QUOTA", "1 GB")
    assert content_of(ensurer(tmp_path, hub).ensure("tiny")) == whole()


def test_m8_a_shard_that_a_source_lacks_is_named_also_where_something_lies_there(hub: Hub, tmp_path: Path) -> None:
    index = (
        b'{"weight_map": {"a": "diffusion_pytorch_model-1.safetensors", "b": "diffusion_pytorch_model-2.safetensors"}}'
    )
    files = hub.repositories[REPOSITORY].files
    del files[LARGE]
    files["transformer/diffusion_pytorch_model.safetensors.index.json"] = index
    files["transformer/diffusion_pytorch_model-1.safetensors"] = some_bytes(PART, 6)
    models = ensurer(tmp_path, hub)
    config = models.target("tiny").folder / "vae" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_bytes(b"{}")
    for _ in range(2):
        with pytest.raises(ModelError, match="diffusion_pytorch_model-2") as caught:
            models.ensure("tiny")
        assert caught.value.code is ErrorCode.MISSING_FILES
        assert models.status("tiny").state is ModelState.PARTIAL
    files["transformer/diffusion_pytorch_model-2.safetensors"] = some_bytes(PART, 7)
    models.ensure("tiny")
    assert models.status("tiny").state is ModelState.COMPLETE


def test_m5_a_file_that_is_changed_while_others_are_fetched_is_not_taken_for_right(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    folder = models.ensure("tiny")
    (folder / LARGE).unlink()
    vae = folder / "vae/diffusion_pytorch_model.safetensors"
    size = vae.stat().st_size
    hub.at_bytes = hub.bytes_served + 1, lambda: vae.write_bytes(bytes(size))
    with pytest.raises(ModelError, match="changed while") as caught:
        models.ensure("tiny")
    assert caught.value.code is ErrorCode.CHECKSUM_FAIL
    assert models.status("tiny").state is not ModelState.COMPLETE
    assert content_of(models.ensure("tiny")) == whole()


@pytest.mark.parametrize("content", [b"spoilt", b"", b"0" * 32 + b"\n{}"])
def test_m1_pins_that_cannot_be_read_are_not_written_over(hub: Hub, tmp_path: Path, content: bytes) -> None:
    models = ensurer(tmp_path, hub)
    models.resolver.lock_file.write_bytes(content)
    with pytest.raises(ModelError, match="not written over"):
        models.ensure("tiny")
    assert models.resolver.lock_file.read_bytes() == content


def test_m6_a_file_that_is_spoilt_unseen_is_read_when_the_whole_does_not_fit(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    folder = models.ensure("tiny")
    index = folder / "model_index.json"
    state = index.stat()
    index.write_bytes(b"x" * state.st_size)
    os.utime(index, ns=(state.st_atime_ns, state.st_mtime_ns))
    (folder / "vae/config.json").unlink()
    models.ensure("tiny")
    assert content_of(folder) == whole()


def test_m8_files_that_are_no_part_of_the_model_may_be_called_anything(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[REPOSITORY].files["assets/prompt: a cat.txt"] = b"for people"
    assert content_of(ensurer(tmp_path, hub).ensure("tiny")) == whole()


def test_m8_a_component_that_the_source_lacks_is_named(hub: Hub, tmp_path: Path) -> None:
    files = hub.repositories[REPOSITORY].files
    for path in [path for path in files if path.startswith("vae/")]:
        del files[path]
    with pytest.raises(ModelError, match="needs vae") as caught:
        ensurer(tmp_path, hub).ensure("tiny")
    assert caught.value.code is ErrorCode.MISSING_FILES


def test_m1_an_unknown_model_lists_the_known_ones(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the manifest has tiny") as caught:
        ensurer(tmp_path, hub).ensure("t2v-A15B")
    assert caught.value.code is ErrorCode.UNKNOWN_MODEL
