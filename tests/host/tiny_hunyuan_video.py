"""A tiny random HunyuanVideo in diffusers' layout: a video model that OneTrainer has without the plugin."""

from __future__ import annotations

import json
from pathlib import Path

from host.tiny_stable_diffusion import tiny_clip_encoder, write_clip_tokenizer

WIDTH = 16
WORDS = ("the", "video", "a", "test", "clip", "number", "0", "1", "2", ",", ".")


def make_tiny_hunyuan_video(folder: Path) -> Path:
    """Write the model; a few hundred kilobytes."""
    import torch
    from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    HunyuanVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=WIDTH,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=(4, 6, 6),
    ).save_pretrained(folder / "transformer")
    AutoencoderKLHunyuanVideo(
        block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2, mid_block_add_attention=False
    ).save_pretrained(folder / "vae")
    text = LlamaConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=4,  # OneTrainer takes the third from the end
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    LlamaModel(text).save_pretrained(folder / "text_encoder")
    tiny_clip_encoder().save_pretrained(folder / "text_encoder_2")
    FlowMatchEulerDiscreteScheduler(shift=7.0).save_pretrained(folder / "scheduler")
    _write_llama_tokenizer(folder / "tokenizer")
    write_clip_tokenizer(folder / "tokenizer_2")
    index = {
        "_class_name": "HunyuanVideoPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "LlamaModel"],
        "text_encoder_2": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "LlamaTokenizerFast"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "HunyuanVideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLHunyuanVideo"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def _write_llama_tokenizer(folder: Path) -> None:
    """One token for each of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True)
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    configuration = {
        "tokenizer_class": "LlamaTokenizerFast",
        "model_max_length": 512,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration), encoding="utf-8")
