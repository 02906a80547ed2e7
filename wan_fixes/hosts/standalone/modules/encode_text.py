"""Prompts to text embeddings, as diffusers' `WanPipeline` makes them, so that a LoRA is used as it was trained."""

from __future__ import annotations

import threading
from typing import Any

import torch

from wan_fixes.hosts.standalone.modules.sample_module import SampleModule, SampleReader
from wan_fixes.wan.text import MAX_TOKENS, clean_prompt, trim_embeddings


class Tokenize(SampleModule):
    """A prompt to the text that is tokenized, its token ids and attention mask (``[512]`` int64 each)."""

    def __init__(
        self, in_name: str, text_out_name: str, tokens_out_name: str, mask_out_name: str, tokenizer: Any
    ) -> None:
        super().__init__()
        self.in_name = in_name
        self.text_out_name = text_out_name
        self.tokens_out_name = tokens_out_name
        self.mask_out_name = mask_out_name
        self.tokenizer = tokenizer
        # a fast tokenizer changes its own truncation and padding at each call: never two threads at once
        self._lock = threading.Lock()

    def get_inputs(self) -> list[str]:
        return [self.in_name]

    def get_outputs(self) -> list[str]:
        return [self.text_out_name, self.tokens_out_name, self.mask_out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        text = clean_prompt(read(self.in_name))
        with self._lock:
            tokens, mask = tokenize(self.tokenizer, text)
        return {self.text_out_name: text, self.tokens_out_name: tokens, self.mask_out_name: mask}


class EncodeUmt5(SampleModule):
    """Tokens to text embeddings ``[512, D]`` in the encoder's dtype; zeros where there is no token."""

    def __init__(self, tokens_in_name: str, mask_in_name: str, hidden_state_out_name: str, text_encoder: Any) -> None:
        super().__init__()
        self.tokens_in_name = tokens_in_name
        self.mask_in_name = mask_in_name
        self.hidden_state_out_name = hidden_state_out_name
        self.text_encoder = text_encoder
        # one at a time: the memory for one is planned for
        self._lock = threading.Lock()

    def get_inputs(self) -> list[str]:
        return [self.tokens_in_name, self.mask_in_name]

    def get_outputs(self) -> list[str]:
        return [self.hidden_state_out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        tokens = read(self.tokens_in_name)
        mask = read(self.mask_in_name)
        with self._lock:
            return {self.hidden_state_out_name: encode_tokens(self.text_encoder, tokens, mask)}


def tokenize(tokenizer: Any, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of a cleaned prompt, ``[512]`` int64 each: cut or padded."""
    output = tokenizer(
        prompt,
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return output.input_ids[0], output.attention_mask[0]


@torch.no_grad()
def encode_tokens(text_encoder: Any, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Text embeddings ``[512, D]`` of tokens and mask ``[512]``, on the encoder's device."""
    device = next(text_encoder.parameters()).device
    tokens, mask = tokens[None].to(device), mask[None].to(device)
    return trim_embeddings(text_encoder(tokens, mask).last_hidden_state, mask)[0]


def encode_prompt(tokenizer: Any, text_encoder: Any, prompt: str) -> torch.Tensor:
    """Text embeddings ``[512, D]`` of one prompt, as the pipeline modules make them."""
    return encode_tokens(text_encoder, *tokenize(tokenizer, clean_prompt(prompt)))
