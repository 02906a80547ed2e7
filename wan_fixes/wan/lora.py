"""LoRA on `WanTransformer3DModel`: which layers, adding it with PEFT, and the file that others read.

The file has diffusers' keys (`transformer.blocks.0.attn1.to_q.lora_A.weight`) and loads with
`WanPipeline.load_lora_weights`. Two experts are two files: diffusers reads the prefix `transformer` alone, also with
`load_into_transformer_2=True`, and passes over `transformer_2` keys without a word.

**Alpha is folded into it**: `lora_B` is stored times alpha / rank. diffusers' keys have no place for alpha, and readers
then take alpha = rank, so an unfolded file would act with the wrong strength wherever the two differ. For
resuming, where every bit counts, the raw weights are kept apart (`adapter_state`, `load_adapter_state`).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch

from wan_fixes import __version__
from wan_fixes.errors import CriticalError, UserError

if TYPE_CHECKING:
    from wan_fixes.wan.variants import WanVariant

DEFAULT_TARGET_MODULES: tuple[str, ...] = (
    *(f"{attention}.{layer}" for attention in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v", "to_out.0")),
    "ffn.net.0.proj",
    "ffn.net.2",
)
"""Every linear layer of the blocks' attention and feed-forward: what WAN LoRAs commonly train."""

ADAPTER_NAME = "default"


def select_target_modules(
    transformer: torch.nn.Module, layer_filter: str | Sequence[str] = "", *, regex: bool = False
) -> list[str]:
    """Full names of the linear layers that a preset's `layer_filter` asks for, in the model's order.

    Parameters
    ----------
    layer_filter:
        OneTrainer's: patterns, separated by commas or already apart, each a piece of a layer's name, or with `regex` an
        expression that is searched in it. Empty: `DEFAULT_TARGET_MODULES` of every block.

    Raises
    ------
    UserError
        If an expression cannot be read, or a pattern matches no linear layer: it is a typing error, and training fewer
        layers than asked for would go unnoticed.
    """
    layers = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    parts = layer_filter.split(",") if isinstance(layer_filter, str) else layer_filter
    patterns = [part.strip() for part in parts if part.strip()]
    if not patterns:
        return [name for name in layers if name.endswith(tuple(f".{suffix}" for suffix in DEFAULT_TARGET_MODULES))]
    selected: set[str] = set()
    for pattern in patterns:
        try:
            expression = re.compile(pattern if regex else re.escape(pattern))
        except re.error as error:
            raise UserError(
                f"the layer filter {pattern!r} is not a regular expression",
                reason=str(error),
                fix="mend layer_filter, or switch layer_filter_regex off",
            ) from error
        matching = {name for name in layers if expression.search(name)}
        if not matching:
            raise UserError(
                f"the layer filter {pattern!r} matches no layer",
                reason=f"layers are called {', '.join(layers[:3])}, …" if layers else "the model has no linear layer",
                fix="change layer_filter, or leave it empty for attention and feed-forward",
            )
        selected |= matching
    return [name for name in layers if name in selected]


def add_lora(
    transformer: Any,
    rank: int,
    alpha: float,
    target_modules: Sequence[str] | None = None,
    dropout: float = 0.0,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> list[torch.nn.Parameter]:
    """Add a LoRA adapter with PEFT, freeze everything else, and return the adapter's parameters.

    Parameters
    ----------
    transformer:
        `WanTransformer3DModel` without an adapter.
    rank, alpha:
        The layer's output grows by `alpha / rank * B(A(x))`. B starts as zeros.
    target_modules:
        Layer names or their endings; `DEFAULT_TARGET_MODULES` when None.
    dropout:
        Probability with which an input of A is dropped while training.
    seed:
        Decides A's first values, whatever the device and the state of the global generator.
    dtype:
        Of the adapter's weights. fp32 even over a bf16 model, where PEFT would follow the model: in bf16, small
        optimizer steps round to nothing.
    """
    from peft import LoraConfig

    if rank < 1:
        raise UserError(f"a LoRA rank of {rank} cannot be used", reason="it has to be at least 1", fix="set lora_rank")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT divides it by the rank: any number will do
        lora_dropout=dropout,
        target_modules=list(target_modules or DEFAULT_TARGET_MODULES),
        init_lora_weights=True,
    )
    transformer.requires_grad_(False)
    transformer.add_adapter(config, adapter_name=ADAPTER_NAME)
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for _, layer in _lora_layers(transformer):
        down, up = layer.lora_A[ADAPTER_NAME], layer.lora_B[ADAPTER_NAME]
        down.to(dtype)
        up.to(dtype)
        first = torch.empty(down.weight.shape)
        torch.nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)  # PEFT's own initialisation
        with torch.no_grad():
            down.weight.copy_(first)
        parameters += [down.weight, up.weight]
    return parameters


