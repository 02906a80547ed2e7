"""`wan trace`: one sample through the modules again, and nothing of the user's cache is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from painted import paint_frame

Preset = Callable[..., Path]


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def calls_of(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {call["module"]: call for call in answer["calls"]}


def test_a_sample_goes_through_the_encoders_with_shapes_and_times(wan: Any, clips: Path, write_preset: Preset) -> None:
    result = wan("trace", write_preset(clips), "good", "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    calls = calls_of(answer)
    assert answer["path"] == str(clips / "good.mp4") and answer["with_model"] and answer["error"] is None
    assert calls["SafeScaleCrop"]["outputs"] == {"image": "float32 [3, 9, 48, 64]"}
    assert calls["SafeScaleCrop"]["inputs"]["frame_plan"].startswith("plan of 9 frames")
    assert calls["RobustTemporalVAE"]["inputs"] == {"image": "float32 [3, 9, 48, 64]"}
    assert calls["SampleVAEDistribution"]["outputs"] == {"latent_image": "float32 [16, 3, 6, 8]"}
    assert calls["EncodePrompt"]["inputs"] == {"prompt": "'numbers on a moving background'"}
    assert all(call["seconds"] >= 0 for call in answer["calls"])
    order = [call["module"] for call in answer["calls"]]
    assert order.index("ValidatedCollectPaths") < order.index("SafeScaleCrop") < order.index("RobustTemporalVAE")


def test_of_a_clip_it_says_how_it_was_read(wan: Any, clips: Path, write_preset: Preset) -> None:
    answer = json.loads(wan("trace", write_preset(clips), "good.mp4", "--no-model", "--json").stdout)
    clip = answer["clip"]
    assert (clip["width"], clip["height"], clip["fps"], clip["frame_count"]) == (64, 48, 16.0, 24)
    assert clip["codec"] == "h264" and clip["decoder"] == "pyav"
    assert len(answer["frames"]) == 9
    first = answer["frames"][0]
    assert first["seconds"] == pytest.approx(first["index"] / 16, abs=0.002)


def test_without_the_model_it_goes_as_far_as_picture_and_prompt(
    wan: Any, clips: Path, write_preset: Preset, tmp_path: Path
) -> None:
    preset = write_preset(clips, base_model_name=str(tmp_path / "no model"))
    result = wan("trace", preset, "good", "--no-model")
    assert result.exit_code == 0, result.stderr
    for text in ("SafeScaleCrop", "float32", "ShuffleTags", "h264", "64x48, 16 fps", "were left out"):
        assert text in result.stdout
    assert "RobustTemporalVAE" not in result.stdout
    there = wan("trace", preset, "good")
    assert there.exit_code == 0
    assert "the model is not there" in there.stderr and "RobustTemporalVAE" not in there.stdout


def test_where_it_fails_the_module_the_reason_and_the_fix_are_named(
    wan: Any, clips: Path, write_preset: Preset
) -> None:
    from clips import write_clip

    write_clip(clips / "short.mp4", [paint_frame(0, width=64, height=48)] * 3)
    preset = write_preset(clips)
    result = wan("trace", preset, "short", "--no-model")
    assert result.exit_code == 1
    assert "it fails in SafeVideoFrameSampler" in result.stdout
    assert "too short" in result.stderr and "fix:" in result.stderr and "9 needed" in result.stderr
    assert "Traceback" not in result.stderr
    answer = wan("trace", preset, "short", "--no-model", "--json")
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)["error"]["module"] == "SafeVideoFrameSampler"


def test_a_damaged_clip_is_read_again_and_not_only_found_in_quarantine(
    wan: Any, clips: Path, write_preset: Preset
) -> None:
    torn = clips / "torn[b].mp4"
    torn.write_bytes((clips / "good.mp4").read_bytes()[:700])
    result = wan("trace", write_preset(clips), str(torn), "--no-model")
    assert result.exit_code == 1
    assert "torn[b].mp4" in result.stderr.replace("\n", "")
    assert "moov" in result.stderr and "quarantine" not in result.stderr


def test_the_users_cache_and_workspace_are_neither_made_nor_changed(
    wan: Any, clips: Path, write_preset: Preset, tmp_path: Path
) -> None:
    preset = write_preset(clips)
    before = files_below(tmp_path)
    assert wan("trace", preset, "good").exit_code == 0
    assert files_below(tmp_path) == before
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "files.sqlite").write_bytes(b"not a database")
    before = files_below(tmp_path)
    assert wan("trace", preset, "good", "--no-model").exit_code == 0
    assert files_below(tmp_path) == before


def test_variations_are_the_ones_of_training(wan: Any, clips: Path, write_preset: Preset) -> None:
    preset = write_preset(clips)

    def first_frame(variation: int) -> int:
        answer = json.loads(wan("trace", preset, "good", "--no-model", "--json", "--variation", variation).stdout)
        assert answer["variation"] == variation
        return answer["frames"][0]["index"]

    drawn = [first_frame(variation) for variation in range(4)]
    assert len(set(drawn)) > 1
    assert first_frame(2) == drawn[2]


def test_a_name_that_fits_several_lists_them(wan: Any, clips: Path, write_preset: Preset) -> None:
    for name in ("good2.mp4", "good[3].mp4"):
        (clips / name).write_bytes((clips / "good.mp4").read_bytes())
    result = wan("trace", write_preset(clips), "goo", "--no-model")
    assert result.exit_code == 2
    assert "good.mp4, good2.mp4, good[3].mp4" in result.stderr.replace("\n", " ")
    assert wan("trace", write_preset(clips), "good.mp4", "--no-model").exit_code == 0  # in full it is one


def test_a_name_that_fits_none_says_where_to_look(wan: Any, clips: Path, write_preset: Preset) -> None:
    result = wan("trace", write_preset(clips), "nothing", "--no-model")
    assert result.exit_code == 2
    assert "none of the 1 clips and pictures" in result.stderr.replace("\n", " ")


def test_a_negative_variation_is_refused(wan: Any, clips: Path, write_preset: Preset) -> None:
    assert wan("trace", write_preset(clips), "good", "--variation", "-1").exit_code == 2
