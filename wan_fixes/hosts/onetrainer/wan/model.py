"""A loaded WAN model as OneTrainer's machinery handles it: parts that move between devices, adapters, a pipeline."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline
from modules.util.enum.DataType import DataType

from wan_fixes.hosts.onetrainer.wan.older_hosts import ModelBase
from wan_fixes.wan.lora_keys import LAYER_NAMES
from wan_fixes.wan.text import encode_prompts, trim_embeddings
from wan_fixes.wan.timesteps import Expert
from wan_fixes.wan.variants import WanVariant, get_variant

PART_OF: dict[Expert, str] = {"high": "transformer", "low": "transformer_2"}
"""Which transformer is which expert, as in diffusers' `WanPipeline`."""


class WanModel(ModelBase):
    """Attributes are named after the parts in `ModelType.model_parts()`, by which OneTrainer finds them.

    `transformer_2` and either transformer of a model with two experts may be None: that expert is then not used.
    """

    def __init__(self, model_type: Any) -> None:
        super().__init__(model_type=model_type)
        self.variant: WanVariant = get_variant(model_type.name)
        self.tokenizer: Any = None
        self.noise_scheduler: Any = None
        self.text_encoder: Any = None
        self.image_encoder: Any = None
        self.image_processor: Any = None
        self.vae: Any = None
        self.transformer: Any = None
        self.transformer_2: Any = None
        self.boundary_ratio: float | None = None
        self.empty_prompt: torch.Tensor | None = None
        """Embedding `[1, 512, D]` of no prompt, where captions are dropped."""

        self.text_encoder_autocast_context: Any = nullcontext()
        self.text_encoder_train_dtype = DataType.FLOAT_32
        self.text_encoder_offload_conductor: Any = None
        self.transformer_offload_conductor: Any = None
        self.transformer_2_offload_conductor: Any = None

        self.transformer_lora: Any = None
        self.transformer_2_lora: Any = None
        self.lora_state_dict: dict[str, torch.Tensor] | None = None
        self.lora_files: dict[str, Path] = {}
        """Where the adapter of each part was read from: a file, or the folder of a backup."""

        self.on_train_device: set[str] = set()
        """The parts that were materialized and not evicted since."""

    def diffusers_to_original(self) -> list[tuple[str, str]]:
        """The names of WAN's own code, which ComfyUI's and kohya's formats use."""
        return list(LAYER_NAMES)

    def experts(self) -> list[str]:
        """The transformers that are there: `transformer`, `transformer_2`, or both."""
        return [part for part in PART_OF.values() if getattr(self, part) is not None]

    def sample_encoders(self) -> list[str]:
        """The parts that turn a picture into what is trained on."""
        return ["vae"] if self.image_encoder is None else ["vae", "image_encoder"]

    def lora_parts(self) -> list[tuple[str, Any]]:
        """Each transformer that has an adapter, and the adapter."""
        loras = ((part, getattr(self, f"{part}_lora")) for part in self.experts())
        return [(part, lora) for part, lora in loras if lora is not None]

    def materialize(self, *parts: str) -> None:
        super().materialize(*parts)
        self.on_train_device |= set(parts)

    def evict(self, *parts: str) -> None:
        super().evict(*parts)
        self.on_train_device -= set(parts or self.model_type.model_parts())

    def activate(self, part: str) -> Any:
        """Have this transformer on the training device and the other one not; returns it."""
        others = [other for other in PART_OF.values() if other != part and other in self.on_train_device]
        if others:
            self.evict(*others)
        if part not in self.on_train_device:
            self.materialize(part)
        return getattr(self, part)

    def encode_text(
        self,
        *,
        text: list[str] | None = None,
        tokens: torch.Tensor | None = None,
        tokens_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings `[B, 512, D]` of prompts, or of tokens `[B, L]` with their mask."""
        with torch.no_grad(), self.autocast_context, self.text_encoder_autocast_context:
            if text is not None:
                return encode_prompts(self.tokenizer, self.text_encoder, text)
            assert tokens is not None and tokens_mask is not None, "a prompt or its tokens"
            hidden = self.text_encoder(tokens, tokens_mask).last_hidden_state
            return trim_embeddings(hidden, tokens_mask)

    def create_pipeline(self) -> Any:
        """The diffusers pipeline that samples with these parts, and whose layout they are saved in."""
        kind, more = WanPipeline, {}
        if self.variant.mode == "i2v":
            kind = WanImageToVideoPipeline
            more = {"image_encoder": self.image_encoder, "image_processor": self.image_processor}
        return kind(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=self.vae,
            scheduler=self.noise_scheduler,
            transformer=self.transformer,
            transformer_2=self.transformer_2,
            boundary_ratio=self.boundary_ratio,
            expand_timesteps=self.variant.mode == "ti2v",
            **more,
        )
