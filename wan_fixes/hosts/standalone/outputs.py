"""What a run leaves behind for its user: the LoRA file and the sample clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from wan_fixes.errors import CriticalError
from wan_fixes.hosts.standalone.devices import DTYPES
from wan_fixes.hosts.standalone.host import HostRun
from wan_fixes.hosts.standalone.model import WanModel
from wan_fixes.hosts.standalone.preview import make_preview
from wan_fixes.hosts.standalone.samples import SampleDefinition
from wan_fixes.wan.lora import lora_metadata, lora_state_dict, save_lora
from wan_fixes.wan.lora_keys import lora_to_format


def write_lora(host: HostRun, model: WanModel, path: Path, *, steps: int) -> Path:
    """Write the LoRA as it is after `steps` updates. Raises ``CriticalError`` when the disk refuses."""
    preset = host.preset
    metadata = lora_metadata(preset.variant, rank=preset.lora_rank, alpha=preset.lora_alpha, steps=steps)
    state = lora_state_dict(model.transformer, dtype=DTYPES[preset.output_dtype])
    save_lora(path, lora_to_format(state, preset.output_model_format), metadata)
    host.run.event("lora_saved", f"LoRA written: {path.name}", path=str(path), step=steps)
    return path


def write_previews(
    host: HostRun, model: WanModel, device: torch.device, *, example: dict[str, Any] | None, steps: int
) -> tuple[Path, ...]:
    """Make the preset's sample clips, or where it names none one of the training prompt in `example`, a batch.

    A clip that cannot be made is named: the LoRA is written by then, and the run goes well without.
    """
    made = []
    for number, sample in enumerate(_samples(host, example)):
        path = host.preset.workspace_dir / "samples" / f"{steps:06d}-{number}.mp4"
        try:
            _write_preview(host, model, device, sample, example, path)
        except (CriticalError, torch.OutOfMemoryError) as error:
            host.say("sample_failed", f"a sample clip could not be made: {error}", prompt=sample.prompt)
            continue
        made.append(path)
        host.run.event("sample_saved", f"sample clip written: {path.name}", path=str(path))
        host.emit("sample_saved", path=str(path), prompt=sample.prompt)
    return tuple(made)


def _samples(host: HostRun, example: dict[str, Any] | None) -> tuple[SampleDefinition, ...]:
    if host.preset.samples or example is None:
        return host.preset.samples
    return (SampleDefinition(prompt=example["prompt"][0]),)


def _write_preview(
    host: HostRun,
    model: WanModel,
    device: torch.device,
    sample: SampleDefinition,
    example: dict[str, Any] | None,
    path: Path,
) -> None:
    side = 16 * host.preset.variant.spatial_multiple
    sizes = [[host.preset.frames], [side], [side]] if example is None else example["crop_resolution"]
    frames, height, width = (int(size[0]) for size in sizes)
    make_preview(
        model,
        path,
        prompt=sample.prompt,
        negative_prompt=sample.negative_prompt,
        width=sample.width or width,
        height=sample.height or height,
        frames=sample.frames or frames,
        seed=sample.seed,
        steps=sample.diffusion_steps,
        guidance_scale=sample.cfg_scale,
        device=device,
    )
