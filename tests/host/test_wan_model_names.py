"""In OneTrainer too the base model may be a name: it is fetched right before it is loaded (M19)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("name", ["tiny", "Wan-AI/Tiny-Diffusers"])
def test_m19_a_base_model_that_is_named_is_fetched_and_trained(
    host: Any, tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    from models.named_model import served

    from host.wan_runs import make_clips, write_configuration
    from wan_fixes.health import RunDatabase, run_database_path

    clips = make_clips(tmp_path / "clips", 1)
    with served(tiny_wan, "WAN_2_1_T2V_1_3B", tmp_path, monkeypatch) as hub:
        config = write_configuration(Path(name), clips, tmp_path / "first")
        done = host.wan("train", "--host", str(host.checkout), "--config", str(config))
        assert done.returncode == 0, done.stderr[-3000:]
        folder = tmp_path / "models" / "wan21" / "tiny@1.0.0-original"
        assert (folder / ".verified.json").is_file() and hub.bytes_served > 0
        with RunDatabase(run_database_path(tmp_path / "first" / "workspace")) as database:
            events = database.events(database.runs()[0].id)
            said = [event.message for event in events if event.kind == "status"]
            assert [event.facts["seconds"] > 0 for event in events if event.kind == "model_loaded"] == [True]
        assert any(line.startswith("fetching tiny@1.0.0#original") for line in said)

        hub.requests.clear()
        again = write_configuration(Path(name), clips, tmp_path / "second")
        assert host.wan("train", "--host", str(host.checkout), "--config", str(again)).returncode == 0
        assert hub.requests == []


def test_m19_a_name_that_is_another_model_type_stops_before_anything_is_fetched(
    host: Any, tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    from models.named_model import served

    from host.wan_runs import make_clips, write_configuration

    with served(tiny_wan, "WAN_2_2_TI2V_5B", tmp_path, monkeypatch) as hub:
        config = write_configuration(Path("tiny"), make_clips(tmp_path / "clips", 1), tmp_path / "work")
        done = host.wan("train", "--host", str(host.checkout), "--config", str(config))
        assert done.returncode != 0
        assert "WAN_2_2_TI2V_5B" in done.stderr + done.stdout
        assert hub.requests == []
