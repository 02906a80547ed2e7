"""Well-formed clips of every container and codec at hand: each must be used, whatever its bits look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

from .cases import FRAMES, RATE, Case, Serves
from .making import GROUPS, MPEG, OPEN_GROUPS, X264, X265, clip, clip_of, under_name

_LIVE = {"live": "1"}
_VPX = {"b": "800k", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime", "cpu-used": "8"}
_AV1 = {"preset": "8", "crf": "5", "svtav1-params": "keyint=12"}
_INTERLACED = {"flags": "+ilme+ildct", "bf": "2", "g": "12"}


def _case(name: str, file: str, *, truth: Serves | None = None, **options: Any) -> Case:
    encoder = options.get("encoder", "libx264")
    return Case(name=name, file=file, make=clip_of(**options), truth=truth or Serves(), encoder=encoder)


def _flagged(flags: str, **options: Any) -> dict[str, Any]:
    return {"container_options": {"movflags": flags}, **options}


def _grey_levels(path: Path) -> None:
    """Frames too small for a painted number: their grey level is it, without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 2, 2, "bgr0"
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((2, 2, 3), 4 * number, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _grey_level(frame: np.ndarray) -> int:
    return round(float(frame.mean()) / 4)


CASES = (
    _case("h264 without b-frames", "plain.mp4", options=X264 | {"g": "12", "bf": "0"}),
    _case("h264 with b-frames", "pyramid.mp4", options=X264 | {"g": "24", "bf": "4",
          "x264-params": "b-pyramid=normal"}),
    _case("h264 of one key frame", "one_key.mp4", options=X264 | {"g": "250"}),
    _case("h264 of key frames only", "all_keys.mp4", options=X264 | {"g": "1"}),
    _case("h264 with open groups", "open.mp4", options=OPEN_GROUPS),
    _case("h264 with open groups in mkv", "open.mkv", options=OPEN_GROUPS),
    _case("h264 with intra refresh", "refresh.mp4", options=X264 | {"g": "24", "intra-refresh": "1"}),
    _case("h264 in slices", "slices.mp4", options=GROUPS | {"slices": "4"}),
    _case("index first", "faststart.mp4", **_flagged("+faststart")),
    _case("fragmented", "fragmented.mp4", **_flagged("frag_keyframe+empty_moov")),
    _case("fragmented without an index at the end", "unindexed.mp4",
          **_flagged("frag_keyframe+empty_moov+skip_trailer")),
    _case("fragmented for streaming", "cmaf.mp4", **_flagged("cmaf+frag_every_frame")),
    _case("negative offsets of composition", "offsets.mp4", **_flagged("negative_cts_offsets")),
    _case("mov", "plain.mov"),
    Case(name="mp4 called m4v", file="plain.m4v", make=under_name(".mp4", clip), truth=Serves(), encoder="libx264"),
    _case("hevc", "hevc.mp4", encoder="libx265", options=X265),
    _case(
        "hevc with open groups", "hevc_open.mkv", encoder="libx265",
        options=X265 | {"x265-params": "log-level=none:open-gop=1:keyint=12"},
    ),
    _case("vp8 with hidden frames", "vp8.webm", encoder="libvpx", options=_VPX),
    _case("vp9 with hidden frames", "vp9.webm", encoder="libvpx-vp9", options=_VPX | {"deadline": "good"}),
    _case("vp9 in mp4", "vp9.mp4", encoder="libvpx-vp9", options=_VPX),
    _case("vp9 with an alpha channel", "vp9_alpha.webm", encoder="libvpx-vp9", options=_VPX | {"auto-alt-ref": "0"},
          pixel_format="yuva420p"),
    _case("av1", "av1.webm", encoder="libsvtav1", options=_AV1, truth=Serves(facts={"codec": "av1"})),
    _case("av1 in mp4", "av1.mp4", encoder="libsvtav1", options=_AV1, truth=Serves(facts={"codec": "av1"})),
    _case("program stream", "program.mpeg", encoder="mpeg2video", options=MPEG),
    _case("program stream of mpeg 1", "program1.mpeg", encoder="mpeg1video", options=MPEG),
    Case(name="transport stream", file="transport.mpeg", make=under_name(".ts", clip), truth=Serves(),
          encoder="libx264"),
    Case(name="blu-ray's transport stream", file="bluray.mov", make=under_name(".m2ts", clip), truth=Serves(),
         encoder="libx264"),
    Case(
        name="hevc in a transport stream", file="hevc.mpeg", encoder="libx265", truth=Serves(),
        make=under_name(".ts", clip_of(encoder="libx265", options=X265)),
    ),
    _case("mpeg2 in mkv", "mpeg2.mkv", encoder="mpeg2video", options=MPEG),
    _case("live recording", "live.mkv", container_options=_LIVE),
    _case("live recording of vp9", "live.webm", encoder="libvpx-vp9", options=_VPX, container_options=_LIVE),
    _case("wmv", "wmv2.wmv", encoder="wmv2", options={"qscale": "3"}),
    _case("wmv of the first sort", "wmv1.wmv", encoder="wmv1", options={"qscale": "3"}),
    _case("flv", "h264.flv", options=GROUPS),
    _case("flv of sorenson", "sorenson.flv", encoder="flv", options={"qscale": "3"}),
    _case("h264 with b-frames in avi", "reordered.avi", options=X264 | {"bf": "3"}),
    _case("mpeg4 with b-frames in avi", "mpeg4.avi", encoder="mpeg4", options=MPEG),
    _case("divx 3 in avi", "divx3.avi", encoder="msmpeg4", options={"qscale": "3"}),
    _case("bare mpeg4", "bare.m4v", encoder="mpeg4", options={"qscale": "3", "bf": "2"}),
    _case("vp8 in mkv", "vp8.mkv", encoder="libvpx", options=_VPX),
    _case("mjpeg of full range", "mjpeg.avi", encoder="mjpeg", pixel_format="yuvj420p", options={"qscale": "3"},
          truth=Serves(facts={"colour_range": "full"})),
    _case("prores of 10 bits", "prores.mov", encoder="prores_ks", pixel_format="yuv422p10le", options={},
          truth=Serves(facts={"bit_depth": 10})),
    _case("prores with an alpha channel", "prores4444.mov", encoder="prores_ks", pixel_format="yuva444p10le",
          options={}),
    _case("png with an alpha channel", "png.mov", encoder="png", pixel_format="rgba", options={}),
    _case("animation of quicktime", "qtrle.mov", encoder="qtrle", pixel_format="argb", options={}),
    _case("ffv1", "ffv1.mkv", encoder="ffv1", options={}),
    _case("ffv1 of 16 bits", "ffv1_16.mkv", encoder="ffv1", pixel_format="yuv444p16le", options={},
          truth=Serves(facts={"bit_depth": 16})),
    _case("huffyuv", "huffyuv.avi", encoder="huffyuv", pixel_format="yuv422p", options={}),
    _case("ffvhuff", "ffvhuff.avi", encoder="ffvhuff", options={}),
    _case("utvideo", "utvideo.avi", encoder="utvideo", options={}),
    _case("magicyuv", "magicyuv.avi", encoder="magicyuv", options={}),
    _case("raw video", "raw.avi", encoder="rawvideo", options={}),
    _case("raw video in mov", "raw.mov", encoder="rawvideo", pixel_format="uyvy422", options={}),
    _case("raw rgb", "bgr.avi", encoder="rawvideo", pixel_format="bgr24", options={}),
    _case("uncompressed of 10 bits", "v210.mov", encoder="v210", pixel_format="yuv422p10le", options={}),
    _case("jpeg 2000", "jpeg2000.mov", encoder="jpeg2000", options={}),
    _case("wavelets", "snow.avi", encoder="snow", options={"qscale": "2"}),
    _case("10 bits", "ten.mp4", options=GROUPS, pixel_format="yuv420p10le", truth=Serves(facts={"bit_depth": 10})),
    _case("hevc of 10 bits", "ten_hevc.mkv", encoder="libx265", options=X265, pixel_format="yuv420p10le",
          truth=Serves(facts={"bit_depth": 10})),
    _case("4:4:4", "full_chroma.mp4", options=GROUPS, pixel_format="yuv444p"),
    _case("4:2:2", "half_chroma.mp4", options=GROUPS, pixel_format="yuv422p"),
    _case("rgb in h264", "rgb.mkv", encoder="libx264rgb", options=GROUPS, pixel_format="rgb24",
          truth=Serves(facts={"colour_matrix": "rgb"})),
    _case("grey", "grey.mp4", options=GROUPS, pixel_format="gray"),
    _case("grey of 10 bits", "grey10.mkv", encoder="ffv1", pixel_format="gray10le", options={}),
    _case("interlaced", "interlaced.mp4", options=X264 | _INTERLACED),
    _case("interlaced mpeg2", "interlaced.mpeg", encoder="mpeg2video", options=MPEG | _INTERLACED),
    _case("odd size", "odd.mkv", size=(101, 75), pixel_format="yuv444p", truth=Serves(size=(101, 75))),
    _case("odd size with halved chroma", "odd.avi", encoder="ffv1", size=(101, 75), options={},
          truth=Serves(size=(101, 75))),
    _case("a strip", "strip.mp4", size=(400, 48), truth=Serves(size=(400, 48))),
    Case(name="four pixels", file="four.mkv", make=_grey_levels, truth=Serves(size=(2, 2), read=_grey_level),
         encoder="ffv1"),
    _case("one frame", "one.mp4", numbers=range(1), truth=Serves(numbers=(0,))),
    _case("one frame in mkv", "one.mkv", numbers=range(1), truth=Serves(numbers=(0,))),
    _case("three frames", "three.mp4", numbers=range(3), truth=Serves(numbers=(0, 1, 2))),
    _case("three frames in webm", "three.webm", numbers=range(3), encoder="libvpx-vp9", options=_VPX,
          truth=Serves(numbers=(0, 1, 2))),
    Case(name="webm called mp4", file="webm.mp4", encoder="libvpx-vp9", truth=Serves(),
         make=under_name(".webm", clip_of(encoder="libvpx-vp9", options=_VPX))),
    Case(name="mp4 called mkv", file="mp4.mkv", make=under_name(".mp4", clip), truth=Serves(), encoder="libx264"),
    Case(name="avi called mov", file="avi.mov", encoder="mpeg4", truth=Serves(),
         make=under_name(".avi", clip_of(encoder="mpeg4", options=MPEG))),
    Case(name="mxf called mpeg", file="mxf.mpeg", encoder="mpeg2video", truth=Serves(),
         make=under_name(".mxf", clip_of(encoder="mpeg2video", options=MPEG))),
    Case(name="nut called avi", file="nut.avi", encoder="mpeg4", truth=Serves(),
         make=under_name(".nut", clip_of(encoder="mpeg4", options=MPEG))),
    Case(name="ogg called mkv", file="ogg.mkv", encoder="libvpx", truth=Serves(),
         make=under_name(".ogv", clip_of(encoder="libvpx", options=_VPX))),
)  # fmt: skip
