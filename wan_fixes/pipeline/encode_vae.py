"""Pictures to latents: one thread at a time, on the VAE's own device, and never a NaN."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from wan_fixes.errors import CriticalError, SampleError
from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule
from wan_fixes.pipeline.checks import describe, problem_with
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.vae_lock import vae_lock

# Other threads' pictures may take the memory of a GPU for a moment, as MGDS found: an encode is tried so often.
MEMORY_ATTEMPTS = 3


class RobustTemporalVAE(PipelineModule, RandomAccessPipelineModule):
    """In place of MGDS's EncodeVAE, with its arguments.

    Takes ``[C, H, W]`` or ``[C, F, H, W]``; yields the VAE's latent distribution (or its latent, for a VAE that has
    no distribution), with a batch dimension of 1 as MGDS's module does.
    """

    def __init__(
        self,
        in_name: str,
        out_name: str,
        vae: Any,
        autocast_contexts: list[Any] | None = None,
        dtype: torch.dtype | None = None,
        sample_mode: str = "sample",
        *,
        context: PipelineContext,
    ) -> None:
        super().__init__()
        self.in_name = in_name
        self.out_name = out_name
        self.vae = vae
        self.autocast_contexts = [nullcontext()] if autocast_contexts is None else autocast_contexts
        self.dtype = dtype
        self.sample_mode = sample_mode
        self.context = context

    def length(self) -> int:
        return int(self._get_previous_length(self.in_name))

    def get_inputs(self) -> list[str]:
        return [self.in_name]

    def get_outputs(self) -> list[str]:
        return [self.out_name]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        picture = self._get_previous_item(variation, self.in_name, index)
        problem = problem_with(picture)
        if problem is not None:
            raise SampleError(
                "a sample cannot be encoded", reason=f"'{self.in_name}' {problem}", module=type(self).__name__
            )
        parameter = next(iter(self.vae.parameters()))
        picture = picture.to(device=parameter.device, dtype=self.dtype or picture.dtype)
        with vae_lock(self.vae):
            latent = self._encode(picture.unsqueeze(0))
        self._check(latent, picture)
        return {self.out_name: latent}

    def _encode(self, picture: torch.Tensor) -> Any:
        for attempt in range(1, MEMORY_ATTEMPTS + 1):
            try:
                with self._all_contexts(self.autocast_contexts), torch.no_grad():
                    output = self.vae.encode(picture)
                return output.latent_dist if hasattr(output, "latent_dist") else output.latent.squeeze(dim=0)
            except torch.OutOfMemoryError as error:
                self.context.metrics.count("vae_out_of_memory")
                if attempt == MEMORY_ATTEMPTS:
                    raise CriticalError(
                        "the VAE needs more GPU memory than there is",
                        reason=f"encoding {describe(picture)}: {error}",
                        fix="lower the resolution or the number of frames, or close other programs that use the GPU",
                        module=type(self).__name__,
                    ) from error
                self._torch_gc()
        raise AssertionError("unreachable")

    def _check(self, latent: Any, picture: torch.Tensor) -> None:
        mean = latent if isinstance(latent, torch.Tensor) else latent.mode()
        problem = problem_with(mean)
        if problem is not None:
            raise SampleError(
                "the VAE made an unusable latent",
                reason=f"of {describe(picture)}: it {problem}",
                fix="encode with a more precise VAE dtype (float 32 or bfloat 16)",
                module=type(self).__name__,
            )
