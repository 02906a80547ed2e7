"""What counts as a usable value, and the validator of the seed document."""

from __future__ import annotations

import logging

import pytest
import torch
from clips import write_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import paint_frame

from wan_fixes.health import MemoryStats, Metrics
from wan_fixes.pipeline import DataFlowValidator, ValidationResult
from wan_fixes.pipeline import validator as validator_module
from wan_fixes.pipeline.checks import EDGE_CHECK_VALUES, describe, problem_at_edge, problem_with
from wan_fixes.pipeline.validator import ItemSpec
from wan_fixes.settings import Settings

BAD_NUMBERS = [float("nan"), float("inf"), -float("inf")]


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e5m2]),
    bad=st.sampled_from(BAD_NUMBERS),
    data=st.data(),
)
def test_one_bad_number_anywhere_in_a_tensor_is_found(shape, dtype, bad, data):
    tensor = torch.zeros(shape, dtype=torch.float32)
    assert problem_with(tensor.to(dtype)) is None
    tensor.view(-1)[data.draw(st.integers(0, tensor.numel() - 1))] = bad
    assert problem_with(tensor.to(dtype)) == f"has 1 of {tensor.numel()} values that are NaN or infinite"
    assert problem_at_edge(tensor.to(dtype)) is not None


CLIP = (3, 9, 240, 416)


@pytest.mark.parametrize("place", [0, 1_234_567, -1])
def test_one_nan_in_a_whole_clip_is_found_by_the_full_check(place):
    clip = torch.zeros(CLIP, dtype=torch.bfloat16)
    clip.view(-1)[place] = float("nan")
    assert problem_with(clip) == f"has 1 of {clip.numel()} values that are NaN or infinite"


@pytest.mark.parametrize("contiguous", [True, False])
def test_one_bad_frame_in_a_whole_clip_is_found_by_the_quick_check(contiguous):
    clip = torch.zeros(CLIP)
    clip[:, 5] = float("nan")
    assert clip.numel() > EDGE_CHECK_VALUES
    assert problem_at_edge(clip if contiguous else clip.transpose(2, 3)) is not None


def test_the_quick_check_lets_good_large_tensors_pass():
    large = torch.zeros(EDGE_CHECK_VALUES + 1)
    assert problem_at_edge(large) is None
    assert problem_at_edge(large.to(torch.uint8)) is None
    assert problem_at_edge(large.to(torch.float8_e4m3fn)) is None
    assert problem_at_edge(torch.empty(EDGE_CHECK_VALUES + 1, device="meta")) == "has no data"


@settings(deadline=None)
@given(
    bad=st.sampled_from([torch.tensor([1.0, float("nan")]), torch.zeros(0), float("nan"), float("inf")]),
    wraps=st.lists(st.sampled_from(["list", "tuple", "dict"]), min_size=1, max_size=5),
)
def test_a_bad_number_is_found_at_any_depth(bad, wraps):
    value = bad
    for wrap in wraps:
        value = {"dict": {"a": 1, "b": value}, "list": [1, value], "tuple": ("x", value)}[wrap]
    is_setting = isinstance(bad, float) and "dict" in wraps
    assert (problem_with(value) is None) == is_setting


def test_the_statistics_that_onetrainer_keeps_in_a_concept_are_no_problem():
    assert problem_with({"loss_weight": 1.0, "concept_stats": {"max_fps": [float("inf"), "a.mp4"]}}) is None


@pytest.mark.parametrize("value", ["", 0, [], {}, {"a": None}, [None, 1], object(), torch.zeros(1, dtype=torch.bool)])
def test_what_is_no_number_is_no_problem(value):
    assert problem_with(value) is None


def test_describe_gives_type_and_shape():
    assert describe(torch.zeros(2, 3, dtype=torch.bfloat16)) == "bfloat16 [2, 3]"
    assert describe((1, 2)) == "tuple of 2"
    assert describe(None) == "NoneType"


# Schemas


