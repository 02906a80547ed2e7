"""Rules on the LoRA itself: a rank and an alpha by which it can learn something."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding
from wan_fixes.preflight.values import shown

_LARGEST_SCALE: Final = 4.0


def rank_and_alpha(configuration: Configuration) -> Iterator[ConfigFinding]:
    """A rank of at least 1, and an alpha that neither silences the LoRA nor multiplies its steps."""
    if not configuration.is_lora or configuration.value("peft_type") not in ("LORA", "LOHA"):
        return
    rank, alpha = configuration.whole("lora_rank"), configuration.number("lora_alpha")
    if rank is None or rank < 1:
        yield ConfigFinding(
            "error",
            "lora_rank",
            f"the rank is {shown(configuration.value('lora_rank'))}",
            "a LoRA of that rank has no weights to train",
            "set it to 16 or 32, which are usual",
        )
    if alpha is None or alpha <= 0:
        yield ConfigFinding(
            "error",
            "lora_alpha",
            f"alpha is {shown(configuration.value('lora_alpha'))}",
            "the LoRA is multiplied by alpha / rank: it would have no effect, or the opposite one",
            "set it to the rank, or to half of it",
        )
    elif rank is not None and rank > 0 and alpha / rank > _LARGEST_SCALE:
        yield ConfigFinding(
            "warning",
            "lora_alpha",
            f"alpha is {alpha:g} at a rank of {rank}",
            f"the LoRA is multiplied by alpha / rank, so that each step counts {alpha / rank:g} times",
            f"set it to {rank} or less",
        )
