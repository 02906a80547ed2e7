"""Clips that are good but mislead: times that jump, hidden frames, turned pictures, odd colours, several streams."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from clips import write_clip
from mp4_boxes import set_rotation

from .cases import FRAMES, RATE, SIZE, Case, Rejected, Serves, Truth
from .making import (
    GROUPS,
    MPEG,
    OPEN_GROUPS,
    TS_PACKET,
    X264,
    X265,
    add_sound,
    box,
    changed,
    clip,
    clip_of,
    cut,
    picture,
    under_name,
)

_VP9 = {"b": "800k", "deadline": "realtime", "cpu-used": "8"}
_HD = (1280, 720)
_HD_FRAMES = 4
#: 33 bits of 90 kHz (ISO 13818-1, 2.4.3.7): the time at which the clock of a transport stream begins anew.
_WRAP_SECONDS = Fraction(1 << 33, 90000)
_HOLE = (*range(20), *range(95, 111))  # 3 s without a frame


def _case(name: str, file: str, make: Callable[[Path], object], truth: Truth | None = None, **more: Any) -> Case:
    return Case(name=name, file=file, make=make, truth=truth or Serves(), **{"encoder": "libx264", **more})


# Times


def _ticks(lengths: Iterable[int], count: int = FRAMES) -> tuple[int, ...]:
    """When `count` frames begin that last `lengths`, over and over."""
    return tuple(itertools.islice(itertools.accumulate(itertools.cycle(lengths), initial=0), count))


def _variable(name: str, file: str, ticks: tuple[int, ...], rate: int = 60, suffix: str = "", **options: Any) -> Case:
    times = tuple(tick / rate for tick in ticks)
    truth = Serves(
        numbers=tuple(range(len(ticks))), rate=(len(ticks) - 1) / times[-1], times=times,
        facts={"is_variable_rate": True},
    )  # fmt: skip
    make = clip_of(rate=rate, ticks=ticks, numbers=range(len(ticks)), **options)
    make = under_name(suffix, make) if suffix else make
    return _case(name, file, make, truth, encoder=options.get("encoder", "libx264"))


def _rated(name: str, file: str, rate: Fraction | int, **options: Any) -> Case:
    encoder = options.get("encoder", "libx264")
    return _case(name, file, clip_of(rate=rate, **options), Serves(rate=float(rate)), encoder=encoder)


def _late(
    name: str, file: str, *, suffix: str = "", start: Fraction | int = 5, exact: bool = False, **options: Any
) -> Case:
    """The first frame is `start` seconds into the container's time; not all containers keep that to the unit."""
    first = round(start * RATE)
    make = clip_of(ticks=range(first, first + FRAMES), **options)
    make = under_name(suffix, make) if suffix else make
    truth = Serves(facts={"start_seconds": float(start)} if exact else {})
    return _case(name, file, make, truth, encoder=options.get("encoder", "libx264"))


def _started_at(first: int, **options: Any) -> Callable[[Path], Path]:
    return clip_of(ticks=range(first, first + FRAMES), **options)


