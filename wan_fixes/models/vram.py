"""What a WAN model takes of the GPU's memory, estimated from its manifest before anything is loaded. No torch.

The hosts have on the GPU only what a phase needs: the text encoder while captions are encoded, the VAE while clips are,
the transformer while it is trained. The most that any phase takes is what the card must have.

With T tokens, hidden size d, feed-forward size f, L layers, batch B, all in bytes:

- Tokens: the VAE makes one latent frame of four (the first stands alone) and one latent pixel of 8 x 8, 2.2's 5B of
  16 x 16 (`scale_factor_temporal`, `scale_factor_spatial` in vae/config.json); the transformer takes patches of
  1 x 2 x 2 latent pixels (`patch_size` in transformer/config.json).
- Weights: parameters times the bytes of their precision.
- LoRA over all linear layers of the blocks: rank x (8 x 2d + 2 x (d + f)) parameters a layer, each of 16 bytes in fp32:
  weight, gradient, and AdamW's two averages.
- Activations, as Korthikanti et al. 2022 count them (Reducing Activation Recomputation in Large Transformer Models,
  arXiv:2205.05198): a layer keeps so many bytes for each token, and nothing that grows with T x T, since attention is
  fused (Dao et al. 2022, FlashAttention, arXiv:2205.14135). With gradient checkpointing only each layer's input is
  kept, and one layer is computed again at a time. Their 34 bytes are of GPT with every weight trained; diffusers' WAN
  block with PEFT's LoRA, norms in fp32 and the rest in 16 bits keeps 50 d + 4 f (`_saved_by_layer`).
- The VAE works through a clip in pieces of four frames, so that its memory grows with the area of a frame; the clip
  itself is all that grows with the number of frames.

The numbers of bytes for each token were counted: diffusers 0.42 and peft 0.21 with the released sizes, on tensors
without content, every allocation and release added up; a GPU takes the same within 1 %. Those for each pixel that the
VAE encodes were measured on a GPU, where cuDNN's workspaces add up to a sixth to what is counted; those for decoding
were counted. docs/vram.md has the figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.spec import ModelSpec

#: Bytes of a number.
PRECISION_BYTES: Final = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
#: What CUDA takes for itself, its libraries' workspaces included.
RUNTIME_BYTES: Final = 700_000_000

_PATCH: Final = 2  # latent pixels, in height and in width
_TEMPORAL_STRIDE: Final = 4
_LORA_BYTES: Final = 4  # of a number: the hosts keep adapters in fp32
_ADAM_AVERAGES: Final = 2
_TILE: Final = 256  # pixels: `tile_sample_min_height` and `_width` of diffusers' AutoencoderKLWan
_TEXT_WIDTH: Final = 4096  # UMT5-XXL, in every WAN
_TEXT_EMBEDDING: Final = 256_384 * _TEXT_WIDTH  # parameters of its vocabulary, which are never offloaded
_TEXT_LAYERS: Final = 24
_TEXT_SCORES: Final = 512 * 512 * 64  # tokens by tokens by heads
_SCORE_BYTES: Final = 6
_IMAGE_ENCODER_PARAMETERS: Final = 632_000_000  # CLIP ViT-H/14 of 2.1's image-to-video: 1.26 GB in fp16
# Layers that are on the GPU at once where layers are offloaded: the one at work and the one on its way.
_LAYERS_IN_FLIGHT: Final = 2


class Phase(str, Enum):
    """What the GPU does at a time."""

    TEXT_ENCODING = "text encoding"
    VAE_ENCODING = "VAE encoding"
    TRAINING_STEP = "training step"
    DENOISING = "denoising"
    VAE_DECODING = "VAE decoding"


@dataclass(frozen=True)
class PhaseMemory:
    """What one phase has on the GPU, in bytes.

    Attributes
    ----------
    weights:
        Of the model's parts that it needs.
    lora:
        The adapter's weights, gradients and the optimizer's averages.
    activations:
        All that it computes and has not let go of, where that is most.
    """

    phase: Phase
    weights: int
    lora: int
    activations: int

    @property
    def total(self) -> int:
        """With what CUDA takes for itself."""
        return self.weights + self.lora + self.activations + RUNTIME_BYTES


@dataclass(frozen=True)
class VramEstimate:
    """What training a LoRA, or making a clip, takes of a GPU; all numbers but `tokens` in bytes.

    Attributes
    ----------
    tokens:
        Of one clip, in the transformer.
    transformer, text_encoder, image_encoder, vae:
        Weights of the model's parts, wherever they are; of all experts.
    lora_weights, lora_gradients, lora_optimizer:
        Of all experts.
    phases:
        In the order in which they come.
    """

    tokens: int
    transformer: int
    text_encoder: int
    image_encoder: int
    vae: int
    lora_weights: int
    lora_gradients: int
    lora_optimizer: int
    phases: tuple[PhaseMemory, ...]

    @property
    def peak(self) -> PhaseMemory:
        """The phase that takes most."""
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def total(self) -> int:
        """What the GPU must have free."""
        return self.peak.total

    @property
    def main_memory(self) -> int:
        """What main memory must have free: all parts are loaded there first, and wait there for their turn."""
        return self.transformer + self.text_encoder + self.image_encoder + self.vae

    def as_json(self) -> dict[str, Any]:
        """For programs: docs/vram.md describes it."""
        return {
            "tokens": self.tokens,
            "weights": {
                "transformer": self.transformer,
                "text_encoder": self.text_encoder,
                "image_encoder": self.image_encoder,
                "vae": self.vae,
            },
            "lora": {
                "weights": self.lora_weights,
                "gradients": self.lora_gradients,
                "optimizer": self.lora_optimizer,
            },
            "phases": [
                {
                    "phase": phase.phase.value,
                    "weights": phase.weights,
                    "lora": phase.lora,
                    "activations": phase.activations,
                    "runtime": RUNTIME_BYTES,
                    "total": phase.total,
                }
                for phase in self.phases
            ],
            "peak_phase": self.peak.phase.value,
            "total": self.total,
            "main_memory": self.main_memory,
        }


def estimate(
    spec: ModelSpec,
    *,
    precision: str = "bf16",
    text_encoder_precision: str = "bf16",
    vae_precision: str = "fp32",
    vae_tiling: bool = False,
    autocast: bool = True,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    batch: int = 1,
    lora_rank: int = 16,
    gradient_checkpointing: bool = True,
    offload: float = 0.0,
    resident_experts: int = 1,
    training: bool = True,
) -> VramEstimate:
    """What a model takes of the GPU.

    Parameters
    ----------
    precision, text_encoder_precision, vae_precision:
        What the weights are loaded as: "fp32", "bf16", "fp16" or "fp8".
    vae_tiling:
        Whether the VAE works through a frame in tiles (OneTrainer's `vae_tiling`).
    autocast:
        Whether a training step computes in 16 bits whatever the weights are (OneTrainer's `train_dtype`).
    frames, height, width:
        Of a clip, in frames and pixels (default: the model's). Rounded up to what the model can take.
    offload:
        Share of the layers of transformer and text encoder that wait in main memory for their turn, 0 to 1:
        OneTrainer's `offload_fraction`. The standalone host has none.
    resident_experts:
        How many of a model's experts are on the GPU at once. OneTrainer's host has one there and the other in main
        memory, and changes them when the expert at work changes; the standalone host trains the one.
    training:
        Else a clip is made: the transformer, without gradients, and the VAE share the GPU.

    Raises
    ------
    ModelError
        INVALID_CONFIG, for a precision or number that is none.
    """
    frames, height, width = (
        default_of(spec, name) if value is None else value
        for name, value in (("frames", frames), ("height", height), ("width", width))
    )
    for name in (precision, text_encoder_precision, vae_precision):
        if name not in PRECISION_BYTES:
            raise _invalid(f"{name[:40]!r} is no precision", f"take one of {', '.join(PRECISION_BYTES)}")
    for name, number in (("frames", frames), ("height", height), ("width", width), ("batch", batch)):
        if number < 1:
            raise _invalid(f"{name} is {number}", "it has to be at least 1")
    if lora_rank < 0 or resident_experts < 1 or not 0.0 <= offload <= 1.0:
        raise _invalid(
            f"{lora_rank = }, {resident_experts = }, {offload = }", "a rank of 0 or more, one expert, and 0 to 1"
        )
    experts = 2 if "transformer_2" in spec.components else 1
    bytes_of_one = _bytes_of(spec.vram.transformer_billions, precision)
    text_encoder = _bytes_of(spec.vram.text_encoder_billions, text_encoder_precision)
    vae = _bytes_of(spec.vram.vae_billions, vae_precision)
    image_encoder = 0
    if "image_encoder" in spec.components:
        image_encoder = _IMAGE_ENCODER_PARAMETERS * PRECISION_BYTES[text_encoder_precision]
    resident = min(experts, resident_experts) * _resident(bytes_of_one, bytes_of_one, spec.vram.layers, offload)
    embedding = min(text_encoder, _TEXT_EMBEDDING * PRECISION_BYTES[text_encoder_precision])
    resident_text_encoder = _resident(text_encoder, text_encoder - embedding, _TEXT_LAYERS, offload)
    tokens = token_count(spec, frames, height, width)
    lora_weights = experts * _lora_parameters(spec, lora_rank) * _LORA_BYTES if training else 0
    lora = (2 + _ADAM_AVERAGES) * lora_weights
    text = PhaseMemory(Phase.TEXT_ENCODING, resident_text_encoder, 0, _TEXT_SCORES * _SCORE_BYTES)
    # Clips are encoded one after the other, whatever the batch.
    encoding = _vae_bytes(spec, vae_precision, frames, (height, width), vae_tiling, decodes=False)
    phases: tuple[PhaseMemory, ...]
    if training:
        compute_bytes = 2 if autocast else max(2, PRECISION_BYTES[precision])
        step = batch * _step_activations(spec, tokens, compute_bytes, gradient_checkpointing)
        phases = (
            text,
            PhaseMemory(Phase.VAE_ENCODING, vae + image_encoder, 0, encoding),
            PhaseMemory(Phase.TRAINING_STEP, resident, lora, step),
        )
    else:
        denoising = batch * _denoising_activations(spec, tokens, max(2, PRECISION_BYTES[precision]))
        decoding = batch * _vae_bytes(spec, vae_precision, frames, (height, width), vae_tiling, decodes=True)
        phases = (
            text,
            *([PhaseMemory(Phase.VAE_ENCODING, vae + image_encoder, 0, encoding)] if spec.mode != "t2v" else []),
            PhaseMemory(Phase.DENOISING, resident + vae, 0, denoising),
            PhaseMemory(Phase.VAE_DECODING, resident + vae, 0, decoding),
        )
    return VramEstimate(
        tokens=tokens,
        transformer=experts * bytes_of_one,
        text_encoder=text_encoder,
        image_encoder=image_encoder,
        vae=vae,
        lora_weights=lora_weights,
        lora_gradients=lora_weights,
        lora_optimizer=_ADAM_AVERAGES * lora_weights,
        phases=phases,
    )


def default_of(spec: ModelSpec, name: str) -> int:
    """The model's "frames", "height" or "width". Raises ModelError where its manifest has none."""
    value = spec.defaults.get(name)
    if not isinstance(value, int):
        raise _invalid(f"the manifest has no {name} among the defaults of {spec.label}", f"say which {name} you want")
    return value


def spatial_stride(spec: ModelSpec) -> int:
    """Pixels that the VAE makes one latent pixel of, in height and in width."""
    return 16 if spec.mode == "ti2v" else 8


def spatial_multiple(spec: ModelSpec) -> int:
    """Pixels of which width and height are multiples: what one token covers."""
    return spatial_stride(spec) * _PATCH


def token_count(spec: ModelSpec, frames: int, height: int, width: int) -> int:
    """Tokens of a clip in the transformer, with what does not fill a token counted as one."""
    side = spatial_multiple(spec)
    latent_frames = math.ceil((frames - 1) / _TEMPORAL_STRIDE) + 1
    return latent_frames * math.ceil(height / side) * math.ceil(width / side)


def feed_forward_size(spec: ModelSpec) -> int:
    """The width of the transformer's feed-forward layers: what its other layers leave of its parameters.

    Within 1 % of the `ffn_dim` in transformer/config.json. A block has eight square layers, ten where it also attends
    to an image; before the blocks there are eight more and the projection of the text.
    """
    d, layers = spec.vram.hidden_size, spec.vram.layers
    squares = 10 if "image_encoder" in spec.components else 8
    in_blocks = spec.vram.transformer_billions * 1e9 - 8 * d * d - _TEXT_WIDTH * d
    return max(d, round((in_blocks / layers - squares * d * d) / (2 * d)))


def _step_activations(spec: ModelSpec, tokens: int, compute_bytes: int, gradient_checkpointing: bool) -> int:
    """Of one clip: what all layers keep, and what the backward pass through one of them takes besides."""
    d, f, layers = spec.vram.hidden_size, feed_forward_size(spec), spec.vram.layers
    saved = _saved_by_layer(spec, compute_bytes)
    at_work = 18 * d + 5.5 * f
    everywhere = 16 * d if _has_times_by_token(spec) else 0
    kept = layers * compute_bytes * d + saved if gradient_checkpointing else layers * saved
    return round(tokens * (kept + at_work + everywhere))


def _saved_by_layer(spec: ModelSpec, compute_bytes: int) -> float:
    """Bytes for each token that one layer keeps for its backward pass."""
    d, f = spec.vram.hidden_size, feed_forward_size(spec)
    saved = (40 + 5 * compute_bytes) * d + 2 * compute_bytes * f
    if "image_encoder" in spec.components:
        saved += 2 * d
    if _has_times_by_token(spec):
        saved += 32 * d  # shifts and scales of each token, in fp32
    return saved


def _denoising_activations(spec: ModelSpec, tokens: int, compute_bytes: int) -> int:
    """Of one clip without gradients: one layer at work, and its input."""
    d, f = spec.vram.hidden_size, feed_forward_size(spec)
    times = 36 * d if _has_times_by_token(spec) else 0
    return round(tokens * (7 * compute_bytes * d + 1.5 * compute_bytes * f + times))


def _has_times_by_token(spec: ModelSpec) -> bool:
    """Whether each token has a noise level of its own: where the first frame may be given instead of denoised."""
    return spec.mode == "ti2v"


def _vae_bytes(
    spec: ModelSpec, precision: str, frames: int, size: tuple[int, int], tiling: bool, *, decodes: bool
) -> int:
    """What the VAE takes for one clip besides its weights: for each pixel that it works on, and the clip itself."""
    if spec.mode == "ti2v":
        numbers_by_pixel, clips = (5400 if decodes else 2180), 2
    else:
        numbers_by_pixel, clips = (4900, 2) if decodes else (4330, 1)
    height, width = size
    at_work = min(height, _TILE) * min(width, _TILE) if tiling else height * width
    return (at_work * numbers_by_pixel + height * width * clips * 3 * frames) * PRECISION_BYTES[precision]


def _lora_parameters(spec: ModelSpec, rank: int) -> int:
    """Of one expert: queries, keys, values and output of both attentions, and both layers of the feed-forward."""
    d = spec.vram.hidden_size
    return spec.vram.layers * rank * (8 * 2 * d + 2 * (d + feed_forward_size(spec)))


def _resident(size: int, in_layers: int, layers: int, offload: float) -> int:
    """Bytes that stay on the GPU of weights of which `in_layers` can be offloaded."""
    stays = max((1.0 - offload) * in_layers, min(_LAYERS_IN_FLIGHT / layers, 1.0) * in_layers)
    return size - in_layers + math.ceil(stays)


def _bytes_of(billions: float, precision: str) -> int:
    return round(billions * 1e9) * PRECISION_BYTES[precision]


def _invalid(reason: str, fix: str) -> ModelError:
    return ModelError(ErrorCode.INVALID_CONFIG, "no memory can be estimated for this", reason=reason, fix=fix)
