"""WAN itself: variants, latents, timesteps, flow matching, prompts, conditioning, LoRA keys. Knows no host."""

from __future__ import annotations