def _joined_midway(path: Path) -> None:
    """A recording begun in the middle of a group: its first key frame is that of frame 12."""
    whole = clip(path.with_suffix(".ts")).read_bytes()
    path.with_suffix(".ts").unlink()
    path.write_bytes(whole[len(whole) // TS_PACKET // 6 * TS_PACKET :])


def _cut_midway(start: Fraction, zero: Fraction, options: dict[str, str]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        whole = clip(path.with_name("whole.mp4"), options=options)
        leading = cut(whole, path, start, new_zero=zero)
        whole.unlink()
        if options is OPEN_GROUPS and not leading:
            raise ValueError("no frame comes before the key frame: these groups are not open")

    return make


def _edited(change: Callable[[int, int], tuple[int, int]]) -> Callable[[Path], object]:
    """An edit list whose only entry, duration and start, is changed (ISO 14496-12, 8.6.6)."""

    def edit(content: bytearray) -> None:
        start, _ = box(content, b"moov", b"trak", b"edts", b"elst")
        duration, media_time = struct.unpack_from(">Ii", content, start + 8)
        struct.pack_into(">Ii", content, start + 8, *change(duration, media_time))

    return changed(clip, edit)


def _without_durations(content: bytearray) -> None:
    movie, _ = box(content, b"moov", b"mvhd")
    track, _ = box(content, b"moov", b"trak", b"tkhd")
    media, _ = box(content, b"moov", b"trak", b"mdia", b"mdhd")
    for at in (movie + 16, track + 20, media + 16):  # version 0: ISO 14496-12, 8.2.2, 8.3.2, 8.4.2
        struct.pack_into(">I", content, at, 0)


def _gaps_in_avi(path: Path) -> None:
    clip(path, encoder="mpeg4", options={"qscale": "3"}, ticks=_ticks((1, 1, 2)), rate=RATE)


# Pictures


def _turned(degrees: int) -> Case:
    def make(path: Path) -> None:
        write_clip(path, (np.rot90(picture(k), degrees // 90) for k in range(FRAMES)), rate=RATE, options=GROUPS)
        set_rotation(path, degrees)

    return _case(f"turned by {degrees}", f"turned{degrees}.mp4", make, Serves(facts={"rotation": degrees}))


def _mirrored(path: Path) -> None:
    write_clip(path, (picture(k)[:, ::-1] for k in range(FRAMES)), rate=RATE, options=GROUPS)
    content = bytearray(path.read_bytes())
    track, _ = box(content, b"moov", b"trak", b"tkhd")
    struct.pack_into(">i", content, track + 40, -0x10000)
    path.write_bytes(content)


def _coloured(
    name: str, file: str, size: tuple[int, int], matrix: str, tags: dict[str, str], *, assumed: bool = False,
    full: bool = False, warning: str = "", frames: int = FRAMES, **options: Any
) -> Case:  # fmt: skip
    """A clip with or without tags of its colours, whose matrix must be found."""
    facts = {"colour_matrix": matrix, "colour_assumed": assumed, "colour_range": "full" if full else "limited"}
    truth = Serves(numbers=tuple(range(frames)), size=size, warning=warning, facts=facts)
    options = {"options": GROUPS, **options}
    make = clip_of(size=size, numbers=range(frames), **options | {"options": options["options"] | tags})
    return _case(name, file, make, truth, encoder=options.get("encoder", "libx264"))


def _changing(second: dict[str, Any], *, size: tuple[int, int] = SIZE) -> Callable[[Path], None]:
    """Two recordings, one after the other in one transport stream."""

    def make(path: Path) -> None:
        half = FRAMES // 2
        parts = [path.with_name(f"{number}.ts") for number in range(2)]
        clip(parts[0], numbers=range(half))
        clip(parts[1], numbers=range(half, FRAMES), size=size, ticks=range(half, FRAMES), **second)
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        for part in parts:
            part.unlink()

    return make


# Streams


def _streams(
    *,
    sizes: tuple[tuple[int, int], ...] = (SIZE,),
    shown: int = 0,
    sounds: int = 0,
    data: bool = False,
    cover: bool = False,
) -> Callable[[Path], None]:
    """A file of several streams, of which the one that players show is painted with the numbers from 0 on."""

    def make(path: Path) -> None:
        with av.open(str(path), "w") as container:
            art = _cover_stream(container) if cover else None
            videos = [_video_stream(container, size) for size in sizes]
            videos[shown].disposition = type(videos[shown].disposition).default.value
            tones = [container.add_stream("aac", rate=16000, layout="mono") for _ in range(sounds)]
            timed = container.add_data_stream() if data else None
            if art is not None:
                container.mux(art.encode(av.VideoFrame.from_ndarray(picture(200, 240, 240), format="rgb24")))
                container.mux(art.encode(None))
            for place, (video, size) in enumerate(zip(videos, sizes, strict=True)):
                for number in range(FRAMES):
                    painted = picture(number if place == shown else 200 + number, *size)
                    container.mux(video.encode(av.VideoFrame.from_ndarray(painted, format="rgb24")))
                container.mux(video.encode(None))
            for tone in tones:
                add_sound(container, tone, FRAMES / RATE)
            if timed is not None:
                for second in range(2):
                    packet = av.Packet(f"{second} s".encode())
                    packet.stream, packet.pts, packet.dts = timed, second * 1000, second * 1000
                    packet.time_base = Fraction(1, 1000)
                    container.mux(packet)

    return make


def _cover_stream(container: Any) -> Any:
    art = container.add_stream("mjpeg", rate=1)
    art.width, art.height, art.pix_fmt = 240, 240, "yuvj420p"
    art.disposition = type(art.disposition).attached_pic.value
    return art


def _video_stream(container: Any, size: tuple[int, int]) -> Any:
    video = container.add_stream("libx264", rate=RATE, options=GROUPS)
    video.width, video.height, video.pix_fmt = *size, "yuv420p"
    video.codec_context.thread_count = 1
    return video


_CUT = Serves(numbers=tuple(range(17, FRAMES)))
_FROM_KEY = Serves(numbers=tuple(range(12, FRAMES)))
_HD_SIZE: dict[str, Any] = {"frames": _HD_FRAMES}

CASES = (
    _variable("variable rate", "variable.mp4", _ticks((1, 3, 2, 2, 5))),
    _variable("variable rate in mkv", "variable.mkv", _ticks((1, 3, 2, 2, 5))),
    _variable("variable rate of vp9", "variable.webm", _ticks((1, 1, 1, 9)), encoder="libvpx-vp9", options=_VP9),
    _variable("telecine", "telecine.mkv", _ticks((2, 3))),
    _variable("a screen recording", "screen.mp4", _ticks((1, 1, 40, 1, 7, 1, 1, 25))),
    _variable("bursts", "bursts.mp4", _ticks((1,) * 9 + (20,))),
    _variable("a hole of 3 seconds", "hole.mp4", _HOLE, rate=RATE),
    _variable("a hole of 3 seconds in mkv", "hole.mkv", _HOLE, rate=RATE),
    _variable("a hole of 3 seconds in a transport stream", "hole.mpeg", _HOLE, rate=RATE, suffix=".ts"),
    _variable("a rate that slows down", "slower.mp4", _ticks(range(1, FRAMES))),
    _variable("dropped frames in avi", "drops.avi", _ticks((1, 1, 2)), rate=RATE, encoder="mpeg4",
              options={"qscale": "3"}),
    _rated("a clock of 600", "clock600.mov", 24, container_options={"video_track_timescale": "600"}),
    _rated("a clock of 90000", "clock90k.mp4", Fraction(30000, 1001),
          container_options={"video_track_timescale": "90000"}),
    _rated("ntsc against a clock of 600", "ntsc600.mov", Fraction(30000, 1001),
           container_options={"video_track_timescale": "600"}),
    _rated("ntsc film", "film.mkv", Fraction(24000, 1001)),
    _rated("120 frames a second", "fast.mp4", 120),
    _rated("1000 frames a second", "fastest.mp4", 1000),
    _rated("1000 frames a second in mkv", "fastest.mkv", 1000),
    _rated("one frame a second", "slow.mp4", 1),
    _rated("12.5 frames a second", "half.avi", Fraction(25, 2), encoder="mpeg4", options=MPEG),
    _late("late start", "late.mp4", exact=True),
    _late("late start in mkv", "late.mkv"),
    _late("late start in a transport stream", "late.mpeg", suffix=".ts"),
    _late("late start in a program stream", "late_program.mpeg", encoder="mpeg2video", options=MPEG),
    _late("late start in flv", "late.flv"),
    _late("late start in fragments", "late_fragments.mp4", container_options={"movflags": "frag_keyframe+empty_moov"}),
    _late("a clock that begins anew", "wrapping.mpeg", suffix=".ts", start=_WRAP_SECONDS - Fraction(1, 2)),
    _case("start before zero", "negative.mp4", _started_at(-5), Serves(numbers=tuple(range(5, FRAMES)))),
    _case("start before zero in nut", "negative.avi",
          under_name(".nut", _started_at(-5, encoder="mpeg4", options=MPEG)), encoder="mpeg4"),
    _case("start before zero in fragments", "negative_fragments.mp4",
          _started_at(-5, container_options={"movflags": "frag_keyframe+empty_moov", "avoid_negative_ts": "disabled"})),
    _case("joined midway", "joined.mpeg", _joined_midway, _FROM_KEY),
    _case("cut within a group", "cut.mp4", _cut_midway(Fraction(17, RATE), Fraction(17, RATE), GROUPS), _CUT),
    _case("cut within an open group", "cut_open.mp4",
          _cut_midway(Fraction(17, RATE), Fraction(17, RATE), OPEN_GROUPS), _CUT),
    *(
        _case(f"cut at a key frame of an open group, which is at {zero} then, in {suffix}", f"cut_key{zero}.{suffix}",
              _cut_midway(Fraction(14, RATE), Fraction(12 - zero, RATE), OPEN_GROUPS), _FROM_KEY)
        for suffix in ("mkv", "mp4") for zero in (0, 12)
    ),
    _case("an edit list that ends early", "edit_end.mp4", _edited(lambda duration, start: (duration * 2 // 3, start)),
          Serves(numbers=tuple(range(24)))),
    _case("an edit list of no length", "edit_zero.mp4", _edited(lambda _, start: (0, start)),
          Rejected(reason="its edit list hides every frame", fix="ignore_editlist")),
    _case("headers without durations", "no_durations.mp4", changed(clip, _without_durations)),
    *map(_turned, (90, 180, 270)),
    _case("mirrored", "mirrored.mp4", _mirrored),
    _case("wide pixels", "wide.mp4", clip_of(options=GROUPS | {"aspect": "32:27"}), Serves(size=(133, 80))),
    _case("high pixels", "high.mkv", clip_of(options=GROUPS | {"aspect": "8:9"}), Serves(size=(112, 90))),
    _case("an impossible aspect", "thin.mp4", clip_of(options=GROUPS | {"aspect": "6:1"}),
          Serves(warning="taken as square")),
    _coloured("untagged", "untagged.mp4", SIZE, "bt601", {}, assumed=True),
    _coloured("untagged hd", "untagged_hd.mp4", _HD, "bt709", {}, assumed=True, **_HD_SIZE),
    _coloured("hd tagged 601", "hd601.mp4", _HD, "bt601", {"colorspace": "smpte170m"}, **_HD_SIZE),
    _coloured("small and tagged 709", "tagged709.mkv", SIZE, "bt709", {"colorspace": "bt709"}),
    _coloured("tagged 2020", "tagged2020.mp4", SIZE, "bt2020", {"colorspace": "bt2020nc"}),
    _coloured("full range", "full.mp4", SIZE, "bt709", {"colorspace": "bt709"}, full=True, pixel_format="yuvj420p"),
    _coloured("high dynamic range of cinemas", "pq.mp4", SIZE, "bt2020",
              {"colorspace": "bt2020nc", "color_trc": "smpte2084"}, warning="PQ", encoder="libx265", options=X265,
              pixel_format="yuv420p10le"),
    _coloured("high dynamic range of television", "hlg.mkv", SIZE, "bt2020",
              {"colorspace": "bt2020nc", "color_trc": "arib-std-b67"}, warning="HLG", encoder="libx265", options=X265,
              pixel_format="yuv420p10le"),
    _case("a size that changes", "size_change.mpeg", _changing({}, size=(80, 64))),
    _case("pixels that change", "pixel_change.mpeg", _changing({"pixel_format": "yuv444p"})),
    _case("a codec's settings that change", "settings_change.mpeg",
          _changing({"options": X264 | {"bf": "0", "refs": "1"}})),
    _case("several videos, the last of which is the one to show", "videos.mp4",
          _streams(sizes=(SIZE, (160, 120)), shown=1), Serves(size=(160, 120), warning="2 video streams")),
    _case("several videos that players can't tell apart", "videos.mkv", _streams(sizes=(SIZE, (160, 120))),
          Serves(warning="2 video streams", facts={"video_streams": 2})),
    _case("a cover larger than the video", "cover.mp4", _streams(cover=True), Serves(facts={"video_streams": 1})),
    _case("several languages", "languages.mkv", _streams(sounds=2)),
    _case("sound in a transport stream", "sound.mpeg", under_name(".ts", _streams(sounds=1))),
    _case("measurements beside it", "data.mpeg", under_name(".ts", _streams(sounds=1, data=True))),
    _case("rubbish behind it", "rubbish.mp4", changed(clip, lambda content: content + bytes(range(256)) * 40)),
    _case("rubbish behind it in mkv", "rubbish.mkv", changed(clip, lambda content: content + bytes(range(256)) * 40)),
    _case("zeros behind it", "zeros.mp4", changed(clip, lambda content: content + bytes(10000))),
    _case("rubbish behind it in a transport stream", "rubbish.mpeg",
          changed(under_name(".ts", clip), lambda content: content + bytes(range(256)) * 40)),
    _case("rubbish before a transport stream", "rubbish_first.mpeg",
          changed(under_name(".ts", clip), lambda content: b"recorded by a box" * 9 + content)),
)  # fmt: skip
