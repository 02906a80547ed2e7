"""Prompts as WAN reads them: cleaning before the tokenizer, trimming and padding after the encoder.

Both follow diffusers' `WanPipeline` (`prompt_clean`, `_get_t5_prompt_embeds`): a caption trained in any other form
would not be what the prompt becomes when the LoRA is used.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ftfy

if TYPE_CHECKING:
    import torch

MAX_TOKENS = 512
"""Length of the text context that WAN was trained with, the tokenizer's `max_length`."""

_WHITESPACE = re.compile(r"\s+")


def clean_prompt(text: str) -> str:
    """Mend mojibake, unescape HTML twice, and make every run of white space one space; none at the ends."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _WHITESPACE.sub(" ", text).strip()


def encode_prompts(tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> torch.Tensor:
    """Embeddings of prompts, as `WanPipeline.encode_prompt(…, max_sequence_length=512)` makes them.

    `[len(prompts), 512, D]` in the encoder's dtype and on its device. Wrap it in `torch.no_grad` for speed.
    """
    tokens = tokenizer(
        [clean_prompt(prompt) for prompt in prompts],
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    ).to(text_encoder.device)
    hidden = text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return trim_embeddings(hidden, tokens.attention_mask)


def trim_embeddings(hidden: torch.Tensor, mask: torch.Tensor, length: int = MAX_TOKENS) -> torch.Tensor:
    """Keep the embeddings of real tokens and put zeros in the place of all others.

    The encoder gives padding tokens embeddings that are not zero; WAN was trained with zeros there.

    Parameters
    ----------
    hidden:
        `[B, L, D]`, the encoder's last hidden state.
    mask:
        `[B, L]`, the tokenizer's attention mask; real tokens come first.
    length:
        Length of the result; longer ones are cut.

    Returns
    -------
    `[B, length, D]` in the dtype of `hidden`.
    """
    batch, tokens, width = hidden.shape
    if mask.shape != (batch, tokens):
        raise ValueError(f"{mask.shape = } does not fit {hidden.shape = }")
    kept = min(tokens, length)
    real = mask.gt(0).sum(dim=1)
    positions = mask.new_tensor(range(kept))
    trimmed = hidden.new_zeros(batch, length, width)
    # where, not a product: an encoder in fp16 may overflow on padding, and inf * 0 is nan
    keep = (positions < real[:, None])[..., None]
    trimmed[:, :kept] = hidden[:, :kept].where(keep, hidden.new_zeros(()))
    return trimmed
