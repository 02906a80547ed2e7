"""One thread at a time in the VAE, whoever calls it: the pipeline's threads, the sampler, stock modules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from wan_fixes.pipeline.vae_lock import vae_lock


def serialize_access(vae: Any) -> None:
    """Have `vae.encode` and `vae.decode` wait for one another.

    `AutoencoderKLWan` keeps a feature cache in the object, and OneTrainer encodes with two threads by default. Its own
    encoder module takes no lock, and it is what runs while our modules are switched off.
    """
    lock = vae_lock(vae)
    for name in ("encode", "decode"):
        setattr(vae, name, _locked(getattr(vae, name), lock))


class Tiled(nullcontext[None]):
    """Tells the sample cache, by its name among an encoder's contexts, that latents were made in tiles."""


def _locked(method: Callable[..., Any], lock: Any) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        with lock:
            return method(*arguments, **options)

    return call
