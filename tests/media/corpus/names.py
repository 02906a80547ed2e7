"""What a folder can hold beside plain files, and names that programs stumble over."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from .cases import Case, Rejected, Serves, Truth
from .making import clip

_LINUX = "" if sys.platform == "linux" else "only Linux has file names of any bytes"
_POSIX = "" if sys.platform != "win32" else "needs POSIX files"
_NO_FILE = Rejected(reason="not a regular file", fix="move it out")
_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def _case(
    name: str, file: str, make: Callable[[Path], object] = clip, truth: Truth | None = None, impossible: str = _POSIX
) -> Case:
    return Case(name=name, file=file, make=make, truth=truth or Serves(), encoder="libx264", impossible=impossible)


def _named(path: Path) -> None:
    """FFmpeg reads some names as patterns or addresses when it writes: it writes under a plain one."""
    clip(path.with_name("plain.mp4")).replace(path)


def _to(target: str | Callable[[Path], Path]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.symlink_to(target if isinstance(target, str) else target(path))

    return make


def _elsewhere(path: Path) -> Path:
    folder = path.with_name("elsewhere")
    folder.mkdir(exist_ok=True)
    return clip(folder / "clip.mp4")


def _chain(path: Path) -> Path:
    for number in range(3):
        path.with_name(f"link{number}").symlink_to(path.with_name(f"link{number + 1}"))
    path.with_name("link3").symlink_to(_elsewhere(path))
    return path.with_name("link0")


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the length of a socket's path is limited
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def _unreadable(path: Path) -> None:
    clip(path).chmod(0)


CASES = (
    _case("a name of emoji", "🎬🐇 клип 鳥.mp4", _named, impossible=""),
    _case("a name of 200 letters", "x" * 200 + ".mp4", _named, impossible=""),
    _case("a name that is no text", os.fsdecode(b"caf\xe9.mp4") if not _LINUX else "cafe.mp4", _named,
          impossible=_LINUX),
    _case("a name of markup", "100% [bold]{x} <b>&amp;.mp4", _named),
    _case("a name of a pattern", "frame%03d.mp4", _named, impossible=""),
    _case("a name of an address", "http:..mp4", _named),
    _case("a name of a list", "concat:a.mp4|b.mp4", _named),
    _case("a name of an option", "-i.mp4", _named, impossible=""),
    _case("a name of two lines", "two\nlines.mp4", _named, impossible=_LINUX),
    _case("a name with quotes", "it's \"so\".mp4", _named),
    _case("a name in capitals", "CLIP.MP4", _named, impossible=""),
    _case("a link", "link.mp4", _to(_elsewhere)),
    _case("a link to a link to a link", "chain.mp4", _to(_chain)),
    _case("a link to nothing", "dangling.mp4", _to("moved_away.mp4"), Rejected(reason="a link to moved_away.mp4",
          fix="restore")),
    _case("a link to itself", "ring.mp4", _to("ring.mp4"), Rejected(reason="link")),
    _case("a link to a folder", "up.mp4", _to(".."), _NO_FILE),
    _case("a link to a device", "device.mp4", _to("/dev/zero"), _NO_FILE),
    _case("a link to a pipe", "stdin.mp4", _to("/dev/tty"), Rejected(reason="")),
    _case("a pipe", "pipe.mp4", lambda path: os.mkfifo(path), _NO_FILE),
    _case("a socket", "socket.mp4", _socket, _NO_FILE),
    _case("a folder", "folder.mp4", lambda path: path.mkdir(), _NO_FILE, ""),
    _case("no permission", "private.mp4", _unreadable, Rejected(reason="no permission"),
          _POSIX or ("root may read everything" if _ROOT else "")),
)  # fmt: skip
