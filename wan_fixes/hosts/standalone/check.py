"""A verdict on every file of a preset's, or any configuration's, concepts, as training would find it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from wan_fixes.errors import SampleError
from wan_fixes.hosts.standalone.concepts import Concept
from wan_fixes.hosts.standalone.dataset import Wanted
from wan_fixes.hosts.standalone.picture_rules import Finding, Placement, findings, placements
from wan_fixes.media import (
    IMAGE_EXTENSIONS,
    VIDEO_EXTENSIONS,
    Verdict,
    count_chunks,
    is_sample,
    is_video,
    scan_folder,
)
from wan_fixes.pipeline.captions import read_captions
from wan_fixes.pipeline.media_reader import reader_for
from wan_fixes.settings import Settings

Status = Literal["good", "warning", "rejected"]

_SEVERITY: tuple[Status, ...] = ("good", "warning", "rejected")
_MOST_THREADS = 8
VIDEO_FIELDS = (
    "frame_count", "is_variable_rate", "rotation", "format", "codec", "pixel_format", "bit_depth",
    "colour_matrix", "colour_range", "colour_assumed", "start_seconds", "video_streams", "decoder",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """What training will make of one file.

    Attributes
    ----------
    name:
        The path within the concept's folder.
    facts:
        Size, rate, length and codec in words, where they could be measured.
    width, height:
        Square pixels as shown; None where they could not be measured.
    fps, duration:
        Frames per second and seconds of a clip; None of an image, and where they could not be measured.
    video:
        What else was measured of a clip: the fields of `VideoMetadata` that `VIDEO_FIELDS` names.
    trained_at:
        Width and height that it is scaled and cropped to, for each resolution of the preset; () of what is rejected.
    samples:
        How many it gives in one epoch: each of its chunks is one.
    findings:
        What the preset's sizes do to it, which `reason` and `fix` say too.
    """

    path: str
    name: str
    concept: str
    status: Status
    reason: str = ""
    fix: str = ""
    facts: str = ""
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    duration: float | None = None
    video: dict[str, object] | None = None
    trained_at: tuple[tuple[int, int], ...] = ()
    samples: int = 0
    findings: tuple[Finding, ...] = ()


def check_files(
    wanted: Wanted, settings: Settings, on_progress: Callable[[int, int], None] | None = None
) -> list[FileVerdict]:
    """Inspect every file of every concept, in worker processes; verdicts come in the order of the files.

    Parameters
    ----------
    on_progress:
        Called with how many files are done, and how many there are; what it raises ends the work.
    """
    verdicts: list[FileVerdict | None] = []
    todo: list[tuple[Concept, Path]] = []
    for concept in wanted.concepts:
        for found in _files(concept):
            verdicts.append(found if isinstance(found, FileVerdict) else None)
            if isinstance(found, Path):
                todo.append((concept, found))
    places = [at for at, verdict in enumerate(verdicts) if verdict is None]
    report = on_progress or (lambda _done, _total: None)
    report(0, len(todo))
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as executor:
        futures = {
            executor.submit(inspect_file, concept, path, wanted, settings): place
            for place, (concept, path) in zip(places, todo, strict=True)
        }
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                verdicts[futures[future]] = future.result()
                report(done, len(todo))
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return [verdict for verdict in verdicts if verdict is not None]


def inspect_file(concept: Concept, path: Path, wanted: Wanted, settings: Settings) -> FileVerdict:
    """The verdict on one clip or image, on how it suits what is wanted, and on its caption: the worst of them.

    It has all reasons.
    """
    reader = reader_for(settings)
    if is_video(path):
        of_file = reader.inspect_video(
            path,
            count=wanted.frames,
            fps=wanted.fps,
            window=settings.frame_window,
            short_clips=settings.short_clips,
        )
    else:
        of_file = reader.inspect_image(path)
    placed = _placed(of_file, concept, wanted)
    found = tuple(findings(placed))
    of_picture = [Verdict(str(path), "warning", finding.reason, finding.fix) for finding in found]
    of_caption = inspect_caption(concept, path, settings)
    parts = [verdict for verdict in (of_file, *of_picture, of_caption) if verdict.status != "good"]
    if of_file.status == "rejected":
        parts = [verdict for verdict in parts if verdict.status == "rejected"]  # it is not trained with any prompt
    status: Status = max((verdict.status for verdict in parts), key=_SEVERITY.index, default="good")
    samples = 0 if status == "rejected" else _samples(of_file, wanted, settings)
    return FileVerdict(
        path=str(path),
        name=_name(concept, path),
        concept=concept.name,
        status=status,
        reason="; ".join(verdict.reason for verdict in parts if verdict.reason),
        fix="; ".join(verdict.fix for verdict in parts if verdict.fix),
        facts=_facts(of_file, samples if settings.frame_window == "chunks" else None),
        width=of_file.width,
        height=of_file.height,
        fps=of_file.metadata.fps if of_file.metadata else None,
        duration=of_file.metadata.duration if of_file.metadata else None,
        video={name: getattr(of_file.metadata, name) for name in VIDEO_FIELDS} if of_file.metadata else None,
        trained_at=() if status == "rejected" else tuple(placement.bucket[::-1] for placement in placed),
        samples=samples,
        findings=found,
    )


def _placed(verdict: Verdict, concept: Concept, wanted: Wanted) -> tuple[Placement, ...]:
    if verdict.status == "rejected" or verdict.width is None or verdict.height is None:
        return ()
    return placements(wanted, concept, verdict.width, verdict.height)


def inspect_caption(concept: Concept, path: Path, settings: Settings) -> Verdict:
    """The verdict on the caption that belongs to the file `path`."""
    if concept.text.prompt_source == "filename":
        return Verdict(str(path), "good")
    own = concept.text.prompt_source == "sample"
    caption = path.with_suffix(".txt") if own else Path(concept.text.prompt_path)
    try:
        if read_captions(caption):
            return Verdict(str(caption), "good")
    except SampleError as error:
        return Verdict(str(caption), "rejected", f"caption: {error.reason}", error.fix)
    reason = f"caption: {caption.name} {'is empty' if caption.is_file() else 'does not exist'}"
    if settings.missing_captions == "skip":
        return Verdict(str(caption), "rejected", reason, "write the caption")
    return Verdict(str(caption), "warning", f"{reason}; trained with an empty prompt", "write the caption")


def _files(concept: Concept) -> Iterator[Path | FileVerdict]:
    """What training would collect: the files to inspect, and verdicts on what cannot even be listed."""
    extensions = VIDEO_EXTENSIONS | IMAGE_EXTENSIONS
    found = scan_folder(concept.path, recursive=concept.include_subdirectories)
    for path in found.files:
        if is_sample(path):
            yield path
    rejected = partial(FileVerdict, concept=concept.name, status="rejected", fix="restore it, or remove it")
    for path, reason in found.problems:
        if path.suffix.lower() in extensions or not path.suffix:
            yield rejected(path=str(path), name=_name(concept, path), reason=reason)


def _name(concept: Concept, path: Path) -> str:
    return str(path.relative_to(concept.path)) if path.is_relative_to(concept.path) else str(path)


def _samples(verdict: Verdict, wanted: Wanted, settings: Settings) -> int:
    if settings.frame_window != "chunks" or verdict.metadata is None:
        return 1
    return count_chunks(verdict.metadata, count=wanted.frames, fps=wanted.fps)


def _facts(verdict: Verdict, samples: int | None) -> str:
    clip = verdict.metadata
    if clip is None:
        return ""
    variable = " (variable)" if clip.is_variable_rate else ""
    deep = f" of {clip.bit_depth} bits" if clip.bit_depth != 8 else ""
    facts = f"{clip.width}x{clip.height}, {clip.fps:.4g} fps{variable}, {clip.duration:.3g} s, {clip.codec}{deep}"
    if samples:
        facts += f", {samples} sample{'' if samples == 1 else 's'}"
    return facts
