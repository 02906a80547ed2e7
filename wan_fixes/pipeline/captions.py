"""Caption files to texts: a missing, empty or wrongly encoded caption is named, and never passes in silence."""

from __future__ import annotations

import codecs
import io
import os
from pathlib import Path
from typing import Any

from wan_fixes.errors import SampleError
from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.context import PipelineContext

# Windows editors save "Unicode" as UTF-16 with a mark; the mark leaves no doubt, so it can be read.
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_CAPTION_BYTES = 1 << 20


class ValidatedCaptionLoader(PipelineModule, RandomAccessPipelineModule):
    """In place of MGDS's LoadMultipleTexts (every line is a caption) and LoadText (`first_line_only`).

    Yields a list of texts, or one text with `first_line_only`. A missing or empty caption is the empty text with a
    warning, or skips the sample (setting ``missing_captions``); one that is not text skips the sample.
    """

    def __init__(
        self, path_in_name: str, texts_out_name: str, first_line_only: bool = False, *, context: PipelineContext
    ) -> None:
        super().__init__()
        self.path_in_name = path_in_name
        self.texts_out_name = texts_out_name
        self.first_line_only = first_line_only
        self.context = context

    def length(self) -> int:
        return int(self._get_previous_length(self.path_in_name))

    def get_inputs(self) -> list[str]:
        return [self.path_in_name]

    def get_outputs(self) -> list[str]:
        return [self.texts_out_name]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        path = self._get_previous_item(variation, self.path_in_name, index) or ""
        texts = read_captions(path)
        if not texts:
            self._report_missing(path)
            texts = [""]
        return {self.texts_out_name: texts[0] if self.first_line_only else texts}

    def _report_missing(self, path: str) -> None:
        reason = "the caption file is empty" if Path(path).is_file() else "there is no caption file"
        fix = "write the caption, or choose another prompt source in the concept"
        if self.context.settings.missing_captions == "skip":
            raise SampleError("no caption", path=path, reason=reason, fix=fix, module=type(self).__name__)
        self.context.warn(path or "caption", f"{reason}: trained with an empty prompt", fix, type(self).__name__)


def read_captions(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a caption file that hold text; none when it is missing or empty.

    UTF-8, with or without a mark, and UTF-16 with one are read. Raises ``SampleError`` for anything else.
    """
    file = Path(path)
    try:
        if not os.fspath(path) or not file.is_file():
            return []
        with file.open("rb") as stream:
            data = stream.read(MAX_CAPTION_BYTES + 1)
    except OSError as error:
        raise SampleError(
            "the caption cannot be read",
            path=path,
            reason=error.strerror or str(error),
            fix="check the file's permissions and its drive",
            module="captions",
        ) from error
    if len(data) > MAX_CAPTION_BYTES:
        raise SampleError(
            "the caption cannot be used",
            path=path,
            reason=f"the file is larger than {MAX_CAPTION_BYTES >> 20} MiB: it is no caption",
            fix="give the clip a caption of its own",
            module="captions",
        )
    encoding = "UTF-16" if data.startswith(_UTF16_MARKS) else "UTF-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise SampleError(
            "the caption cannot be read",
            path=path,
            reason=f"it is not {encoding.removesuffix('-sig')}: byte {error.start} is 0x{data[error.start]:02x}",
            fix="save the file as UTF-8",
            module="captions",
        ) from error
    if "\0" in text:
        raise SampleError(
            "the caption cannot be used",
            path=path,
            reason="it holds zero bytes: it is not a text file",
            fix="save the caption as UTF-8 text",
            module="captions",
        )
    lines = io.StringIO(text, newline=None)  # splits at line ends only; str.splitlines also at rarer characters
    return [line.strip() for line in lines if line.strip()]
