"""Rules on how long and how large a sample is: the frames and resolutions that a WAN model takes and was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding, Correction
from wan_fixes.preflight.resolution import as_resolution, check_resolution, fitted, sizes_of
from wan_fixes.preflight.training_data import ConceptEntry
from wan_fixes.preflight.values import shown
from wan_fixes.wan.variants import WanVariant

_P480, _P720 = 832 * 480, 1280 * 720
#: Pixels of the largest frames that a model was trained on, as its model card says; of the others 720p.
_TRAINED_PIXELS: Final = {"WAN_2_1_T2V_1_3B": _P480}
#: So many times as many do not yet count as far beyond.
_TOLERANCE: Final = 1.5
_RESOLUTION_FIX: Final = 'write it like "512", "512, 768" or "832x480"'


def frames(configuration: Configuration) -> Iterator[ConfigFinding]:
    """4n + 1 of them, and no more than the model knows."""
    variant = configuration.variant
    if variant is None:
        return
    count, step = configuration.whole("frames"), variant.temporal_compression
    if count is None or count < 1:
        yield ConfigFinding(
            "error",
            "frames",
            f"frames is {shown(configuration.value('frames'))}, which is no number of frames",
            "every sample has the same length",
            f"write one whole number, {step}n + 1: {variant.default_frames} is what the model was trained on",
        )
        return
    over = (count - 1) % step
    below = count - over
    if over:
        yield ConfigFinding(
            "error",
            "frames",
            f"frames is {count}, and WAN takes {step}n + 1",
            f"its VAE makes one latent frame of the first frame, and then one of each {step}",
            f"set it to {below} or {below + step}",
            Correction("frames", str(below) if isinstance(configuration.value("frames"), str) else below),
        )
    if count > variant.default_frames:
        yield ConfigFinding(
            "warning",
            "frames",
            f"frames is {count}, and {variant.label} was trained on {variant.default_frames}",
            "longer clips take much more memory and time, and the model has never seen their positions",
            f"set it to {variant.default_frames} or less; clips may be longer, a part of each is taken",
        )


def still_images(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Frames have no meaning where nothing moves."""
    count = configuration.whole("frames")
    concepts = configuration.data.trained
    if configuration.variant is None or count is None or count < 2 or not concepts:
        return
    if all(concept.has_only_images for concept in concepts):
        yield ConfigFinding(
            "warning",
            "frames",
            f"frames is {count}, and there are images only",
            "an image is trained as a clip of one frame, so that no motion is learned",
            "add clips; for images alone set frames to 1, which says what is done",
        )


def resolution(configuration: Configuration) -> Iterator[ConfigFinding]:
    """One that can be read, of the model's multiples, and no larger than the model knows."""
    variant = configuration.variant
    if variant is not None:
        yield from _resolution_of(configuration, variant, "resolution", configuration.value("resolution"))
        yield from _squares(configuration)


def resolution_overrides(configuration: Configuration) -> Iterator[ConfigFinding]:
    """The same for the concepts that have a resolution of their own."""
    variant = configuration.variant
    if variant is None:
        return
    for concept in configuration.data.trained:
        value = concept.get("image", "resolution_override")
        field = concept.field("image.resolution_override")
        if concept.get("image", "enable_resolution_override") is True:
            yield from _resolution_of(configuration, variant, field, "512" if value is None else value)
            cuts_squares = configuration.is_for_onetrainer and not configuration.is_on("aspect_ratio_bucketing")
            if cuts_squares and _is_width_and_height(value):
                yield _not_square(f"the resolution of concept {shown(concept.name)}", str(value))
        elif isinstance(value, str) and _is_fatal(configuration, concept, value):
            yield ConfigFinding(
                "error",
                field,
                f"{shown(value)} is no resolution",
                "OneTrainer reads it even though enable_resolution_override is off, and stops at it",
                'write "512", which is the default',
                Correction(field, "512") if configuration.data.is_inline else None,
            )


def _is_fatal(configuration: Configuration, concept: ConceptEntry, text: str) -> bool:
    """Whether mgds stops at it, which reads that of each clip (`AspectBucketing` and `SingleAspectCalculation`)."""
    if not configuration.is_for_onetrainer or not concept.samples:
        return False
    is_size = "x" in text and "," not in text and configuration.is_on("aspect_ratio_bucketing")
    sides = text.split("x")[:2] if is_size else text.split(",")
    return not all(map(_is_whole, sides))


def _is_whole(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _resolution_of(
    configuration: Configuration, variant: WanVariant, field: str, value: object
) -> Iterator[ConfigFinding]:
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    may_write = field == "resolution" or configuration.data.is_inline
    if len(text) > 1000 or check_resolution(text) is not None or any(max(s) > 99_999 for s in sizes_of(text)):
        meant = as_resolution(text)
        yield ConfigFinding(
            # OneTrainer itself reads blanks around the x.
            "warning" if meant is not None and "".join(text.split()) == meant else "error",
            field,
            f"{shown(value)} is no resolution",
            "it is a number for the area of a square, several with commas between them, or width x height",
            _RESOLUTION_FIX if meant is None else f'write it as "{meant}"',
            Correction(field, meant) if meant is not None and may_write else None,
        )
        return
    multiple, sizes = variant.spatial_multiple, sizes_of(text)
    if any(min(size) <= multiple / 2 for size in sizes):  # OneTrainer rounds these to 0
        yield ConfigFinding(
            "error",
            field,
            f"{text.strip()} is smaller than the {multiple} pixels that {variant.label} needs",
            "nothing would be left of a picture",
            "make it larger; the number is in pixels",
        )
        return
    if any(side % multiple for size in sizes for side in size):
        better = fitted(text, multiple)
        yield ConfigFinding(
            "warning",
            field,
            f"{text.strip()} is not made of multiples of {multiple}, which {variant.label} takes",
            "clips are trained at rounded sizes, or cannot be trained without aspect ratio bucketing",
            f'write it as "{better}"',
            Correction(field, better) if may_write else None,
        )
    largest = max(width * height for width, height in sizes)
    known = _TRAINED_PIXELS.get(variant.name, _P720)
    if largest > known * _TOLERANCE:
        yield ConfigFinding(
            "warning",
            field,
            f"{text.strip()} is far more than the {'480p' if known == _P480 else '720p'} of {variant.label}",
            "the model has never seen pictures of that size, and memory and time grow with it",
            "lower it; details are learned from smaller pictures too",
        )


def _squares(configuration: Configuration) -> Iterator[ConfigFinding]:
    text = configuration.text("resolution")
    if not configuration.is_on("aspect_ratio_bucketing") and _is_width_and_height(text):
        yield _not_square("the resolution", text)


def _is_width_and_height(value: object) -> bool:
    return isinstance(value, str) and check_resolution(value) is None and "x" in value


def _not_square(what: str, text: str) -> ConfigFinding:
    return ConfigFinding(
        "error",
        "aspect_ratio_bucketing",
        f"{what} is {text.strip()}, and aspect ratio bucketing is off",
        "without it every clip is cropped to a square, and a width and a height cannot be read",
        "switch aspect ratio bucketing on",
        Correction("aspect_ratio_bucketing", True),
    )
