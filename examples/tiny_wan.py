"""Makes a tiny random WAN in diffusers' layout: the real classes at tiny sizes, for trying things out and for tests.

    python examples/tiny_wan.py FOLDER [--experts 2] [--seed 0]

It loads with `WanPipeline.from_pretrained(FOLDER)` like a released model, and takes a few seconds
and megabytes. Its videos are noise, but its parts behave: latents have mean 0 and deviation 1 after normalisation, and
the transformer can be trained.
"""

from __future__ import annotations

import argparse
import math
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

Component = TypeVar("Component")

TEXT_WIDTH = 32
BOUNDARY_RATIO = 0.875
"""Of WAN 2.2 T2V A14B, written into the folder when there are two experts."""

CAPTIONS = (
    "a red ball rolls slowly over a green table",
    "a blue square moves from left to right in front of a grey wall",
    "the camera pans over a city street at night, people walk in the rain",
    "a cat sits on a chair and looks at the camera, close up, film grain",
    "numbers are painted on a moving colour gradient, test clip, video",
)


def make_tiny_wan(folder: Path | str, seed: int = 0, experts: int = 1) -> Path:
    """Write a tiny WAN text-to-video model and return its folder.

    Parameters
    ----------
    folder:
        Made if missing; files of an earlier tiny model are replaced.
    seed:
        Decides every weight. The global random generator is left as it was.
    experts:
        1 for WAN 2.1's shape, 2 for 2.2 A14B's (`transformer_2`, `boundary_ratio`).
    """
    if experts not in (1, 2):
        raise ValueError(f"{experts = } must be 1 or 2")
    folder = Path(folder)
    tokenizer = make_tokenizer()
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=_seeded(seed, lambda: make_text_encoder(len(tokenizer))),
        vae=_seeded(seed, make_vae),
        transformer=_seeded(seed, make_transformer),
        transformer_2=_seeded(seed + 1, make_transformer) if experts == 2 else None,
        boundary_ratio=BOUNDARY_RATIO if experts == 2 else None,
        # The scheduler configuration of the released repositories.
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
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


def make_transformer() -> WanTransformer3DModel:
    """WAN's transformer with two blocks of four heads.

    It is wider (96) than a latent patch (64 numbers), as the released ones are: a narrower one could not even
    pass its input on.
    """
    return WanTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=24,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=192,
        num_layers=2,
    ).eval()


def make_vae() -> AutoencoderKLWan:
    """WAN 2.1's VAE, eight channels wide, with the released latent statistics."""
    vae = AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 2, 2], num_res_blocks=1, z_dim=16).eval()
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
    arguments = parser.parse_args()
    print(make_tiny_wan(arguments.folder, seed=arguments.seed, experts=arguments.experts))


if __name__ == "__main__":
    main()
