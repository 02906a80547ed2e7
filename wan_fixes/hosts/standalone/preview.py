"""Sample clips: what the model being trained makes of a prompt, as an mp4.

The live transformer is put into diffusers' own `WanPipeline`, so that a preview is what the saved LoRA will give there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from wan_fixes.errors import CriticalError
from wan_fixes.hosts.standalone.model import WanModel
from wan_fixes.pipeline.vae_lock import vae_lock
from wan_fixes.wan.text import encode_prompts

_BT709 = 1
"""FFmpeg's number of BT.709 among colour spaces, primaries and transfer characteristics alike."""


def make_preview(
    model: WanModel,
    path: Path | str,
    *,
    prompt: str,
    width: int,
    height: int,
    frames: int,
    negative_prompt: str = "",
    seed: int = 42,
    steps: int = 30,
    guidance_scale: float = 5.0,
    device: torch.device | str | None = None,
) -> Path:
    """Sample a clip with the model as it is and write it as an mp4 at the variant's frame rate.

    Takes the arguments of `sample_clip`; the file is there whole or not at all. The model is left as it was.

    Raises
    ------
    CriticalError
        If the model makes NaN, or the file cannot be written.
    """
    clip = sample_clip(
        model,
        prompt=prompt,
        width=width,
        height=height,
        frames=frames,
        negative_prompt=negative_prompt,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        device=device,
    )
    return write_mp4(path, clip, fps=model.variant.fps)


def sample_clip(
    model: WanModel,
    *,
    prompt: str,
    width: int,
    height: int,
    frames: int,
    negative_prompt: str = "",
    seed: int = 42,
    steps: int = 30,
    guidance_scale: float = 5.0,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """Sample a clip with the model as it is.

    Parameters
    ----------
    width, height:
        Pixels, multiples of the variant's `spatial_multiple`.
    frames:
        4n + 1.
    seed:
        Of the starting noise, which is drawn on the CPU: the same for every device. No other generator is used.
    guidance_scale:
        1 is no guidance: the negative prompt is not used, and it takes half the time.
    device:
        Where to sample; the transformer's when None. What is elsewhere is moved there and back. Prompts are encoded
        where the text encoder is.

    Returns
    -------
    uint8 `[F, H, W, 3]`, RGB.
    """
    from diffusers import WanPipeline

    device = torch.device(device) if device is not None else model.transformer.device
    prompts = [prompt, negative_prompt] if guidance_scale > 1.0 else [prompt]
    with _evaluating([model.text_encoder]), torch.no_grad():
        embeddings = encode_prompts(model.tokenizer, model.text_encoder, prompts).to(device)
    # The lock is held throughout: a loader thread must not encode with a VAE that is on its way elsewhere.
    with vae_lock(model.vae), _evaluating([model.vae, model.transformer, model.transformer_2], device):
        pipeline = WanPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=model.vae,
            # A scheduler keeps state while sampling, so that each clip gets its own.
            scheduler=type(model.scheduler).from_config(model.scheduler.config),
            transformer=model.transformer,
            transformer_2=model.transformer_2,
            boundary_ratio=model.boundary_ratio,
        )
        pipeline.set_progress_bar_config(desc="sample clip", leave=False)
        video = pipeline(
            prompt_embeds=embeddings[:1],
            negative_prompt_embeds=embeddings[1:] if guidance_scale > 1.0 else None,
            width=width,
            height=height,
            num_frames=frames,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        ).frames[0]
    if not np.isfinite(video).all():
        raise CriticalError(
            "the model makes no picture any more",
            reason="its output is not a number (NaN)",
            fix="train again from an earlier checkpoint, with a lower learning rate",
            module="preview",
        )
    return (video * 255.0).round().astype(np.uint8)


def write_mp4(path: Path | str, clip: np.ndarray, *, fps: int) -> Path:
    """Write uint8 `[F, H, W, 3]` RGB, even height and width, as H.264 with BT.709 colours that every player shows.

    Raises
    ------
    CriticalError
        If it cannot be written; an earlier file of that name is left as it was.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
            stream.height, stream.width = clip.shape[1:3]
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            for position, picture in enumerate(clip):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
                frame.pts, frame.time_base = position, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        partial.replace(path)
    except (OSError, av.FFmpegError) as error:
        raise CriticalError(
            "the sample clip cannot be written",
            path=path,
            reason=str(error),
            fix="check free space and permissions",
            module="preview",
        ) from error
    finally:
        with suppress(OSError):  # what matters has been done or raised
            partial.unlink()
    return path


@contextmanager
def _evaluating(modules: list[torch.nn.Module | None], device: torch.device | None = None) -> Iterator[None]:
    """Modules in evaluation mode, on `device` if one is given; afterwards each is as and where it was."""
    present = [module for module in modules if module is not None]
    before: list[tuple[dict[str, bool], Any]] = [
        ({name: m.training for name, m in module.named_modules()}, module.device) for module in present
    ]
    try:
        for module in present:
            module.eval()
            if device is not None:
                module.to(device)
        yield
    finally:
        for module, (training, place) in zip(present, before, strict=True):
            module.to(place)
            for name, child in module.named_modules():
                child.training = training[name]
