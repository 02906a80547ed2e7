"""Writes the golden file of a WAN model: what diffusers' pipelines and scheduler make of clips, captions and noise.

    python -I wan_reference.py REQUEST.json GOLDEN.safetensors

A program of its own, run before the code under test and without a line of it: it imports torch, numpy, diffusers and
safetensors alone. The request names the folder of the model (`model`), the pixels of the clips (`clips`: uint8
`[N, F, H, W, 3]` in an .npy file), their `captions`, the timestep `shift`, how many `levels` validation has of each
expert, the names of the `experts` in order, and which of them trains at which of the `steps` (`[step, expert]`). What
a run is free to choose is fixed here: a step's seed is its number and validation's is 0, the noise is drawn first and
then the noise levels, evenly before the shift.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanPipeline
from PIL import Image
from safetensors.torch import save_file


class Reference:
    """One model and its clips.

    `tensors` holds what is written: of clip `n` under `clip{n}/…`, and of a batch in the order `01` under
    `step{step}/01/…` and `validation/01/…`, its levels one after the other.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        index = json.loads(Path(request["model"], "model_index.json").read_text(encoding="utf-8"))
        # The 5B is released with the text-to-video pipeline, and goes on from images with the other one.
        self.sees_image = index["_class_name"] == "WanImageToVideoPipeline" or index.get("expand_timesteps", False)
        kind = WanImageToVideoPipeline if self.sees_image else WanPipeline
        self.pipeline = kind.from_pretrained(request["model"])
        self.keeps_first = self.pipeline.config.expand_timesteps
        self.boundary = self.pipeline.config.boundary_ratio
        self.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=request["shift"])
        self.clips = np.load(request["clips"])
        self.tensors: dict[str, torch.Tensor] = {}

    def write(self, path: str) -> None:
        for number in range(len(self.clips)):
            self.encode(number)
        for order in itertools.permutations(range(len(self.clips))):
            for step, expert in self.request["steps"]:
                self.train(step, expert, order)
            self.validate(order)
        save_file(self.tensors, path)

    def encode(self, number: int) -> None:
        """Latents, text and conditions of a clip."""
        pipeline, frames = self.pipeline, [Image.fromarray(frame) for frame in self.clips[number]]
        height, width = self.clips.shape[2:4]
        video = pipeline.video_processor.preprocess_video(frames, height=height, width=width)
        config = pipeline.vae.config
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
        raw = pipeline.vae.encode(video).latent_dist.mode()
        text, _ = pipeline.encode_prompt(
            self.request["captions"][number], do_classifier_free_guidance=False, max_sequence_length=512
        )
        made = {"raw_latents": raw, "latents": (raw - mean) / std, "text": text}
        if self.sees_image:
            image = pipeline.video_processor.preprocess(frames[0], height=height, width=width)
            prepared = pipeline.prepare_latents(
                image, 1, config.z_dim, height, width, len(frames), torch.float32, torch.device("cpu")
            )
            made["condition"] = prepared[1]
            if self.keeps_first:
                made["mask"] = prepared[2]
        if getattr(pipeline, "image_encoder", None) is not None:
            made["image"] = pipeline.encode_image(frames[0])
        self.tensors |= {f"clip{number}/{name}": tensor.contiguous() for name, tensor in made.items()}

    def batch(self, name: str, order: tuple[int, ...]) -> torch.Tensor:
        return torch.cat([self.tensors[f"clip{number}/{name}"] for number in order])

    def bounds(self, expert: str) -> tuple[float, float]:
        """Where an expert's levels begin and end before the shift."""
        shift = self.request["shift"]
        edge = None if self.boundary is None else self.boundary / (shift - (shift - 1) * self.boundary)
        if edge is None:
            return 0.0, 1.0
        return (edge, 1.0) if expert == "high" else (0.0, edge)

    def shifted(self, expert: str, unit: torch.Tensor) -> torch.Tensor:
        """Timesteps at `unit` (0 to 1) of an expert's range, which the scheduler then knows."""
        low, high = self.bounds(expert)
        self.scheduler.set_timesteps(sigmas=(low + (high - low) * unit).numpy())
        return self.scheduler.timesteps

    def train(self, step: int, expert: str, order: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(step)
        noise = torch.randn(self.batch("latents", order).shape, generator=generator)
        timesteps = self.shifted(expert, torch.rand(len(order), generator=generator))
        found = self.velocity(expert, order, noise, timesteps)
        found["loss"] = self.loss(found["velocity"], found["target"])
        self.keep(f"step{step}", order, found)

    def validate(self, order: tuple[int, ...]) -> None:
        levels = self.request["levels"]
        noise = torch.randn(self.batch("latents", order).shape, generator=torch.Generator().manual_seed(0))
        found = []
        for expert in self.request["experts"]:
            for timestep in self.shifted(expert, (torch.arange(levels) + 0.5) / levels):
                found.append(self.velocity(expert, order, noise, timestep.expand(len(order))))
        joined = {name: torch.cat([level[name] for level in found]) for name in found[0]}
        joined["loss"] = self.loss(joined["velocity"], joined["target"])
        self.keep("validation", order, joined)

    def velocity(
        self, expert: str, order: tuple[int, ...], noise: torch.Tensor, timesteps: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The denoising loop of diffusers' pipelines at one timestep of each sample, up to the transformer's answer."""
        latents = self.batch("latents", order)
        hidden, time = self.scheduler.scale_noise(latents, timesteps, noise), timesteps
        image = None
        if self.keeps_first:
            mask = self.batch("mask", order)
            hidden = (1 - mask) * self.batch("condition", order) + mask * hidden
            time = (mask[:, 0, :, ::2, ::2] * timesteps.view(-1, 1, 1, 1)).flatten(1)
        elif self.sees_image:
            hidden = torch.cat([hidden, self.batch("condition", order)], dim=1)
        if f"clip{order[0]}/image" in self.tensors:
            image = self.batch("image", order)
        high = self.boundary is None or all(timesteps >= self.boundary * 1000)
        assert high == (expert == "high"), "the levels are on the other side of the boundary"
        transformer = self.pipeline.transformer if high else self.pipeline.transformer_2
        velocity = transformer(
            hidden_states=hidden,
            timestep=time,
            encoder_hidden_states=self.batch("text", order),
            encoder_hidden_states_image=image,
            return_dict=False,
        )[0]
        return {
            "hidden_states": hidden,
            "timestep": time,
            "velocity": velocity,
            "target": noise - latents,
        }

    def loss(self, velocity: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Over what is denoised: the 5B's first frame is given."""
        return (velocity - target)[:, :, 1 if self.keeps_first else 0 :].square().mean()

    def keep(self, name: str, order: tuple[int, ...], found: dict[str, torch.Tensor]) -> None:
        place = f"{name}/{''.join(map(str, order))}"
        self.tensors |= {f"{place}/{key}": value.contiguous() for key, value in found.items()}


if __name__ == "__main__":
    with torch.no_grad():
        Reference(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).write(sys.argv[2])
    strangers = {"wan_fixes", "modules", "mgds"} & {name.partition(".")[0] for name in sys.modules}
    assert not strangers, f"no independent computation: {strangers} were imported"