def lora_state_dict(
    transformer: torch.nn.Module, prefix: str = "transformer", *, dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """The adapter as other programs read it: diffusers' keys, alpha folded into `lora_B`, on the CPU.

    Parameters
    ----------
    prefix:
        What the keys begin with. `transformer` is what diffusers reads, for either expert; `transformer_2` tells the
        low-noise expert apart where both are kept in one file, as OneTrainer does.
    dtype:
        Of the result; None keeps the adapter's.
    """
    state = {}
    for name, layer in _lora_layers(transformer):
        down = layer.lora_A[ADAPTER_NAME].weight.detach()
        up = layer.lora_B[ADAPTER_NAME].weight.detach() * layer.scaling[ADAPTER_NAME]
        state[f"{prefix}.{name}.lora_A.weight"] = _to_file(down, dtype)
        state[f"{prefix}.{name}.lora_B.weight"] = _to_file(up, dtype)
    return state


def adapter_state(transformer: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The adapter's raw weights, exactly as they are, copied to the CPU: for resuming."""
    return {name: _to_file(weight, None) for name, weight in _adapter_weights(transformer)}


def load_adapter_state(
    transformer: torch.nn.Module, state: Mapping[str, torch.Tensor], *, path: Path | str | None = None
) -> None:
    """Put the weights of `adapter_state` back into a live adapter, bit for bit.

    Parameters
    ----------
    path:
        Where the state came from, for the message.

    Raises
    ------
    UserError
        If the state is not of an adapter with the same layers and rank. Nothing is changed then.
    """
    weights = dict(_adapter_weights(transformer))
    shared = weights.keys() & state.keys()
    differing = sorted(
        (weights.keys() ^ state.keys()) | {name for name in shared if weights[name].shape != state[name].shape}
    )
    if differing:
        raise UserError(
            "the saved LoRA does not fit the one being trained",
            path=path,
            reason=f"{len(differing)} weights differ in name or size, {differing[0]} among them",
            fix="continue with the layer filter and rank that it was trained with, or start anew",
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(state[name])


def lora_metadata(variant: WanVariant, *, rank: int, alpha: float, steps: int) -> dict[str, str]:
    """What is written into a LoRA file's header. `alpha` tells how it was trained; the file itself needs none."""
    return {
        "format": "pt",
        "base_model": variant.name,
        "rank": str(rank),
        "alpha": str(alpha),
        "alpha_folded_into_weights": "true",
        "steps": str(steps),
        "wan_fixes_version": __version__,
    }


def save_lora(path: Path | str, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a LoRA file so that it is there whole or not at all; an earlier file of that name stays until then.

    Raises
    ------
    CriticalError
        If a weight is NaN or infinite, or the disk refuses.
    """
    path = Path(path)
    broken = sorted(name for name, tensor in state.items() if not tensor.isfinite().all())
    if broken:
        raise CriticalError(
            "the LoRA holds numbers that are not finite",
            path=path,
            reason=f"NaN or infinity in {len(broken)} weights, {broken[0]} among them; nothing was written",
            fix="train again with a lower learning rate; earlier files are still there",
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(dict(state), partial, metadata=dict(metadata))
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CriticalError(
            "the LoRA cannot be written", path=path, reason=str(error), fix="check free space and permissions"
        ) from error
    finally:
        with suppress(OSError):  # what matters has been done or raised
            partial.unlink()
    return path


def load_lora(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A LoRA file's weights (CPU) and header.

    Raises
    ------
    UserError
        If there is no such file, or it is no safetensors file.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            "the LoRA cannot be read", path=path, reason=str(error), fix="name a complete .safetensors file"
        ) from error


def _lora_layers(transformer: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in transformer.named_modules() if isinstance(module, LoraLayer))


def _adapter_weights(transformer: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, layer in _lora_layers(transformer):
        yield f"{name}.lora_A.weight", layer.lora_A[ADAPTER_NAME].weight
        yield f"{name}.lora_B.weight", layer.lora_B[ADAPTER_NAME].weight


def _to_file(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.detach().to(device="cpu", dtype=dtype, copy=True).contiguous()
