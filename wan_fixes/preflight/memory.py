"""The rule on memory: what training takes, as the models' room estimates it, against what the machine has free."""

from __future__ import annotations

from collections.abc import Iterator

from wan_fixes.models.failures import ModelError
from wan_fixes.models.fit import check_of
from wan_fixes.models.vram import Phase
from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding


def memory(configuration: Configuration) -> Iterator[ConfigFinding]:
    """A warning and no error: it is an estimate, and other programs may end."""
    variant = configuration.variant
    if configuration.gpu is None or variant is None or configuration.text("train_device") == "cpu":
        return
    frames = configuration.whole("frames")
    if frames is None or not 1 <= frames <= 100_000:
        return
    # With a number of frames that the model takes, so that memory alone can stand against it.
    fitting = frames - (frames - 1) % variant.temporal_compression
    try:
        check = check_of(variant.name, {**configuration.values, "frames": fitting}, configuration.gpu)
    except ModelError:  # a manifest that cannot be read, which is said when the model is looked for
        return
    if check is None or check.tried[0].fits is not False:
        return
    fix = "; ".join(check.recommendations) or "take fewer frames, a smaller resolution or a smaller batch"
    if check.tried[0].fits_gpu is not False:  # main memory it is, where all weights lie
        field = "transformer.weight_dtype"
    elif check.estimate.peak.phase is Phase.TEXT_ENCODING:
        field = "text_encoder.weight_dtype"
    else:
        field = "resolution"
    yield ConfigFinding(
        "warning",
        field,
        f"this training will hardly fit: {'; '.join(check.issues)}",
        "it ends for lack of memory, or gets very slow where the driver takes main memory instead",
        fix,
    )
