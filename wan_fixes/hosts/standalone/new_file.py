"""Writes a file that a user asked for where there is none yet: nothing of theirs is ever replaced."""

from __future__ import annotations

from pathlib import Path

from wan_fixes.errors import UserError


def write_new(file: Path, text: str, what: str) -> None:
    """Write `text` in UTF-8; `what` names it in messages ("the concepts").

    Raises
    ------
    UserError
        If there is such a file, or it cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UserError(
            f"{what} cannot be written",
            path=file,
            reason="there is such a file already, and nothing of yours is replaced",
            fix="name another file, or move that one away",
        ) from None
    except OSError as error:
        raise UserError(
            f"{what} cannot be written",
            path=file,
            reason=error.strerror or str(error),
            fix="name a file in a folder that is there and can be written to",
        ) from error
