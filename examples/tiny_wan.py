"""Makes a tiny random WAN in diffusers' layout: the real classes at tiny sizes, for trying things out and for tests.

    python examples/tiny_wan.py FOLDER [--mode t2v|i2v|ti2v] [--experts 2] [--seed 0]

It loads with `WanPipeline.from_pretrained(FOLDER)` (image-to-video: `WanImageToVideoPipeline`) like a released model,
and takes a few seconds and megabytes. Its videos are noise, but its parts behave: latents have mean 0 and deviation 1
after normalisation, and the transformer can be trained.
"""

from __future__ import annotations

import argparse
import math
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5TokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

Component = TypeVar("Component")
Mode = Literal["t2v", "i2v", "ti2v"]

TEXT_WIDTH = 32
IMAGE_WIDTH = 32
IMAGE_SIZE = 32
BOUNDARY_RATIOS: dict[Mode, float] = {"t2v": 0.875, "i2v": 0.9}
"""Of WAN 2.2's A14B models, written into the folder when there are two experts."""
FLOW_SHIFTS: dict[Mode, float] = {"t2v": 3.0, "i2v": 3.0, "ti2v": 5.0}

# `latents_mean` and `latents_std` of WAN 2.2's VAE, from vae/config.json of Wan-AI/Wan2.2-TI2V-5B-Diffusers.
LATENTS_MEAN_5B = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891),
    *(0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723),
    *(-0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
LATENTS_STD_5B = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901),
    *(0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944),
    *(0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)

CAPTIONS = (
    "a red ball rolls slowly over a green table",
    "a blue square moves from left to right in front of a grey wall",
    "the camera pans over a city street at night, people walk in the rain",
    "a cat sits on a chair and looks at the camera, close up, film grain",
    "numbers are painted on a moving colour gradient, test clip, video",
)


def make_tiny_wan(folder: Path | str, seed: int = 0, experts: int = 1, mode: Mode = "t2v") -> Path:
    """Write a tiny WAN and return its folder.

    Parameters
    ----------
    folder:
        Made if missing; files of an earlier tiny model are replaced.
    seed:
        Decides every weight. The global random generator is left as it was.
    experts:
        1 for WAN 2.1's shape, 2 for 2.2 A14B's (`transformer_2`, `boundary_ratio`).
    mode:
        `t2v`: text-to-video. `i2v`: image-to-video, of 2.1 with one expert (CLIP image encoder), of 2.2 with two.
        `ti2v`: 2.2's 5B, one expert.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"{mode = } must be one of {get_args(Mode)}")
    if experts not in ((1,) if mode == "ti2v" else (1, 2)):
        raise ValueError(f"there is no WAN with {experts = } and {mode = }")
    folder = Path(folder)
    tokenizer = make_tokenizer()
    sees_image = mode == "i2v" and experts == 1
    # The scheduler configuration of the released repositories.
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFTS[mode]
    )
    parts = {
        "tokenizer": tokenizer,
        "text_encoder": _seeded(seed, lambda: make_text_encoder(len(tokenizer))),
        "vae": _seeded(seed, make_vae_5b if mode == "ti2v" else make_vae),
        "transformer": _seeded(seed, lambda: make_transformer(mode, sees_image=sees_image)),
        "transformer_2": _seeded(seed + 1, lambda: make_transformer(mode)) if experts == 2 else None,
        "boundary_ratio": BOUNDARY_RATIOS[mode] if experts == 2 else None,
        "scheduler": scheduler,
        "expand_timesteps": mode == "ti2v",
    }
    if mode == "i2v":
        encoder = _seeded(seed, make_image_encoder) if sees_image else None
        processor = make_image_processor() if sees_image else None
        pipeline = WanImageToVideoPipeline(**parts, image_encoder=encoder, image_processor=processor)
    else:
        pipeline = WanPipeline(**parts)
    pipeline.save_pretrained(folder, safe_serialization=True)
    if sees_image:
        _as_released(folder)
    return folder


def make_tokenizer() -> T5TokenizerFast:
    """A unigram tokenizer like UMT5's: the words of `CAPTIONS` by their frequency, single characters for all else."""
    words = Counter(f"▁{word}" for caption in CAPTIONS for word in caption.split())
    total = sum(words.values())
    pieces = dict.fromkeys(["▁", *string.digits, *string.ascii_letters, *string.punctuation], -12.0)
    pieces |= {word: math.log(count / total) for word, count in words.items()}
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = Tokenizer(models.Unigram([*special, *sorted(pieces.items())], unk_id=2))
    metaspace = {"replacement": "▁", "prepend_scheme": "always", "split": True}
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**metaspace)]
    )
    tokenizer.decoder = decoders.Metaspace(**metaspace)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return T5TokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_ids=0,
        model_max_length=512,
    )


