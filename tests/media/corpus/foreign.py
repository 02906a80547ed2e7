"""What is no video, under a video's name: documents, archives, pictures, sound, and scripts that name others."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from .cases import Case, Rejected, Serves, Truth
from .making import changed, clip, picture, tone, under_name

_SCRIPT = Rejected(reason="a text file that names other files", fix="name the clips themselves")
_TEXT = Rejected(reason="a text file")
#: Each names `other.ts`, a good clip beside it, in the way of its kind.
_SCRIPTS = {
    "ffconcat": "ffconcat version 1.0\nfile 'other.ts'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-VERSION:3\n#EXTINF:1.5,\nother.ts\n#EXT-X-ENDLIST\n",
    "hls behind a byte order mark": "\ufeff#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.5,\nother.ts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1"><BaseURL>other.ts</BaseURL></Representation></AdaptationSet></Period></MPD>\n',
    "smil": '<smil><body><video src="other.ts"/></body></smil>\n',
    "xspf": '<?xml version="1.0"?>\n<playlist xmlns="http://xspf.org/ns/0/"><trackList><track><location>other.ts</location>'
    "</track></trackList></playlist>\n",
    "pls": "[playlist]\nFile1=other.ts\nNumberOfEntries=1\n",
    "asx": '<asx version="3.0"><entry><ref href="other.ts"/></entry></asx>\n',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "smooth streaming": '<?xml version="1.0"?>\n<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="other.ts"/>'
    "</SmoothStreamingMedia>\n",
}


def _case(name: str, file: str, content: bytes | Callable[[Path], object], truth: Truth) -> Case:
    make = content if callable(content) else lambda path: path.write_bytes(content)
    return Case(name=name, file=file, make=make, truth=truth)


def _script(text: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        clip(path.with_name("other.ts"))
        path.write_text(text, encoding="utf-8")

    return make


def _image(kind: str, count: int = 1) -> bytes:
    pictures = [Image.fromarray(picture(number)) for number in range(count)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, **({"save_all": True, "append_images": pictures[1:]} if count > 1 else {}))
    return buffer.getvalue()


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("clip.mp4", b"x" * 5000)
    return buffer.getvalue()


def _tape() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("clip.mp4"))
    return buffer.getvalue()


CASES = (
    _case("a text", "text.mp4", b"404 Not Found: the video that you asked for is gone.\n" * 40, _TEXT),
    _case("a text in UTF-16", "utf16.mp4", ("404 Not Found\n" * 9).encode("utf-16"), _TEXT),
    _case("a web page", "page.mp4", b"<!DOCTYPE html>\n<html><body>Log in to download</body></html>\n",
          Rejected(reason="a web page", fix="download")),
    _case("an answer in JSON", "json.mp4", b'{"error": "quota exceeded"}', _TEXT),
    _case("a pointer of git lfs", "pointer.mp4",
          b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
          Rejected(reason="Git LFS", fix="git lfs pull")),
    _case("subtitles", "subtitles.mkv", b"1\n00:00:00,000 --> 00:00:01,000\nHello\n", _TEXT),
    _case("a zip archive", "zip.mp4", _zipped(), Rejected(reason="a ZIP archive")),
    _case("a gzip archive", "gzip.mov", gzip.compress(b"x" * 5000), Rejected(reason="a gzip archive")),
    _case("a tar archive", "tar.mp4", _tape(), Rejected(reason="a tar archive")),
    _case("a pdf", "pdf.mp4", b"%PDF-1.7\n" + bytes(range(256)) * 9, Rejected(reason="a PDF document")),
    _case("a program", "program.avi", b"MZ" + bytes(range(256)) * 20, Rejected(reason="no video container")),
    _case("a database", "database.mkv", b"SQLite format 3\0" + bytes(4096), Rejected(reason="no video container")),
    _case("a png", "png.mp4", _image("PNG"), Rejected(reason="a PNG image")),
    _case("a jpeg", "jpeg.avi", _image("JPEG"), Rejected(reason="a JPEG image")),
    _case("a gif that moves", "gif.mp4", _image("GIF", 3), Rejected(reason="a GIF image")),
    _case("a webp that moves", "webp.webm", _image("WEBP", 3), Rejected(reason="a WebP image")),
    _case("a tiff", "tiff.mov", _image("TIFF"), Rejected(reason="a TIFF image")),
    _case("an avif, which is an mp4 of one frame", "avif.mp4", _image("AVIF"), Serves(numbers=(0,), rate=1)),
    _case("a wav", "wav.avi", under_name(".wav", lambda path: _wav(path)), Rejected(reason="a WAV recording")),
    _case("an mp3's beginning", "mp3.mp4", b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10) + b"\xff\xfb\x90\x00" * 900,
          Rejected(reason="an MP3 recording")),
    _case("sound only", "sound.mp4", tone, Rejected(reason="audio only")),
    _case("sound only in mkv", "sound.mkv", tone, Rejected(reason="audio only")),
    _case("sound with a cover", "cover.mp4", lambda path: tone(path, cover=True),
          Rejected(reason="audio only and a cover picture")),
    _case("random bytes", "random.mp4", b"".join((17 * k * k % 251).to_bytes(1, "big") for k in range(20000)),
          Rejected(reason="no video container")),
    _case("one byte", "byte.mp4", b"\x00", Rejected(reason="zero")),
    _case("eight bytes of an mp4", "eight.mp4", changed(clip, lambda content: content[:8]), Rejected(reason="no moov")),
    *(
        _case(f"a script: {kind}", f"{kind.replace(' ', '_')}{suffix}", _script(text),
              _TEXT if kind in ("sdp",) else _SCRIPT)
        for (kind, text), suffix in zip(_SCRIPTS.items(), (".mp4", ".mkv", ".mpeg", ".avi", ".mov", ".mp4", ".webm",
              ".wmv",
                                                           ".flv", ".m4v"), strict=True)
    ),
)  # fmt: skip


def _wav(path: Path) -> None:
    import wave

    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
