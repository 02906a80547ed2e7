"""Rules on how long a run is: epochs, batches, and what does not fit into so few of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from wan_fixes.preflight.configuration import DEFAULTS, Configuration
from wan_fixes.preflight.finding import ConfigFinding, Correction
from wan_fixes.preflight.values import shown

#: Counts of at least 1, what a smaller one would mean, and whether 1 is what can be meant by it.
_COUNTS: Final = {
    "epochs": ("the training would end before it begins", False),
    "batch_size": ("a batch without a sample cannot be trained", True),
    "gradient_accumulation_steps": ("the weights change after so many batches", True),
    "dataloader_threads": ("somebody has to read the clips", True),
}


def counts(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Whole numbers of at least 1."""
    for field, (why, is_one) in _COUNTS.items():
        number = configuration.whole(field)
        if number is None or number < 1:
            is_one = is_one and number is not None
            yield ConfigFinding(
                "error",
                field,
                f"{field} is {shown(configuration.value(field))}, and a whole number of at least 1 is needed",
                why,
                "set it to 1" if is_one else f"write a number; the default is {DEFAULTS[field]}",
                Correction(field, 1) if is_one else None,
            )


def large_batch(configuration: Configuration) -> Iterator[ConfigFinding]:
    """A batch takes no more samples than an epoch has."""
    samples, batch = configuration.data.samples_by_epoch, configuration.whole("batch_size")
    if samples and batch is not None and batch > samples:
        yield ConfigFinding(
            "warning",
            "batch_size",
            f"a batch takes {batch} samples, and an epoch has {samples}",
            "no batch is ever full: OneTrainer's own pipeline drops it, ours fills it up with what is not trained on",
            f"set it to {samples} or less, or use gradient_accumulation_steps",
        )


def long_accumulation(configuration: Configuration) -> Iterator[ConfigFinding]:
    """The weights change at least once."""
    batches, steps = _batches(configuration), configuration.whole("gradient_accumulation_steps")
    if batches is not None and steps is not None and steps > batches:
        yield ConfigFinding(
            "warning",
            "gradient_accumulation_steps",
            f"the weights change after {steps} batches, and the whole training has {batches}",
            "they would not change at all, or once",
            "lower it, or train for more epochs",
        )


def long_warmup(configuration: Configuration) -> Iterator[ConfigFinding]:
    """The warm-up ends before the training does. Up to 1 it is a share of the run."""
    batches, warmup = _batches(configuration), configuration.number("learning_rate_warmup_steps")
    if batches is not None and warmup is not None and warmup > 1 and warmup >= batches:
        is_default = configuration.given("learning_rate_warmup_steps") is None
        yield ConfigFinding(
            "warning",
            "learning_rate_warmup_steps",
            f"the learning rate rises for {warmup:g} batches{', the default' if is_default else ''}, "
            f"and the whole training has {batches}",
            "it never gets to what is set",
            "set it to 0.1, which means a tenth of the training, or train for more epochs",
        )


def _batches(configuration: Configuration) -> int | None:
    """At least so many does the whole training have; None where that is not known."""
    samples = configuration.data.samples_by_epoch
    batch, epochs = configuration.whole("batch_size"), configuration.whole("epochs")
    if not samples or batch is None or batch < 1 or epochs is None or epochs < 1:
        return None
    return math.ceil(samples / batch) * epochs
