"""What a training step, the VAE and the text encoder take of a GPU's memory, against what `wan models check` says.

    python benchmarks/vram.py [--model ID ...] [--frames N ...] [--size WIDTHxHEIGHT] [--phase NAME ...]

The released architectures from configurations in this file, with random weights: nothing is downloaded. The step is a
LoRA's, of rank 16, in bf16 with gradient checkpointing, through diffusers and PEFT as the trainer has it; the
optimizer's averages are there as tensors.

On a CUDA machine it is run for real. "measured" is the most that tensors took, "reserved" what PyTorch asked of the
driver for them, "other" what the GPU lost besides: CUDA itself. Elsewhere it is run on tensors without content, which
takes no memory and half a minute a row: every allocation is counted, and kernels' own workspaces are not.
"estimate" leaves out the allowance for CUDA.
"""

from __future__ import annotations

import argparse
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import UMT5Config, UMT5EncoderModel

from wan_fixes.models import ModelSpec, load_manifest
from wan_fixes.models.vram import RUNTIME_BYTES, Phase, estimate, spatial_stride, token_count
from wan_fixes.wan.flow import flow_matching_loss
from wan_fixes.wan.lora import add_lora

RANK = 16
_GIB = 1 << 30
# From transformer/config.json of the released repositories, where it differs from diffusers' defaults.
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "t2v-1.3B": {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
    "t2v-14B": {},
    "i2v-14B": {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120},
    "t2v-A14B": {},
    "i2v-A14B": {"in_channels": 36},
    "ti2v-5B": {
        "num_attention_heads": 24,
        "num_layers": 30,
        "ffn_dim": 14336,
        "in_channels": 48,
        "out_channels": 48,
    },
}
# From vae/config.json of Wan-AI/Wan2.2-TI2V-5B-Diffusers, less the statistics of its latents.
VAE_5B: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
# From text_encoder/config.json, which is the same everywhere.
UMT5 = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


