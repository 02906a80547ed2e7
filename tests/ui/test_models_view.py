"""The models that are there or on their way are shown as they are, whoever fetches them; looking changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from clock import Clock
from models.hub_server import Hub, running_hub
from models.world import NEEDED_BYTES, REPOSITORY, ensurer, manifest_of, model_files

from wan_fixes.health import RunDatabase
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ModelError
from wan_fixes.models.fetching import Progress
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.names import ModelName
from wan_fixes.models.recording import ModelRecorder, record_path
from wan_fixes.ui.models_view import DOWNLOADING, ModelRow, ModelsView
from wan_fixes.ui.watch import RunWatch

LARGE = "transformer/diffusion_pytorch_model.safetensors"
NAME = ModelName("tiny", "1.0.0", "original")
NAMED = {"base_model_name": "tiny", "model_type": "WAN_2_1_T2V_1_3B"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_HUB_OFFLINE", "WAN_MODELS_OFFLINE", "HF_TOKEN", "WAN_MODELS_FEATURES", "WAN_MODELS_PUBLIC_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with running_hub() as server:
        server.add(REPOSITORY, model_files())
        yield server


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    manifest = tmp_path / "tiny.toml"
    manifest.write_bytes(manifest_of().text)
    monkeypatch.setenv("WAN_MODELS_MANIFEST", str(manifest))
    monkeypatch.setenv("MODELS_ROOT", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def view(root: Path, clock: Clock) -> ModelsView:
    return ModelsView(clock, clock)


def state_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_with_no_model_there_is_no_row_and_no_folder_comes_into_being(view: ModelsView, root: Path) -> None:
    assert view.rows() == ()
    assert view.rows({"base_model_name": "/some/folder"}) == ()
    assert view.rows({"base_model_name": None, "model_type": 7}) == ()
    assert not root.exists()


def test_the_model_that_the_configuration_names_is_shown_before_it_is_there(view: ModelsView, root: Path) -> None:
    (row,) = view.rows(NAMED)
    assert (row.name, row.state, row.bytes_there, row.progress) == ("tiny@1.0.0", "NOT_PRESENT", 0, None)
    assert "or a training fetches it" in row.note
    (of_standalone,) = view.rows({"base_model_name": str(root / "wan21"), "model_name": REPOSITORY})
    assert of_standalone == row
    assert not root.exists()


def test_a_complete_model_is_shown_and_looking_changes_nothing(view: ModelsView, root: Path, hub: Hub) -> None:
    ensurer(root, hub).ensure("tiny")
    asked, before = len(hub.requests), state_of(root)
    assert view.rows() == (ModelRow("tiny@1.0.0", "COMPLETE", NEEDED_BYTES, 0, None, None, ""),)
    assert view.rows(NAMED) == view.rows()
    assert state_of(root) == before
    assert len(hub.requests) == asked, "no server is asked"


def test_what_changes_on_the_disk_is_seen(view: ModelsView, root: Path, hub: Hub, clock: Clock) -> None:
    folder = ensurer(root, hub).ensure("tiny")
    assert view.rows()[0].state == "COMPLETE"
    content = (folder / LARGE).read_bytes()
    (folder / LARGE).unlink()
    (row,) = view.rows()
    assert (row.state, row.bytes_needed) == ("PARTIAL", len(content))
    assert "wan models ensure tiny@1.0.0" in row.note
    (folder / LARGE).write_bytes(content)
    (row,) = view.rows()
    assert row.state == "PARTIAL" and "1 file is changed" in row.note
    (folder / LARGE).write_bytes(content[:-1])  # in its place: no folder's time tells
    clock.now += 60
    (row,) = view.rows()
    assert row.state == "CORRUPT" and "wan models repair tiny@1.0.0" in row.note


def test_a_download_of_another_is_seen_while_it_goes_on(view: ModelsView, root: Path, hub: Hub) -> None:
    models = ensurer(root, hub, connections=1)
    is_half_way, may_go_on = threading.Event(), threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.done > progress.total / 2 and not is_half_way.is_set():
            is_half_way.set()
            assert may_go_on.wait(60)

    thread = threading.Thread(target=models.ensure, args=("tiny",), kwargs={"on_progress": on_progress})
    thread.start()
    assert is_half_way.wait(60)
    before = state_of(root)
    (row,) = ModelsView().rows(NAMED)  # by the real clock, as its process has written
    assert (row.name, row.state) == ("tiny@1.0.0", DOWNLOADING)
    assert 0 < row.bytes_there < NEEDED_BYTES and row.bytes_there + row.bytes_needed == NEEDED_BYTES
    assert row.progress == row.bytes_there / NEEDED_BYTES
    assert "ensure by process" in row.note
    assert state_of(root) == before
    may_go_on.set()
    thread.join(60)
    assert ModelsView().rows() == (ModelRow("tiny@1.0.0", "COMPLETE", NEEDED_BYTES, 0, None, None, ""),)


def test_the_speed_is_that_of_the_last_half_minute(view: ModelsView, root: Path, clock: Clock) -> None:
    database = RunDatabase(record_path(ModelResolver(root)), clock)
    labels = "model_id=tiny@1.0.0,source={},variant=original"
    with database:
        run = database.start_run("models", {"operation": "ensure", "model_id": "tiny@1.0.0", "variant": "original"})

        def came(hub_bytes: float, seconds: float) -> ModelRow:
            clock.now += seconds
            counters = {"hub": hub_bytes, "linked": 10_000_000.0}
            run.counters({f"fetched_bytes{{{labels.format(source)}}}": count for source, count in counters.items()})
            database.flush()
            (row,) = view.rows()
            return row

        database.flush()
        (row,) = view.rows()
        assert (row.state, row.progress, row.bytes_per_second) == (DOWNLOADING, None, None)
        assert "size not known yet" in row.note
        row = came(5_000, 5)
        assert row.bytes_per_second == 1_000, "since it began"
        assert row.note.startswith("from hub, ")
        assert came(15_000, 5).bytes_per_second == 2_000
        assert came(15_000, 5).bytes_per_second == 2_000, "its process writes only every few seconds"
        for count in range(1, 13):
            row = came(15_000 + count * 500, 5)
        assert row.bytes_per_second == 100
        assert came(21_000, 60).bytes_per_second == pytest.approx(0, abs=40), "a download that stands still"
        run.finish()
    assert view.rows() == ()


def test_a_model_that_is_being_verified_is_said_to_be(view: ModelsView, root: Path, hub: Hub, clock: Clock) -> None:
    ensurer(root, hub).ensure("tiny")
    with ModelRecorder(ModelResolver(root)).operation("verify", NAME) as operation:
        operation.begin()
        (row,) = ModelsView().rows()
        assert (row.state, row.progress) == ("VERIFYING", None)
        assert "verify by process" in row.note
    assert ModelsView().rows()[0].state == "COMPLETE"


def test_why_the_last_attempt_failed_is_said(view: ModelsView, root: Path, hub: Hub) -> None:
    hub.fail("status", "vae", 99, (404, {}))
    with pytest.raises(ModelError):
        ensurer(root, hub).ensure("tiny")
    (row,) = view.rows()
    assert row.state == "PARTIAL" and row.progress is None
    assert "ensure of tiny@1.0.0" in row.note and "vae" in row.note
    assert row.note.endswith("fetches the rest")


def test_a_damaged_record_hides_no_model(view: ModelsView, root: Path, hub: Hub) -> None:
    ensurer(root, hub).ensure("tiny")
    record = record_path(ModelResolver(root))
    record.write_bytes(b"no database" * 1000)
    assert [row.state for row in view.rows()] == ["COMPLETE"]
    assert record.read_bytes() == b"no database" * 1000


def test_what_stands_in_the_way_is_said_in_a_row_and_goes_away(
    view: ModelsView, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "tiny.toml"
    good = manifest.read_bytes()
    manifest.write_bytes(b"no manifest")
    (row,) = view.rows(NAMED)
    assert row.state == "UNKNOWN" and str(manifest) in row.note
    manifest.write_bytes(good + b"\n")
    (row,) = view.rows(NAMED)
    assert row.state == "NOT_PRESENT"


def test_a_name_that_no_model_has_is_said_and_hides_no_other(view: ModelsView, root: Path, hub: Hub) -> None:
    ensurer(root, hub).ensure("tiny")
    unknown, there = view.rows({"base_model_name": "tiny@9.9.9"})
    assert (unknown.name, unknown.state) == ("tiny@9.9.9", "UNKNOWN") and "9.9.9" in unknown.note
    assert (there.name, there.state) == ("tiny@1.0.0", "COMPLETE")


def test_another_root_is_looked_at_from_the_next_look_on(
    view: ModelsView, root: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ensurer(root, hub).ensure("tiny")
    assert len(view.rows()) == 1
    monkeypatch.setenv("MODELS_ROOT", str(tmp_path / "elsewhere"))
    assert view.rows() == ()
    assert not (tmp_path / "elsewhere").exists()


def test_what_has_not_changed_is_not_looked_at_again(
    view: ModelsView, root: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensurer(root, hub).ensure("tiny")
    first = view.rows(NAMED)
    looks: list[str] = []
    real = ModelEnsurer.look
    monkeypatch.setattr(ModelEnsurer, "look", lambda self, target: looks.append(str(target.name)) or real(self, target))
    assert view.rows(NAMED) == first
    assert looks == []


def test_the_watch_shows_models_to_whoever_looks_at_them(root: Path, tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "runs.sqlite"
    with RunDatabase(path, clock) as database:
        database.start_run("train", NAMED).finish()
    watch = RunWatch(lambda: path, clock=clock, steady=clock)
    assert watch.look().models == ()
    watch.show(models=True)
    assert [row.name for row in watch.look().models] == ["tiny@1.0.0"]
    other = RunWatch(lambda: None, config=lambda: NAMED)
    other.show(models=True)
    assert [row.name for row in other.look().models] == ["tiny@1.0.0"], "also where nothing has been run"
