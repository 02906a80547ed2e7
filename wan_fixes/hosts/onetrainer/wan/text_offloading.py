"""Keeps layers of the text encoder in main memory: UMT5-XXL is larger than many a card."""

from __future__ import annotations

import copy
from typing import Any

from modules.util.checkpointing_util import enable_checkpointing


def offload_text_encoder(text_encoder: Any, config: Any, part: Any) -> Any:
    """Let OneTrainer move the encoder's blocks as `offload_fraction` of its part says.

    Returns the conductor by which the encoder is then moved, or None where nothing is offloaded. Without gradients
    there is nothing to checkpoint, and no activation to keep for later. The layers can follow one thread alone:
    OneTrainer itself refuses `dataloader_threads` above 1 with it.
    """
    if part.offload_fraction <= 0:
        return None
    frozen = copy.copy(part)
    frozen.train = False  # as it is, whatever its switch says; of a trained part checkpointing would be demanded
    return enable_checkpointing(text_encoder, config, frozen, False, [(text_encoder.encoder.block, [])])


def share_embedding(text_encoder: Any) -> None:
    """Have UMT5's two names of its token embedding mean one parameter again.

    OneTrainer's loader gives each name a parameter of its own. Moved to another device they are two copies, and of
    UMT5-XXL's 256 384 tokens a copy takes 2.1 GB in bf16.
    """
    shared, inner = text_encoder.shared, text_encoder.encoder.embed_tokens
    if inner.weight is not shared.weight and inner.weight.equal(shared.weight):
        inner.weight = shared.weight
