"""How pictures suit a preset's sizes: what is enlarged or much cropped is told, what fits is left alone."""

from __future__ import annotations

import pytest

from wan_fixes.hosts.standalone.bucket_sizes import Size, buckets_of, covering_size
from wan_fixes.hosts.standalone.picture_rules import Finding, Placement, findings


def said(width: int, height: int, resolution: str, *, bucketing: bool = True) -> dict[str, Finding]:
    sizes = buckets_of(height / width, resolution, 16, squares_only=not bucketing)
    placed = tuple(Placement((height, width), size, resolution, not bucketing, 16) for size in sizes)
    return {finding.rule: finding for finding in findings(placed)}


@pytest.mark.parametrize(
    ("size", "resolution"),
    [
        ((1920, 1080), "832x480"),
        ((832, 480), "832x480"),
        ((854, 480), "480"),
        ((640, 480), "512"),  # 1.1 times at most
        ((1080, 1920), "480, 640"),
        ((4096, 1024), "512"),
    ],
)
def test_what_fits_is_left_alone(size: Size, resolution: str):
    assert said(*size, resolution) == {}


def test_a_small_picture_is_told_from_what_to_what_it_is_enlarged():
    found = said(320, 240, "832x480")
    assert found["too_small"].reason == "320x240 is enlarged 2.6 times to 832x624, of which 832x480 is used"
    assert found["too_small"].fix == "lower the resolution, or use a larger source"


def test_of_several_resolutions_the_largest_is_told():
    found = said(512, 512, "256, 512, 768")
    assert found["too_small"].reason == "512x512 is enlarged 1.5 times to 768x768"
    assert said(512, 512, "256, 512") == {}


@pytest.mark.parametrize(
    ("size", "resolution", "bucketing", "reason", "fix"),
    [
        (
            (1280, 720), "480", False,
            "44 % of its picture is cut off left and right: 1280x720 is trained at 480x480",
            "switch aspect ratio bucketing on, or crop it yourself",
        ),
        (
            (1080, 1920), "832x480", True,
            "68 % of its picture is cut off at the top and bottom: 1080x1920 is trained at 832x480",
            'write the resolution as "624", with aspect ratio bucketing on, or crop it yourself',
        ),
        (
            (6000, 1000), "512", True,
            "33 % of its picture is cut off left and right: 6000x1000 is trained at 1024x256",
            "no bucket is longer than 4 to 1: crop it yourself",
        ),
        (
            (640, 480), "48", True,
            "33 % of its picture is cut off at the top and bottom: 640x480 is trained at 64x32",
            "raise the resolution, which makes buckets of more shapes, or crop it yourself",
        ),
    ],
)  # fmt: skip
def test_a_picture_of_which_much_is_cut_off_is_told_how_much_and_what_keeps_more(
    size: Size, resolution: str, bucketing: bool, reason: str, fix: str
):
    assert said(*size, resolution, bucketing=bucketing) == {"wrong_aspect": Finding("wrong_aspect", reason, fix)}


@pytest.mark.parametrize("size", [(1000, 801), (801, 1000)])
def test_a_fifth_may_be_cut_off(size: Size):
    assert said(*size, "480", bucketing=False) == {}
    narrower = (size[0] - 2, size[1]) if size[0] < size[1] else (size[0], size[1] - 2)
    assert "wrong_aspect" in said(*narrower, "480", bucketing=False)


@pytest.mark.parametrize(
    ("size", "bucket"), [((300, 200), (480, 832)), ((1080, 1920), (480, 480)), ((90, 40), (64, 64))]
)
def test_the_measures_are_those_of_scaling_and_cropping(size: Size, bucket: Size):
    placement = Placement(size, bucket, "512", False, 16)
    scaled = covering_size(size, bucket)
    assert placement.enlargement == pytest.approx(scaled[0] / size[0], rel=0.02)
    assert placement.cut_off == pytest.approx(1 - bucket[0] * bucket[1] / (scaled[0] * scaled[1]), abs=0.01)
