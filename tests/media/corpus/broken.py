"""Damaged clips: cut off, zeroed, with flipped bits, and with headers that lie about what follows."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from broken_files import BROKEN_CLIPS

from .cases import FRAMES, Begins, Case, Either, Rejected, Serves, Truth
from .making import (
    GROUPS,
    MPEG,
    X264,
    X265,
    box,
    changed,
    clip,
    clip_of,
    copy_packets,
    flip_bits,
    packet_spans,
    rename_box,
    table,
    under_name,
)

_VP9 = {"b": "800k", "deadline": "realtime", "cpu-used": "8", "g": "12"}
_FASTSTART = {"container_options": {"movflags": "+faststart"}}
_FRAGMENTS = {"container_options": {"movflags": "frag_keyframe+empty_moov"}}
_NO_INDEX = Rejected(reason="no moov atom", fix="untrunc")

#: An empty ID3v2 tag, as music programs put before everything.
_ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)

Change = Callable[[bytearray], object]


def _case(name: str, file: str, make: Callable[[Path], object], truth: Truth, encoder: str = "libx264") -> Case:
    return Case(name=name, file=file, make=make, truth=truth, encoder=encoder)


# Cut off


def _truncated(
    name: str, file: str, parts: dict[int, Truth], make: Callable[[Path], object] = clip, encoder: str = "libx264"
):
    stem, suffix = file.split(".")
    return [
        _case(
            f"{name}, cut off at {percent} %",
            f"{stem}{percent}.{suffix}",
            changed(make, lambda content, percent=percent: content[: len(content) * percent // 100]),
            truth,
            encoder,
        )
        for percent, truth in parts.items()
    ]


def _begins(*least: int, warning: bool = True) -> dict[int, Truth]:
    return {
        percent: Begins(at_least=count, warning=warning) for percent, count in zip((10, 50, 90), least, strict=True)
    }


# Damage


def _zeroed(count: int) -> Change:
    def change(content: bytearray) -> None:
        content[:count] = bytes(count)

    return change


def _without_index(content: bytearray) -> bytearray:
    start, end = box(content, b"moov")
    del content[start - 8 : end]
    return content


def _pictures_flipped(
    make: Callable[[Path], object], *, frames: slice = slice(None), bits: int = 12
) -> Callable[[Path], None]:
    """Damage in the second half of the data of some frames."""

    def made(path: Path) -> None:
        make(path)
        content = bytearray(path.read_bytes())
        for number, (start, size) in list(enumerate(packet_spans(path)))[frames]:
            flip_bits(content, start + size // 2, start + size, count=bits, seed=number)
        path.write_bytes(content)

    return made


def _table_flipped(name: bytes) -> Change:
    def change(content: bytearray) -> None:
        start, end = table(content, name)
        flip_bits(content, start, end, count=6)

    return change


def _tail_flipped(content: bytearray) -> None:
    flip_bits(content, len(content) - 600, len(content), count=40)


def _everywhere(content: bytearray) -> None:
    flip_bits(content, 0, len(content), count=40)


def _hole(content: bytearray) -> None:
    """A block of a disk that was never written."""
    middle = len(content) // 2
    content[middle : middle + 1024] = bytes(1024)


def _lost_packets(content: bytearray) -> bytearray:
    """Every 20th packet of a transport stream is lost, as over the air."""
    packets = [content[at : at + 188] for at in range(0, len(content), 188)]
    return bytearray(b"".join(packet for place, packet in enumerate(packets) if place < 8 or place % 20))


# Lies


def _set(name: bytes, offset: int, value: int) -> Change:
    def change(content: bytearray) -> None:
        start, _ = table(content, name)
        struct.pack_into(">I", content, start + offset, value)

    return change


def _scaled(name: bytes, offset: int, by: int) -> Change:
    def change(content: bytearray) -> None:
        start, _ = table(content, name)
        (value,) = struct.unpack_from(">I", content, start + offset)
        struct.pack_into(">I", content, start + offset, value * by)

    return change


def _renamed(*path: bytes) -> Change:
    return lambda content: rename_box(content, *path)


def _size_of_track(content: bytearray) -> None:
    start, _ = box(content, b"moov", b"trak", b"tkhd")
    struct.pack_into(">II", content, start + 76, 28000 << 16, 20000 << 16)


def _size_of_entry(content: bytearray) -> None:
    start, _ = table(content, b"stsd")
    struct.pack_into(">HH", content, start + 8 + 24, 56000, 40000)


def _size_in_sps(content: bytearray) -> None:
    """About 9,600 pixels each way, in place of the tail of the baseline profile's parameters (H.264, 7.3.2.1.1)."""
    record, _ = box(content, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1", b"avcC")
    (length,) = struct.unpack_from(">H", content, record + 6)
    bits = "".join(f"{byte:08b}" for byte in content[record + 8 : record + 8 + length])
    place = 32  # header, profile, constraints, level; then identifier, bits of frame numbers, kind of order, references
    for _ in range(4):
        place += 2 * (bits.index("1", place) - place) + 1
    huge = f"{0:09b}{601:b}"
    bits = f"{bits[: place + 1]}{huge}{huge}11001".ljust(8 * length, "0")
    content[record + 8 : record + 8 + length] = int(bits, 2).to_bytes(length, "big")


def _size_in_picture(path: Path, at: int, value: bytes) -> None:
    """Overwrite the size in the first packet, `at` bytes from its start."""
    start, _ = packet_spans(path)[0]
    content = bytearray(path.read_bytes())
    content[start + at : start + at + len(value)] = value
    path.write_bytes(content)


def _vp8_claims_much(path: Path) -> None:
    clip(path, encoder="libvpx", options={"b": "800k", "auto-alt-ref": "0"})
    _size_in_picture(path, 6, struct.pack("<HH", 0x3FFF, 0x3FFF))  # RFC 6386, 9.1


def _png_claims_much(path: Path) -> None:
    clip(path, encoder="png", pixel_format="rgb24", options={}, numbers=range(3))
    _size_in_picture(path, 16, struct.pack(">II", 60000, 60000))


def _avi_claims_more(content: bytearray) -> None:
    struct.pack_into("<I", content, content.index(b"avih") + 8 + 16, 10 * FRAMES)
    struct.pack_into("<I", content, content.index(b"strh") + 8 + 32, 10 * FRAMES)


def _without_first_packets(path: Path) -> None:
    """Copied by a program that doesn't look for a key frame: 5 of the 12 frames of the first group are lost."""
    whole = clip(path.with_name("whole.mp4"), options=X264 | {"g": "12", "bf": "0"})
    copy_packets(whole, path, lambda packets: packets[5:])
    whole.unlink()


def _without_key_frame(path: Path) -> None:
    """The second key frame is lost, and with it what builds on it."""
    whole = clip(path.with_name("whole.mp4"), options=X264 | {"g": "12", "bf": "0"})
    copy_packets(whole, path, lambda packets: packets[:12] + packets[13:])
    whole.unlink()


def _without_key_frames(path: Path) -> None:
    whole = clip(path.with_name("whole.mp4"), options=X264 | {"g": "12", "bf": "0"})
    copy_packets(whole, path, lambda packets: [packet for packet in packets if not packet.is_keyframe])
    whole.unlink()


def _same_time_twice(content: bytearray) -> None:
    start, _ = table(content, b"stts")
    struct.pack_into(">I", content, start + 8 + 10 * 8 + 4, 0)


def _times_swapped(content: bytearray) -> None:
    """Blocks 20 and 21 of a Matroska file change their times, which follow the track's number (RFC 9559, 10.2)."""
    spans = _simple_blocks(content)
    first, second = (spans[number] + 1 for number in (20, 21))
    content[first : first + 2], content[second : second + 2] = (
        content[second : second + 2],
        content[first : first + 2],
    )


def _simple_blocks(content: bytearray) -> list[int]:
    """Where the payload of each SimpleBlock of track 1 begins, by walking through the clusters."""
    found = []
    at = content.index(b"\x1f\x43\xb6\x75")
    while at < len(content) - 8:
        width = 8 - content[at].bit_length() + 1
        name = bytes(content[at : at + width])
        at += width
        width = 8 - content[at].bit_length() + 1
        size = int.from_bytes(content[at : at + width], "big") & ((1 << 7 * width) - 1)
        at += width
        if name == b"\xa3":
            found.append(at)
        if name not in (b"\x1f\x43\xb6\x75", b"\xa0"):  # clusters and groups are entered
            at += size
    return found


#: Good but for their length.
_SHORT = {
    kind: Serves(numbers=tuple(range(frames)), size=(160, 120), rate=16)
    for kind, frames in (("one_frame", 1), ("too_short", 3))
}
_WITHOUT_CHECK_SUMS = ("libx264", "libx265", "ffv1")
_ONE_TO_ONE = {"options": X264 | {"g": "12", "bf": "0"}}
_IN_TABLES = b"moov", b"trak", b"mdia", b"minf", b"stbl"

CASES = (
    *(
        _case(f"broken file: {kind}", f"{kind}{suffix}", make, _SHORT.get(kind, Rejected(reason=reason)))
        for kind, (suffix, reason, make) in BROKEN_CLIPS.items()
    ),
    *_truncated("mp4", "cut.mp4", dict.fromkeys((10, 50, 90), _NO_INDEX)),
    *_truncated("index first", "cut_faststart.mp4", _begins(0, 12, 28), clip_of(**_FASTSTART)),
    *_truncated("fragments", "cut_fragments.mp4", _begins(0, 12, 24), clip_of(**_FRAGMENTS)),
    *_truncated("mkv", "cut.mkv", _begins(0, 10, 26)),
    *_truncated("webm", "cut.webm", _begins(0, 10, 26), clip_of(encoder="libvpx-vp9", options=_VP9), "libvpx-vp9"),
    *_truncated("transport stream", "cut_transport.mpeg", _begins(0, 10, 26, warning=False), under_name(".ts", clip)),
    *_truncated("program stream", "cut_program.mpeg", _begins(0, 10, 26, warning=False),
                clip_of(encoder="mpeg2video", options=MPEG), "mpeg2video"),
    *_truncated("avi", "cut.avi", _begins(0, 3, 26), clip_of(encoder="mpeg4", options=MPEG), "mpeg4"),
    *_truncated("flv", "cut.flv", _begins(0, 10, 26, warning=False)),
    *_truncated("wmv", "cut.wmv", _begins(0, 10, 26), clip_of(encoder="wmv2", options={"qscale": "3"}), "wmv2"),
    *_truncated("hevc", "cut_hevc.mkv", _begins(0, 10, 26), clip_of(encoder="libx265", options=X265), "libx265"),
    *_truncated("prores", "cut_prores.mov", dict.fromkeys((10, 50, 90), _NO_INDEX),
                clip_of(encoder="prores_ks", pixel_format="yuv422p10le", options={}), "prores_ks"),
    _case("header of an mkv zeroed", "zeroed.mkv", changed(clip, _zeroed(64)), Rejected(reason="zero")),
    _case("header of an avi zeroed", "zeroed.avi", changed(clip_of(encoder="mpeg4", options=MPEG), _zeroed(4096)),
          Either(), "mpeg4"),
    _case("no more than zeros", "zeros.mp4", lambda path: path.write_bytes(bytes(1 << 16)), Rejected(reason="zero")),
    _case("moov missing", "no_moov.mp4", changed(clip, _without_index), _NO_INDEX),
    _case("moov missing, all else twice", "no_moov_twice.mov",
          changed(clip, lambda content: _without_index(content) * 2), _NO_INDEX),
    *(
        _case(f"flipped bits in some frames of {encoder} in {suffix[1:]}", f"flipped_{encoder}{suffix}",
              _pictures_flipped(clip_of(encoder=encoder, options=options, **more), frames=slice(7, None, 8)),
              Either(may_be_spoilt=encoder in _WITHOUT_CHECK_SUMS), encoder)
        for encoder, suffix, options, more in (
            ("libx264", ".mp4", GROUPS, {}), ("libx264", ".mkv", X264 | {"g": "12", "bf": "0"}, {}),
            ("libx265", ".mp4", X265, {}), ("libvpx-vp9", ".webm", _VP9, {}), ("libvpx", ".webm", {"b": "800k"}, {}),
            ("ffv1", ".avi", {"level": "3", "slicecrc": "1"}, {}),
            ("libsvtav1", ".mp4", {"preset": "8", "crf": "5", "svtav1-params": "keyint=12"}, {}),
            ("mpeg4", ".avi", MPEG, {}), ("mjpeg", ".avi", {"qscale": "3"}, {"pixel_format": "yuvj420p"}),
            ("prores_ks", ".mov", {}, {"pixel_format": "yuv422p10le"}), ("ffv1", ".mkv", {"level": "1"}, {}),
            ("png", ".mov", {}, {"pixel_format": "rgb24"}), ("wmv2", ".wmv", {"qscale": "3"}, {}),
        )
    ),
    _case("flipped bits in all frames", "flipped_all.mp4", _pictures_flipped(clip, bits=24),
          Rejected(reason="damaged", fix="re-encode")),
    _case("flipped bits in all frames of hevc", "flipped_all_hevc.mp4",
          _pictures_flipped(clip_of(encoder="libx265", options=X265), bits=24), Either(may_be_spoilt=True), "libx265"),
    *(
        _case(f"flipped bits in {name.decode()}", f"flipped_{name.decode()}.mp4", changed(clip, _table_flipped(name)),
              Either())
        for name in (b"stsd", b"stts", b"ctts", b"stss", b"stsc", b"stsz", b"stco")
    ),
    _case("flipped bits in the index", "flipped_index.mp4", changed(clip, _tail_flipped), Either()),
    _case("flipped bits everywhere", "flipped_everywhere.mkv", changed(clip, _everywhere), Either()),
    _case("flipped bits everywhere in avi", "flipped_everywhere.avi",
          changed(clip_of(encoder="mpeg4", options=MPEG), _everywhere), Either(), "mpeg4"),
    _case("flipped bits everywhere in a program stream", "flipped_program.mpeg",
          changed(clip_of(encoder="mpeg2video", options=MPEG), _everywhere), Either(), "mpeg2video"),
    _case("flipped bits everywhere in a transport stream", "flipped_everywhere.mpeg",
          changed(under_name(".ts", clip), _everywhere), Either()),
    _case("a hole in mp4", "hole.mp4", changed(clip, _hole), Either()),
    _case("a hole in mkv", "hole.mkv", changed(clip, _hole), Either()),
    _case("lost packets of a transport stream", "lost.mpeg", changed(under_name(".ts", clip), _lost_packets), Either()),
    _case("sizes all zero", "no_sizes.mp4", changed(clip, _renamed(*_IN_TABLES, b"stsz")), Either()),
    _case("no times", "no_times.mp4", changed(clip, _renamed(*_IN_TABLES, b"stts")), Either()),
    _case("no composition times", "no_composition.mp4", changed(clip, _renamed(*_IN_TABLES, b"ctts")), Either()),
    _case("every frame called a key frame", "all_keys.mp4", changed(clip, _renamed(*_IN_TABLES, b"stss")), Serves()),
    _case("every frame called a key frame in mpeg4", "all_keys.mov",
          changed(clip_of(encoder="mpeg4", options=MPEG), _renamed(*_IN_TABLES, b"stss")), Serves(), "mpeg4"),
    _case("no frame called a key frame", "no_keys.mp4", changed(clip, _set(b"stss", 4, 0)), Serves()),
    _case("first key frame lost", "first_key.mp4", _without_first_packets, Serves(numbers=tuple(range(12, FRAMES)))),
    _case("a key frame in the middle lost", "middle_key.mp4", _without_key_frame, Either()),
    _case("all key frames lost", "lost_keys.mp4", _without_key_frames, Rejected(reason="damaged")),
    _case("more frames declared than there are", "more.avi",
          changed(clip_of(encoder="mpeg4", options=MPEG), _avi_claims_more), Begins(at_least=FRAMES), "mpeg4"),
    _case("more times declared than there are frames", "more_times.mp4",
          changed(clip_of(**_ONE_TO_ONE), _scaled(b"stts", 8, 10)), Serves(warning="cut off")),
    _case("more sizes declared than there are", "more_sizes.mp4", changed(clip, _scaled(b"stsz", 8, 2)), Either()),
    _case("billions of frames declared", "billions.mp4", changed(clip, _set(b"stsz", 8, 0xFFFFFFF0)), Either()),
    _case("billions of times declared", "billion_times.mp4",
          changed(clip_of(**_ONE_TO_ONE), _set(b"stts", 8, 0x7FFFFFFF)), Serves(warning="cut off")),
    _case("a gigantic track", "track28000.mp4", changed(clip, _size_of_track), Serves()),
    _case("a gigantic sample entry", "entry56000.mp4", changed(clip, _size_of_entry), Serves()),
    _case("a gigantic picture in h264", "sps9600.mp4",
          changed(clip_of(options=X264 | {"profile": "baseline"}), _size_in_sps), Rejected(reason="pixels")),
    _case("a gigantic picture in vp8", "vp8_16383.webm", _vp8_claims_much, Rejected(reason="damaged"), "libvpx"),
    _case("a gigantic picture in png", "png60000.mov", _png_claims_much, Rejected(reason="damaged"), "png"),
    _case("the same time twice", "twice.mp4",
          changed(clip_of(rate=60, ticks=[2 * k + k % 2 for k in range(FRAMES)], **_ONE_TO_ONE), _same_time_twice),
          Serves(rate=None)),
    _case("times that go back", "back.mkv", changed(clip_of(**_ONE_TO_ONE), _times_swapped), Either()),
    _case("a tag before mp4", "tagged.mp4", changed(clip, lambda content: _ID3 + content), Either()),
    _case("a tag before a transport stream", "tagged.mpeg",
          changed(under_name(".ts", clip), lambda content: _ID3 + content), Serves()),
)  # fmt: skip
