"""Prompts to text embeddings, as diffusers' `WanPipeline` makes them, so that a LoRA is used as it was trained."""

from __future__ import annotations

import threading
from typing import Any

import torch

from wan_fixes.hosts.standalone.modules.sample_module import SampleModule, SampleReader
from wan_fixes.wan.text import clean_prompt, encode_prompts


class EncodePrompt(SampleModule):
    """A prompt to the text that the tokenizer gets, and to its embeddings ``[512, D]`` in the encoder's dtype."""

    def __init__(
        self, in_name: str, text_out_name: str, hidden_state_out_name: str, tokenizer: Any, text_encoder: Any
    ) -> None:
        super().__init__()
        self.in_name = in_name
        self.text_out_name = text_out_name
        self.hidden_state_out_name = hidden_state_out_name
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        # a fast tokenizer changes its own padding at each call, and memory is planned for one prompt at a time
        self._lock = threading.Lock()

    def get_inputs(self) -> list[str]:
        return [self.in_name]

    def get_outputs(self) -> list[str]:
        return [self.text_out_name, self.hidden_state_out_name]

    def make(self, read: SampleReader) -> dict[str, Any]:
        prompt = read(self.in_name)
        with self._lock, torch.no_grad():
            embeddings = encode_prompts(self.tokenizer, self.text_encoder, [prompt])[0]
        return {self.text_out_name: clean_prompt(prompt), self.hidden_state_out_name: embeddings}
