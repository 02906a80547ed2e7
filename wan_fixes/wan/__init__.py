"""WAN itself: variants, latents, timesteps, flow matching, prompts, image conditioning, LoRA keys. Knows no host and no pipeline."""

from __future__ import annotations
