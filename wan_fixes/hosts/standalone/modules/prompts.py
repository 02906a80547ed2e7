"""Prompts: where they come from, which of several is taken, and the order of their tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wan_fixes.hosts.standalone.modules.sample_module import SampleModule, SampleReader
from wan_fixes.pipeline.context import PipelineContext


class ModifyPath(SampleModule):
    """The path of a file beside another: `postfix` after its stem, and another extension."""

    def __init__(self, in_name: str, out_name: str, postfix: str, extension: str) -> None:
        super().__init__()
        self.in_name = in_name
        self.out_name = out_name
        self.postfix = postfix
        self.extension = extension

    def get_inputs(self) -> list[str]:
        return [self.in_name]

    def get_outputs(self) -> list[str]:
        return [self.out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        path = Path(read(self.in_name))
        return {self.out_name: str(path.with_name(path.stem + self.postfix + self.extension))}


class GetFilename(SampleModule):
    """The name of a file, without its folder and (by default) its extension."""

    def __init__(self, path_in_name: str, filename_out_name: str, include_extension: bool = False) -> None:
        super().__init__()
        self.path_in_name = path_in_name
        self.filename_out_name = filename_out_name
        self.include_extension = include_extension

    def get_inputs(self) -> list[str]:
        return [self.path_in_name]

    def get_outputs(self) -> list[str]:
        return [self.filename_out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        path = Path(read(self.path_in_name))
        return {self.filename_out_name: path.name if self.include_extension else path.stem}


class SelectInput(SampleModule):
    """One of several items, chosen by a setting of the concept. Only that one is asked for."""

    def __init__(self, setting_name: str, out_name: str, setting_to_in_name_map: dict[str, str]) -> None:
        super().__init__()
        self.setting_name = setting_name
        self.out_name = out_name
        self.setting_to_in_name_map = setting_to_in_name_map

    def get_inputs(self) -> list[str]:
        return [*self.setting_to_in_name_map.values(), self.setting_name]

    def get_outputs(self) -> list[str]:
        return [self.out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        setting = read(self.setting_name)
        return {self.out_name: read(self.setting_to_in_name_map[setting])}


class SelectRandomText(SampleModule):
    """One of a list of texts, drawn anew for each variation; a single text stays."""

    def __init__(self, texts_in_name: str, text_out_name: str, *, context: PipelineContext) -> None:
        super().__init__(context)
        self.texts_in_name = texts_in_name
        self.text_out_name = text_out_name

    def get_inputs(self) -> list[str]:
        return [self.texts_in_name]

    def get_outputs(self) -> list[str]:
        return [self.text_out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        texts = read(self.texts_in_name)
        text = texts if isinstance(texts, str) else read.rng("prompt").choice(texts)
        return {self.text_out_name: text}


class ShuffleTags(SampleModule):
    """The tags of a prompt in another order, but for the first few."""

    def __init__(
        self,
        text_in_name: str,
        enabled_in_name: str,
        delimiter_in_name: str,
        keep_tags_count_in_name: str,
        text_out_name: str,
        *,
        context: PipelineContext,
    ) -> None:
        super().__init__(context)
        self.text_in_name = text_in_name
        self.enabled_in_name = enabled_in_name
        self.delimiter_in_name = delimiter_in_name
        self.keep_tags_count_in_name = keep_tags_count_in_name
        self.text_out_name = text_out_name

    def get_inputs(self) -> list[str]:
        return [self.text_in_name, self.enabled_in_name, self.delimiter_in_name, self.keep_tags_count_in_name]

    def get_outputs(self) -> list[str]:
        return [self.text_out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        text = read(self.text_in_name)
        if not read(self.enabled_in_name):
            return {self.text_out_name: text}
        delimiter = read(self.delimiter_in_name)
        kept = read(self.keep_tags_count_in_name)
        tags = [tag.strip() for tag in text.split(delimiter) if tag.strip()]
        shuffled = tags[kept:]
        read.rng("tags").shuffle(shuffled)
        return {self.text_out_name: f"{delimiter} ".join(tags[:kept] + shuffled)}