class Counter(TorchDispatchMode):
    """Adds up what all operations allocate, in blocks of 512 bytes as CUDA's allocator does, and what is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor)
        return result

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = -(-storage.nbytes() // 512) * 512
        self._known[storage] = None
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._let_go, size)

    def _let_go(self, size: int) -> None:
        self.now -= size


class Machine:
    """Where it runs: a GPU, or nowhere, on tensors without content."""

    def __init__(self) -> None:
        self.has_gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.has_gpu else "cpu")
        self._fake = None if self.has_gpu else FakeTensorMode(allow_non_fake_inputs=True)

    def tensors(self) -> Any:
        """Within it tensors are made on the GPU, or without content."""
        return torch.device(self.device) if self._fake is None else self._fake

    @contextmanager
    def measuring(self, found: dict[str, int], modules: list[torch.nn.Module]) -> Iterator[None]:
        """Put into `found` the most bytes that tensors take within it, those of `modules` included."""
        if self.has_gpu:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            yield
            torch.cuda.synchronize()
            free, total = torch.cuda.mem_get_info()
            found["measured"] = torch.cuda.max_memory_allocated()
            found["reserved"] = torch.cuda.max_memory_reserved()
            found["other"] = total - free - torch.cuda.memory_reserved()
            return
        counter = Counter()
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                counter.add(tensor)
        with self.tensors(), counter:
            yield
        found["measured"] = counter.most

    def filled(self, make: Callable[[], torch.nn.Module], dtype: torch.dtype, keep: list[str] | None = None) -> Any:
        """A module that `make` makes without content, brought here with small random weights.

        Parameters
        ----------
        keep:
            Parts of names of weights that stay in fp32; so do those that are trained.
        """
        torch.set_default_dtype(dtype)
        try:
            with torch.device("meta"):
                module = make()
        finally:
            torch.set_default_dtype(torch.float32)
        with self.tensors():
            # Tied weights are one parameter under several names.
            here: dict[int, torch.nn.Parameter] = {}
            for name, parameter in list(module.named_parameters(remove_duplicate=False)):
                is_fp32 = parameter.requires_grad or not set(keep or ()).isdisjoint(name.split("."))
                if id(parameter) not in here:
                    made = torch.empty(parameter.shape, dtype=torch.float32 if is_fp32 else dtype, device=self.device)
                    here[id(parameter)] = torch.nn.Parameter(
                        made.normal_(std=0.02), requires_grad=parameter.requires_grad
                    )
                _set(module, name, here[id(parameter)])
            for name, buffer in list(module.named_buffers()):
                _set(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype, device=self.device))
        return module

    def letting_go(self) -> None:
        gc.collect()
        if self.has_gpu:
            torch.cuda.empty_cache()


def _set(module: torch.nn.Module, name: str, value: Any) -> None:
    owner, _, own_name = name.rpartition(".")
    setattr(module.get_submodule(owner) if owner else module, own_name, value)


def measure_step(machine: Machine, spec: ModelSpec, frames: int, height: int, width: int) -> dict[str, int]:
    """Two steps of a LoRA: the second has the gradients and averages of the first."""
    config = {**TRANSFORMERS[spec.model_id], "num_layers": spec.vram.layers}

    def make() -> torch.nn.Module:
        module = WanTransformer3DModel(**config)
        add_lora(module, RANK, RANK)
        return module

    transformer = machine.filled(make, torch.bfloat16, WanTransformer3DModel._keep_in_fp32_modules)
    transformer.enable_gradient_checkpointing()
    transformer.train()
    parameters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    found: dict[str, int] = {}
    with machine.measuring(found, [transformer]), torch.device(machine.device):
        averages = [torch.zeros_like(parameter) for parameter in parameters for _ in range(2)]
        for _ in range(2):
            with torch.autocast(machine.device.type, torch.bfloat16):
                loss = _loss(transformer, spec, frames, height, width)
            loss.backward()
        del averages, loss
    return found


def _loss(transformer: Any, spec: ModelSpec, frames: int, height: int, width: int) -> torch.Tensor:
    stride, config = spatial_stride(spec), transformer.config
    shape = (1, config.in_channels, (frames - 1) // 4 + 1, height // stride, width // stride)
    times = torch.full((1,), 500.0)
    if spec.mode == "ti2v":  # OneTrainer keeps the first frame of its clips, so that each token has a time of its own
        times = times.expand(1, token_count(spec, frames, height, width))
    image = torch.randn(1, 257, config.image_dim, dtype=torch.bfloat16) if config.image_dim else None
    predicted = transformer(
        hidden_states=torch.randn(shape, dtype=torch.bfloat16),
        timestep=times,
        encoder_hidden_states=torch.randn(1, 512, config.text_dim, dtype=torch.bfloat16),
        encoder_hidden_states_image=image,
        return_dict=False,
    )[0]
    return flow_matching_loss(predicted, torch.randn(predicted.shape), torch.ones(1))


def measure_vae(machine: Machine, spec: ModelSpec, frames: int, height: int, width: int) -> dict[str, int]:
    """Encoding one clip in fp32."""
    config = VAE_5B if spec.mode == "ti2v" else {}
    vae = machine.filled(lambda: AutoencoderKLWan(**config).requires_grad_(False), torch.float32)
    found: dict[str, int] = {}
    with machine.measuring(found, [vae]), torch.device(machine.device), torch.no_grad():
        vae.encode(torch.randn(1, 3, frames, height, width))
    return found


def measure_text(machine: Machine) -> dict[str, int]:
    """Encoding one caption of 512 tokens in bf16."""

    def make() -> torch.nn.Module:
        return UMT5EncoderModel(UMT5Config(**UMT5)).requires_grad_(False).eval()

    encoder = machine.filled(make, torch.bfloat16)
    found: dict[str, int] = {}
    with machine.measuring(found, [encoder]), torch.device(machine.device), torch.no_grad():
        tokens = torch.ones(1, 512, dtype=torch.long)
        encoder(tokens, torch.ones_like(tokens))
    return found


def rows(machine: Machine, arguments: argparse.Namespace) -> Iterator[tuple[str, Phase, int, int, dict[str, int]]]:
    """Model, phase, frames, the estimate in bytes, and what was found; nothing where it is too large."""
    width, height = map(int, arguments.size.split("x"))
    phases: dict[str, tuple[Phase, Callable[[ModelSpec, int], dict[str, int]]]] = {
        "text": (Phase.TEXT_ENCODING, lambda spec, frames: measure_text(machine)),
        "vae": (Phase.VAE_ENCODING, lambda spec, frames: measure_vae(machine, spec, frames, height, width)),
        "step": (Phase.TRAINING_STEP, lambda spec, frames: measure_step(machine, spec, frames, height, width)),
    }
    for model in arguments.model:
        spec = load_manifest().find(model)[0]
        for name in arguments.phase:
            phase, measure = phases[name]
            for frames in arguments.frames[:1] if name == "text" else arguments.frames:
                found = estimate(spec, frames=frames, height=height, width=width, lora_rank=RANK)
                wanted = next(part.total for part in found.phases if part.phase is phase) - RUNTIME_BYTES
                try:
                    measured = measure(spec, frames)
                except torch.OutOfMemoryError:
                    measured = {}
                yield model, phase, frames, wanted, measured
                machine.letting_go()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=TRANSFORMERS, default=["t2v-1.3B", "ti2v-5B"])
    parser.add_argument("--frames", nargs="+", type=int, default=[17, 49, 81])
    parser.add_argument("--size", default="832x480", help="width and height in pixels")
    parser.add_argument("--phase", nargs="+", choices=["text", "vae", "step"], default=["text", "vae", "step"])
    arguments = parser.parse_args()
    machine = Machine()
    name = torch.cuda.get_device_name() if machine.has_gpu else "no GPU: allocations counted, nothing computed"
    print(f"{name}; PyTorch {torch.__version__}; {arguments.size}; GiB")
    print(
        f"{'model':10}{'phase':16}{'frames':>6}{'measured':>10}{'estimate':>10}{'ratio':>7}{'reserved':>10}{'other':>7}"
    )
    for model, phase, frames, wanted, found in rows(machine, arguments):
        line = f"{model:10}{phase.value:16}{frames:6}"
        if not found:
            print(f"{line}{'too large':>10}{wanted / _GIB:10.2f}")
            continue
        measured = found["measured"]
        line += f"{measured / _GIB:10.2f}{wanted / _GIB:10.2f}{wanted / measured:7.2f}"
        if machine.has_gpu:
            line += f"{found['reserved'] / _GIB:10.2f}{found['other'] / _GIB:7.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
