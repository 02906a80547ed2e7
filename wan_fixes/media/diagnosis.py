"""Why a file cannot be read as what its name says, in plain words, from its first bytes."""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from wan_fixes.errors import SampleError
from wan_fixes.media.boxes import outer_boxes

_HEAD_BYTES: Final = 4096
_COPY_AGAIN: Final = "copy or download it again, or remove it"
_NOT_A_SAMPLE: Final = "move it out of the folder"
_REENCODE: Final = "re-encode with: ffmpeg -i IN -c:v libx264 -crf 16 OUT.mp4"

_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"ID3", "an MP3 recording"),
    (b"fLaC", "a FLAC recording"),
)
#: From byte 257 on (POSIX, the format of ustar).
_TAR: Final = b"ustar"
#: No container begins with so many zeros.
_ZEROS: Final = bytes(32)
_PLAYLISTS: Final = ("ffconcat", "#extm3u", "[playlist]")
_PLAYLIST_ELEMENTS: Final = ("<mpd", "<smil", "<asx", "<playlist", "<smoothstreamingmedia")
_PAGES: Final = ("<!doctype html", "<html")
_LFS: Final = "version https://git-lfs.github.com/spec"


class Diagnosis(NamedTuple):
    """A reason, and what to do about it."""

    reason: str
    fix: str
    #: Further facts for the error: "unsupported" where another decoder may know better.
    context: Mapping[str, Any] | None = None


def check_regular_file(path: str | os.PathLike[str], what: str) -> None:
    """Raise SampleError(what) unless `path` is a regular file, or a link to one, that exists.

    Opening a pipe or a device can block for ever, so nothing else is ever opened.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - a str with lone surrogates must work too
    except OSError as error:
        raise SampleError(what, path=path, **why_no_status(path, error)._asdict(), module="media") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise SampleError(what, path=path, reason=f"not a regular file but {kind}", fix=_NOT_A_SAMPLE, module="media")
    if status.st_size == 0:
        raise SampleError(what, path=path, reason="the file is empty", fix=_COPY_AGAIN, module="media")


def why_no_status(path: str | os.PathLike[str], error: OSError) -> Diagnosis:
    """Why asking the file system about `path` raised `error`."""
    try:
        target = os.readlink(path)  # noqa: PTH115
    except OSError:
        target = None
    if target is not None:
        return Diagnosis(f"a link to {target}, which cannot be found", "restore the file that the link names")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Diagnosis("the file does not exist (any more)", "restore it, or take it out of the concept")
    return Diagnosis(f"the file system says: {error.strerror or error}", "check the path and its permissions")


def why_not_a_video(path: str | os.PathLike[str], error: Exception) -> Diagnosis:
    """The likely reason why opening `path` as a video raised `error`."""
    if isinstance(error, PermissionError):
        return Diagnosis("no permission to read it", "give yourself the right to read it")
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEAD_BYTES)
            return _from_head(head) or _from_mp4_boxes(file, head) or _last_resort(error)
    except PermissionError:
        return Diagnosis("no permission to read it", "give yourself the right to read it")
    except OSError as failure:
        return Diagnosis(f"the file system says: {failure.strerror or failure}", _COPY_AGAIN)


def what_it_is_instead(path: str | os.PathLike[str]) -> Diagnosis | None:
    """What `path` holds instead of a video, when its first bytes tell; for what FFmpeg opened as one."""
    try:
        with Path(path).open("rb") as file:
            return _from_head(file.read(_HEAD_BYTES))
    except OSError:
        return None


def why_not_an_image(path: str | os.PathLike[str], error: Exception) -> Diagnosis:
    """The likely reason why opening `path` as an image raised `error`."""
    if isinstance(error, PermissionError):
        return Diagnosis("no permission to read it", "give yourself the right to read it")
    with Path(path).open("rb") as file:
        head = file.read(_HEAD_BYTES)
    found = _from_head(head)
    if found is not None and not found.reason.endswith("image"):
        return Diagnosis(found.reason.replace("not a video", "not an image"), found.fix)
    return Diagnosis(f"no picture can be read from it ({_words(error)})", "save it again as PNG or JPEG")


def _from_head(head: bytes) -> Diagnosis | None:
    if head.startswith(_ZEROS) or not head.strip(b"\x00"):
        return Diagnosis("its first bytes are all zero: a copy or download that never finished", _COPY_AGAIN)
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return Diagnosis(f"not a video: {name}", f"give it its own extension, or {_NOT_A_SAMPLE}")
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"WAVE"):
        name = "a WebP image" if head[8:12] == b"WEBP" else "a WAV recording"
        return Diagnosis(f"not a video: {name}", f"give it its own extension, or {_NOT_A_SAMPLE}")
    if head[257:262] == _TAR:
        return Diagnosis("not a video: a tar archive", "unpack it")
    text = _as_text(head)
    if text is None:
        return None
    begin = text.lstrip().lower()
    if begin.startswith(_PAGES):
        return Diagnosis("not a video: a web page, which a download link gave instead", "log in and download it again")
    if begin.startswith(_PLAYLISTS) or any(element in begin for element in _PLAYLIST_ELEMENTS):
        return Diagnosis("not a video: a text file that names other files (a playlist)", "name the clips themselves")
    if begin.startswith(_LFS):
        return Diagnosis("not a video: a text file that stands for one (a Git LFS pointer)", "run git lfs pull")
    return Diagnosis("not a video: a text file", _COPY_AGAIN)


def _as_text(head: bytes) -> str | None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = head[: len(head) // 2 * 2].decode("utf-16", errors="replace")
        return text if _is_readable(text) else None
    try:
        text = head.decode("utf-8-sig", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else only the last character is cut in two
            return None
        text = head[: error.start].decode("utf-8-sig")
    return text if _is_readable(text) else None


def _is_readable(text: str) -> bool:
    return all(character.isprintable() or character in "\t\r\n\f" for character in text)


def _from_mp4_boxes(file: BinaryIO, head: bytes) -> Diagnosis | None:
    """An mp4 or mov file whose index box is missing or runs past the end (ISO 14496-12, 4.2)."""
    if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return None
    index = next((box for box in outer_boxes(file) if box.kind == b"moov"), None)
    if index is not None and index.start + index.size <= file.seek(0, os.SEEK_END):
        return None
    return Diagnosis(
        "no moov atom (the index of an mp4): the recording or the copy was cut off",
        f"{_COPY_AGAIN}; a camera's file can be repaired with untrunc",
    )


def _last_resort(error: Exception) -> Diagnosis:
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return Diagnosis("its index is damaged: it asks for more memory than there is", _REENCODE)
    return Diagnosis(f"no video container that we read ({_words(error)})", _REENCODE, {"unsupported": True})


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