@pytest.mark.parametrize(
    ("value", "spec", "problem"),
    [
        (None, ItemSpec(str), "expected str, got None"),
        (None, ItemSpec(str, optional=True), None),
        (1, ItemSpec(str), "expected str, got int"),
        ("text", ItemSpec(str), None),
        (torch.zeros(3, 5, 8, 8), ItemSpec(torch.Tensor, (3, None, 8, 8)), None),
        (torch.zeros(3, 8), ItemSpec(torch.Tensor, (3, None, 8)), "expected Tensor [3, *, 8], got float32 [3, 8]"),
        (torch.zeros(4, 5), ItemSpec(torch.Tensor, (3, None)), "expected Tensor [3, *], got float32 [4, 5]"),
        (torch.tensor([float("nan")]), ItemSpec(torch.Tensor), "has 1 of 1 values that are NaN or infinite"),
    ],
)
def test_a_difference_is_said_as_expected_against_actual(value, spec, problem):
    assert spec.problem(value) == problem


def test_an_item_is_valid_when_it_fits_the_schema_and_each_difference_is_logged(caplog):
    validator = DataFlowValidator()
    schema = {"image": ItemSpec(torch.Tensor, (3, None, None)), "prompt": str}
    assert validator.validate_pipeline_item({"image": torch.zeros(3, 4, 4), "prompt": "", "more": None}, schema)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert not validator.validate_pipeline_item({"image": torch.zeros(1, 4, 4)}, schema)
    said = "\n".join(caplog.messages)
    assert "'image': expected Tensor [3, *, *], got float32 [1, 4, 4]" in said
    assert "'prompt': expected str, got None" in said


@pytest.mark.parametrize("item", [None, [1], "text"])
def test_what_is_no_item_is_not_valid(item):
    assert not DataFlowValidator().validate_pipeline_item(item, {"x": int})


# Files


def painted_clip(path, frames=9, size=(64, 48)):
    return write_clip(path, (paint_frame(n, width=size[0], height=size[1]) for n in range(frames)), rate=16)


def test_a_good_video_is_valid_and_measured(tmp_path):
    result = DataFlowValidator().validate_video_file(str(painted_clip(tmp_path / "a.mp4")))
    assert isinstance(result, ValidationResult)
    assert (result.is_valid, result.error_message, result.warnings) == (True, None, [])
    assert {name: result.metadata[name] for name in ("width", "height", "frame_count", "codec")} == {
        "width": 64, "height": 48, "frame_count": 9, "codec": "h264",
    }  # fmt: skip
    assert result.processing_time > 0


@pytest.mark.parametrize("content", [None, b"", b"not a video at all", bytes(5000)])
def test_a_bad_video_is_not_valid_and_the_reason_names_it(tmp_path, content):
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    result = DataFlowValidator().validate_video_file(str(path))
    assert not result.is_valid
    assert str(path) in result.error_message
    assert result.metadata == {}


def test_the_limit_on_pixels_is_the_settings(tmp_path):
    path = str(painted_clip(tmp_path / "a.mp4"))
    result = DataFlowValidator(Settings(max_pixels_per_frame=64 * 48 - 1)).validate_video_file(path)
    assert not result.is_valid
    assert "64x48" in result.error_message


# Memory and time


def test_memory_is_measured():
    stats = DataFlowValidator().check_memory_usage()
    assert isinstance(stats, MemoryStats)
    assert 0 < stats.current_usage_mb <= stats.peak_usage_mb + 1
    assert stats.available_mb > 0


@pytest.mark.parametrize(("used", "warned"), [(94.0, False), (96.0, True)])
def test_memory_above_the_limit_is_warned_of(monkeypatch, caplog, used, warned):
    stats = MemoryStats(used, used, 100.0 - used, None, 0.0)
    monkeypatch.setattr(validator_module, "memory_stats", lambda: stats)
    assert DataFlowValidator(Settings(memory_limit_fraction=0.95)).check_memory_usage() == stats
    assert bool(caplog.records) == warned


def test_module_times_are_added_up():
    metrics = Metrics()
    validator = DataFlowValidator(metrics=metrics)
    validator.log_pipeline_metrics("vae", 1.5)
    validator.log_pipeline_metrics("vae", 0.5)
    assert metrics.snapshot() == {"vae.calls": 2, "vae.seconds": 2.0, "vae.max_seconds": 1.5}
