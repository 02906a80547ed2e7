"""Proves that a model works on a device: every part is loaded and a tiny clip is begun, which takes a step or two.

Each part is loaded by the class that WAN has for it, and from safetensors alone: no module that a folder's index names
is imported, since it could be code of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from wan_fixes.errors import CriticalError, UserError
from wan_fixes.hosts.standalone.model import load_part, load_scheduler, load_tokenizer
from wan_fixes.hosts.standalone.model_files import INDEX_NAME, ModelFolder, check_model_folder
from wan_fixes.wan.variants import VARIANTS, WanVariant

SIDE: Final = 128
"""Width and height in pixels: the least that is a multiple of what every WAN takes and has several tokens."""
FRAMES: Final = 5
"""One and the next four: two latent frames."""
_PROMPT: Final = "a red ball rolls over a green table"
_SEED: Final = 42


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeResult:
    """What a smoke test found.

    Attributes
    ----------
    model_type:
        OneTrainer's name of what the model is.
    device:
        Its name.
    seconds:
        By phase: loading, text encoding, denoising (with the first frame's encoding for image-to-video), decoding.
    peak_gpu_bytes:
        The most that tensors took of the GPU; None without one.
    """

    model_type: str
    folder: str
    device: str
    steps: int
    seconds: dict[str, float]
    peak_gpu_bytes: int | None


def smoke_test(
    folder: Path, variant: WanVariant, *, steps: int = 2, device: torch.device | str | None = None
) -> SmokeResult:
    """Load a model, denoise a clip of 5 frames of 128 x 128 pixels for some steps, decode it, and look at the numbers.

    On a GPU each part is moved there when its turn comes, so that the largest decides how much memory that takes.

    Parameters
    ----------
    folder:
        In diffusers' layout. Nothing is downloaded.
    steps:
        With two experts there are at least two, of which each takes half: their own boundary may leave all to one.
    device:
        None for the GPU where there is one, else the CPU.

    Raises
    ------
    UserError
        If the folder or the device cannot be used.
    CriticalError
        If the model makes numbers that are not finite, or the device fails, for want of memory or else.
    """
    device = _existing_device(device)
    steps = max(steps, variant.experts)
    clock = _Clock(device)
    with _device_errors(device):
        with clock.phase("loading"):
            pipeline = _load(check_model_folder(folder, variant), variant, steps)
            _place(pipeline, device)
        with torch.no_grad():
            with clock.phase("text encoding"):
                embeddings, _ = pipeline.encode_prompt(_PROMPT, do_classifier_free_guidance=False, device=device)
            _require_finite(embeddings, "the text encoder's embeddings")
            with clock.phase("denoising"):
                latents = _denoise(pipeline, variant, embeddings, steps)
            _require_finite(latents, "the latents")
            with clock.phase("decoding"):
                clip = pipeline.vae.decode(latents.to(pipeline.vae.dtype), return_dict=False)[0]
            _require_finite(clip, "the decoded clip")
    return SmokeResult(
        model_type=variant.name,
        folder=str(folder),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        steps=steps,
        seconds=clock.seconds,
        peak_gpu_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def variant_of(folder: Path) -> WanVariant:
    """What a folder in diffusers' layout is, by its index and the transformer's configuration.

    Of models that differ in size alone the one of that size is taken, and else the smallest. Raises ``UserError``.
    """
    index, config = (_read_object(folder / name) for name in (INDEX_NAME, "transformer/config.json"))
    second = index.get("transformer_2")
    experts = 2 if isinstance(second, list) and any(second) else 1
    alike = [
        variant
        for variant in VARIANTS.values()
        if variant.in_channels == config.get("in_channels", 16)
        and variant.experts == experts
        and variant.has_image_encoder == (config.get("image_dim") is not None)
    ]
    if not alike:
        raise UserError(
            "the folder is no WAN model",
            path=folder,
            reason=f"no WAN has {experts} transformers of {str(config.get('in_channels', 16))[:20]} channels",
            fix="name a folder of a WAN model, or a model that `wan models list` shows",
        )
    size = (config.get("num_attention_heads", 40), config.get("num_layers", 40))
    return next((variant for variant in alike if (variant.heads, variant.layers) == size), alike[0])


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _no_model(path, f"it cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise _no_model(path, "it holds no JSON object")
    return content


def _no_model(path: Path, reason: str) -> UserError:
    return UserError(
        "the folder is no model in diffusers' layout",
        path=path,
        reason=reason,
        fix="name a model that `wan models list` shows, or the folder that `wan models ensure` prints",
    )


def _existing_device(device: torch.device | str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"{str(device)[:40]!r} is no device", reason="", fix="take cuda or cpu") from error
    if found.type not in ("cuda", "cpu"):
        raise UserError(f"{found.type} is no device for this", reason="it runs on cuda and cpu", fix="take one of them")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"there is no device {found}",
            reason=f"PyTorch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices",
            fix="install PyTorch with CUDA and the GPU's driver, or test on the CPU with --device cpu",
        )
    return found


def _load(folder: ModelFolder, variant: WanVariant, steps: int) -> Any:
    """The diffusers pipeline of all parts, on the CPU: in bf16, but for what encodes images, which is small."""
    from diffusers import WanImageToVideoPipeline, WanPipeline

    parts: dict[str, Any] = {
        name: load_part(name, part, torch.float32 if name in ("vae", "image_encoder") else torch.bfloat16)
        for name, part in folder.parts.items()
    }
    parts |= {"tokenizer": load_tokenizer(folder), "scheduler": load_scheduler(folder)}
    if variant.experts == 2:
        parts["boundary_ratio"] = _halfway(parts["scheduler"], steps)
    if variant.has_image_encoder:
        from transformers import CLIPImageProcessor

        processor = folder.path / "image_processor"
        parts["image_processor"] = CLIPImageProcessor.from_pretrained(processor, local_files_only=True)
    kind = WanImageToVideoPipeline if variant.mode == "i2v" else WanPipeline
    return kind(**parts, expand_timesteps=variant.mode == "ti2v")


def _halfway(scheduler: Any, steps: int) -> float:
    """The sigma between the first half of the steps and the second."""
    scheduler.set_timesteps(steps)
    before, after = scheduler.timesteps[steps // 2 - 1 : steps // 2 + 1].tolist()
    return (before + after) / 2 / scheduler.config.num_train_timesteps


def _place(pipeline: Any, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        pipeline.enable_model_cpu_offload(device=device)
    pipeline.set_progress_bar_config(disable=True)


def _denoise(pipeline: Any, variant: WanVariant, embeddings: torch.Tensor, steps: int) -> torch.Tensor:
    """Latents ``[1, C, 2, h, w]`` of a clip, after so many steps of as many."""
    options: dict[str, Any] = {}
    if variant.mode == "i2v":
        from PIL import Image

        options["image"] = Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB")
    return pipeline(
        prompt_embeds=embeddings,
        height=SIDE,
        width=SIDE,
        num_frames=FRAMES,
        num_inference_steps=steps,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(_SEED),
        output_type="latent",
        **options,
    ).frames


def _require_finite(tensor: torch.Tensor, what: str) -> None:
    bad = int((~tensor.isfinite()).sum())
    if bad:
        raise CriticalError(
            "the model does not work",
            reason=f"{what} hold {bad} of {tensor.numel()} numbers that are not finite (NaN or infinity)",
            fix="`wan models verify` tells whether the files are genuine; if they are, test with --device cpu",
            module="smoke",
        )


@contextmanager
def _device_errors(device: torch.device) -> Iterator[None]:
    """What a device fails with, as an error that says what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CriticalError(
            "the model does not fit into memory",
            reason=str(error) or "there is no main memory left",
            fix="close other programs; `wan models check` says how much the model takes",
            module="smoke",
        ) from error
    except RuntimeError as error:  # the boundary to the device: a kernel that is not there, a driver too old, a fault
        raise CriticalError(
            f"the model does not run on {device}",
            reason=str(error),
            fix="install a PyTorch that was built for this GPU, or test with --device cpu"
            if device.type == "cuda"
            else "`wan models verify` tells whether the files are genuine",
            module="smoke",
        ) from error


class _Clock:
    """Seconds by phase, with all that the device was given to do."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[name] = time.perf_counter() - began