def make_text_encoder(vocabulary: int) -> UMT5EncoderModel:
    """UMT5 with two layers."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return UMT5EncoderModel(config).eval()


def make_transformer(mode: Mode = "t2v", *, sees_image: bool = False) -> WanTransformer3DModel:
    """WAN's transformer with two blocks of four heads.

    It is wider (96, for 5B 224) than a latent patch (64 numbers, for 5B 192), as the released ones are: a narrower one
    could not even pass its input on.
    """
    head_width = 56 if mode == "ti2v" else 24
    channels = 48 if mode == "ti2v" else 16
    return WanTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=head_width,
        in_channels=36 if mode == "i2v" else channels,  # noise, mask (4) and the condition's latents (16)
        out_channels=channels,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=192,
        num_layers=2,
        image_dim=IMAGE_WIDTH if sees_image else None,
        added_kv_proj_dim=4 * head_width if sees_image else None,
    ).eval()


def make_image_encoder() -> CLIPVisionModel:
    """CLIP's vision model with three layers; WAN reads the last but one. 17 tokens where the released one has 257."""
    config = CLIPVisionConfig(
        hidden_size=IMAGE_WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=8,
    )
    return CLIPVisionModel(config).eval()


def make_image_processor() -> CLIPImageProcessor:
    """CLIP's preprocessing, to the tiny encoder's size."""
    return CLIPImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def make_vae() -> AutoencoderKLWan:
    """WAN 2.1's VAE, eight channels wide, with the released latent statistics."""
    vae = AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 2, 2], num_res_blocks=1, z_dim=16).eval()
    calibrate_encoder(vae)
    return vae


def make_vae_5b() -> AutoencoderKLWan:
    """The VAE of WAN 2.2's 5B: residual, with patches of 2 x 2 pixels, 48 channels and 16-fold spatial compression."""
    vae = AutoencoderKLWan(
        base_dim=8,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        z_dim=48,
        latents_mean=list(LATENTS_MEAN_5B),
        latents_std=list(LATENTS_STD_5B),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    ).eval()
    calibrate_encoder(vae)
    return vae


@torch.no_grad()
def calibrate_encoder(vae: AutoencoderKLWan) -> None:
    """Scale the encoder's last layer so that its latents have the mean and deviation that the config claims.

    A random encoder's latents hardly differ from one another: normalised with the released statistics they would
    be almost constant, and nothing could be learned from them.
    """
    channels = vae.config.z_dim
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    weight[channels:] = 0.0
    bias[channels:] = -12.0  # log variance: nearly no sampling noise, like the released VAE's
    latents = vae.encode(calibration_clip()).latent_dist.mode().transpose(0, 1).flatten(1)
    mean = torch.tensor(vae.config.latents_mean)
    gain = torch.tensor(vae.config.latents_std) / latents.std(dim=1)
    weight[:channels] *= gain.view(-1, 1, 1, 1, 1)
    bias[:channels] = (bias[:channels] - latents.mean(dim=1)) * gain + mean


def calibration_clip(frames: int = 9, size: int = 64) -> torch.Tensor:
    """Four clips of drifting waves and edges, `[4, 3, F, H, W]` in -1 to 1."""
    time, row, column = torch.meshgrid(
        torch.arange(frames) / frames, torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij"
    )
    clips = []
    for index in range(4):
        channels = [
            torch.sin(2 * math.pi * ((1 + index) * row + (2 + channel) * column + time + 0.3 * channel * index))
            for channel in range(3)
        ]
        clip = torch.stack(channels)
        clips.append(clip.sign() if index % 2 else clip)
    return torch.stack(clips) * torch.tensor([1.0, 0.9, 0.5, 0.3]).view(-1, 1, 1, 1, 1)


def _as_released(folder: Path) -> None:
    """Name the image parts as the released repositories do, whatever the version of transformers calls them.

    Without torchvision it has another class for the processor. Its newest versions leave `vision_model.` out of the
    encoder's weights, and earlier ones, which need it, would start from random weights without an error.
    """
    index = folder / "model_index.json"
    text = index.read_text(encoding="utf-8").replace('"CLIPImageProcessorPil"', '"CLIPImageProcessor"')
    index.write_text(text, encoding="utf-8", newline="\n")
    weights = folder / "image_encoder" / "model.safetensors"
    state = {
        f"vision_model.{name.removeprefix('vision_model.')}": value
        for name, value in load(weights.read_bytes()).items()
    }
    save_file(state, weights, metadata={"format": "pt"})


def _seeded(seed: int, make: Callable[[], Component]) -> Component:
    """Each part has a seed of its own, so that changing one part leaves the others' weights alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--experts", type=int, default=1, choices=(1, 2))
    parser.add_argument("--mode", default="t2v", choices=get_args(Mode))
    arguments = parser.parse_args()
    print(make_tiny_wan(arguments.folder, seed=arguments.seed, experts=arguments.experts, mode=arguments.mode))


if __name__ == "__main__":
    main()
