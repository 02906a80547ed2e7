"""The checks of a configuration find nothing in what OneTrainer itself makes of a good preset, its own included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import wan_fixes

OURS = sorted((Path(wan_fixes.__file__).parent / "hosts" / "onetrainer" / "presets").glob("*/#*.json"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with clips."""
    (tmp_path / "clips").mkdir()
    for number in range(40):  # so that a warm-up of 200 batches ends
        (tmp_path / "clips" / f"{number}.mp4").write_bytes(b"")
        (tmp_path / "clips" / f"{number}.txt").write_text("a caption", encoding="utf-8")
    (tmp_path / "training_samples").mkdir()  # as OneTrainer's window makes it
    (tmp_path / "training_samples" / "samples.json").write_text("[]", encoding="utf-8")
    return tmp_path


def written_out(preset: Path) -> dict[str, Any]:
    """The preset as the window holds it: with every default, as a training gets it."""
    from modules.util.config.ConceptConfig import ConceptConfig
    from modules.util.config.TrainConfig import TrainConfig

    content = json.loads(preset.read_text(encoding="utf-8"))
    config = TrainConfig.default_values().from_dict(content, migrate=False)
    config.concepts = [ConceptConfig.default_values().from_dict({"path": "clips"}, migrate=False)]
    return config.to_dict()


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_preset_of_ours_has_no_finding_with_all_defaults_written_out(wan_host: Path, place: Path, path: Path) -> None:
    from wan_fixes.preflight import check_config

    assert [str(found) for found in check_config(written_out(path), base=place)] == []


def test_onetrainer_itself_stops_where_the_file_of_samples_is_missing(
    wan_host: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules.util.config.TrainConfig import TrainConfig

    from wan_fixes.preflight import check_config

    monkeypatch.chdir(place)
    written = written_out(OURS[0])
    config = TrainConfig.default_values().from_dict(written, migrate=False)
    config.to_pack_dict(secrets=False)
    (place / "training_samples" / "samples.json").unlink()
    with pytest.raises(FileNotFoundError):
        config.to_pack_dict(secrets=False)  # as GenericTrainer.start calls it, before all else
    assert [found.rule for found in check_config(written, base=place)] == ["sample_file"]


def test_a_preset_of_onetrainers_own_has_none_either(wan_host: Path, place: Path) -> None:
    from wan_fixes.preflight import check_config

    presets = sorted((wan_host / "training_presets").rglob("*.json"))
    assert len(presets) > 20
    found = {path.stem: check_config(written_out(path), base=place) for path in presets}
    assert {name: [str(f) for f in of] for name, of in found.items() if of} == {}
