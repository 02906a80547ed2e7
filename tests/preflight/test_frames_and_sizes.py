"""Frames are 4n + 1, sizes are of the model's multiples, and what is beyond the model is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflight.conftest import Check, make_clips, only
from wan_fixes.preflight import check_config, corrected
from wan_fixes.wan.variants import VARIANTS


def test_a_configuration_without_fault_has_no_finding(check: Check) -> None:
    assert check() == []


@pytest.mark.parametrize(("frames", "below"), [(32, 29), ("32", "29"), (2, 1), (4, 1), ("80", "77")])
def test_frames_between_are_an_error_with_both_neighbours_and_the_lower_one_is_written(
    check: Check, config: dict[str, Any], frames: Any, below: Any
) -> None:
    found = only(check(frames=frames), "frames", "error")
    assert f"set it to {int(below)} or {int(below) + 4}" in found.fix
    assert corrected({**config, "frames": frames}, [found])["frames"] == below


@pytest.mark.parametrize("frames", ["many", 0, -3, 1.5, [33], {}, "17,33", True, float("nan")])
def test_frames_that_are_no_number_are_an_error(check: Check, frames: Any) -> None:
    assert only(check(frames=frames), "frames", "error").correction is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.integers(1, 400))
def test_what_is_corrected_is_never_found_again(tmp_path: Path, config: dict[str, Any], frames: int) -> None:
    given_ = {**config, "frames": frames, "resolution": f"{frames + 100}x480"}
    better = corrected(given_, check_config(given_, base=tmp_path))
    left = [found for found in check_config(better, base=tmp_path) if found.correction]
    assert left == []
    assert (better["frames"] - 1) % 4 == 0 and better["frames"] <= frames


def test_frames_beyond_what_the_model_knows_are_a_warning(check: Check) -> None:
    assert "was trained on 81" in only(check(frames=85), "frames", "warning").what
    assert check(frames=81) == []


def test_frames_of_images_alone_are_a_warning_and_one_frame_is_not(check: Check, tmp_path: Path) -> None:
    make_clips(tmp_path / "stills", ending=".png")
    stills = [{"path": "stills"}]
    assert "no motion is learned" in only(check(concepts=stills), "still_images", "warning").why
    assert check(concepts=stills, frames=1) == []
    assert check(concepts=[*stills, {"path": "clips"}]) == []


@pytest.mark.parametrize("resolution", ["480", "480, 640", "832x480", 512, " 512 "])
def test_resolutions_that_both_hosts_read_are_good(check: Check, resolution: Any) -> None:
    assert check(resolution=resolution) == []


@pytest.mark.parametrize(
    ("resolution", "meant"), [("832*480", "832x480"), ("832X480", "832x480"), ("832\u00d7480", "832x480")]
)
def test_a_size_that_is_nearly_right_is_corrected(check: Check, resolution: str, meant: str) -> None:
    found = only(check(resolution=resolution), "resolution", "error")
    assert found.correction is not None and found.correction.value == meant


def test_blanks_around_the_x_which_onetrainer_reads_stop_nothing(check: Check) -> None:
    assert only(check(resolution="832 x 480"), "resolution", "warning").correction is not None


@pytest.mark.parametrize("resolution", ["", "big", "480x832,512", "0", "8", "8x480", [], {}, True, 1e9, "9" * 5000])
def test_a_resolution_that_cannot_be_used_is_an_error(check: Check, resolution: Any) -> None:
    assert only(check(resolution=resolution), "resolution", "error").correction is None


@pytest.mark.parametrize(
    ("name", "resolution", "better"),
    [
        ("WAN_2_1_T2V_1_3B", "500", "496"),
        ("WAN_2_1_T2V_1_3B", "830x470", "832x464"),
        ("WAN_2_1_T2V_1_3B", "848x480", None),
        ("WAN_2_2_TI2V_5B", "848x480", "832x480"),
        ("WAN_2_2_TI2V_5B", "512, 500", "512, 512"),
    ],
)
def test_sides_are_of_the_variants_own_multiple(
    tmp_path: Path, config: dict[str, Any], name: str, resolution: str, better: str | None
) -> None:
    changes = {"model_type": name, "base_model_name": VARIANTS[name].repository, "resolution": resolution}
    found = check_config({**config, **changes}, base=tmp_path)
    if better is None:
        assert found == []
    else:
        correction = only(found, "resolution", "warning").correction
        assert correction is not None and correction.value == better


def test_a_size_far_beyond_the_models_own_is_a_warning(check: Check) -> None:
    assert "480p" in only(check(resolution="1280x720"), "resolution", "warning").what
    large = VARIANTS["WAN_2_1_T2V_14B"]
    changes = {"model_type": large.name, "base_model_name": large.repository}
    assert check(resolution="1280x720", **changes) == []
    assert "720p" in only(check(resolution="1920x1088", **changes), "resolution", "warning").what


def test_a_width_and_height_want_bucketing(check: Check) -> None:
    found = only(check(resolution="832x480", aspect_ratio_bucketing=False), "resolution", "error")
    assert found.field == "aspect_ratio_bucketing" and found.correction is not None
    assert check(resolution="480", aspect_ratio_bucketing=False) == []


def test_a_concepts_own_resolution_is_checked_where_it_is_used(check: Check) -> None:
    image = {"enable_resolution_override": True, "resolution_override": "500"}
    found = only(check(concepts=[{"path": "clips", "image": image}]), "resolution_overrides", "warning")
    assert found.field == "concepts.0.image.resolution_override" and found.correction is not None
    image["enable_resolution_override"] = False
    assert check(concepts=[{"path": "clips", "image": image}]) == []


def test_a_concepts_own_width_and_height_want_bucketing_in_onetrainer(check: Check, check_standalone: Check) -> None:
    image = {"enable_resolution_override": True, "resolution_override": "832x480"}
    changes: dict[str, Any] = {"concepts": [{"path": "clips", "image": image}], "aspect_ratio_bucketing": False}
    found = only(check(**changes), "resolution_overrides", "error")
    assert found.field == "aspect_ratio_bucketing" and found.correction is not None
    assert check_standalone(**changes) == check(**{**changes, "aspect_ratio_bucketing": True}) == []


@pytest.mark.parametrize(
    ("text", "bucketing", "is_fatal"),
    [
        ("large", True, True),
        ("", True, True),
        ("832*480", True, True),
        ("832x480", False, True),
        ("832x480", True, False),
        ("832 x 480", True, False),
        ("512, 768", False, False),
        ("500", True, False),
    ],
)
def test_a_resolution_that_is_switched_off_is_read_by_onetrainer_all_the_same(
    check: Check, check_standalone: Check, tmp_path: Path, text: str, bucketing: bool, is_fatal: bool
) -> None:
    concept = {"path": "clips", "image": {"enable_resolution_override": False, "resolution_override": text}}
    changes = {"concepts": [concept], "aspect_ratio_bucketing": bucketing}
    assert [found.severity for found in check(**changes)] == ["error"] * is_fatal
    assert check_standalone(**changes) == []
    (tmp_path / "empty").mkdir()
    none_of_it = {**changes, "concepts": [{"path": "clips"}, {**concept, "path": "empty"}]}
    assert [found.rule for found in check(**none_of_it)] == ["empty_concepts"]  # it is read for each clip


def test_other_model_types_are_not_held_to_wans_frames_and_sizes(check: Check) -> None:
    other = {"model_type": "HUNYUAN_VIDEO", "base_model_name": "hunyuanvideo-community/HunyuanVideo"}
    assert check(frames=32, resolution="500", timestep_shift=0, **other) == []
