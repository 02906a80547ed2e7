"""A small model, a manifest of it, and an ensurer that asks the server on loopback."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.fetching import FetchOptions
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.manifest import Manifest, parse_manifest
from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.sources.source import Source
from wan_fixes.models.sources.web import RetryPolicy
from wan_fixes.models.target import Target

from .hub_server import Hub

REPOSITORY = "Wan-AI/Tiny-Diffusers"
PART = 64 << 10


def memory_folder() -> str | None:
    """A place for files that are flushed again and again, or are gigabytes; None for the usual one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@functools.lru_cache(maxsize=512)
def some_bytes(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


PARTS = {
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}


def model_files(**changes: bytes) -> dict[str, bytes]:
    """A model of five components; a name's ``__`` stands for a slash, and its last ``_dot_`` for a dot."""
    files = {
        "model_index.json": json.dumps({"_class_name": "WanPipeline", **PARTS}).encode(),
        "scheduler/scheduler_config.json": b"{}",
        "text_encoder/config.json": b"{}",
        "text_encoder/model.safetensors": some_bytes(3 * PART + 7, 1),
        "tokenizer/spiece.model": some_bytes(1000, 2),
        "tokenizer/tokenizer_config.json": b"{}",
        "transformer/config.json": b"{}",
        "transformer/diffusion_pytorch_model.safetensors": some_bytes(10 * PART, 3),
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": some_bytes(2 * PART + 1, 4),
        "README.md": b"for people",
        "assets/picture.png": some_bytes(5000, 5),
        "Wan2.1_VAE.pth": b"pickled",
    }
    return files | changes


NEEDED = [path for path in model_files() if path.endswith((".json", ".safetensors", ".model"))]
NEEDED_BYTES = sum(len(model_files()[path]) for path in NEEDED)


def manifest_of(text: str = "", *, files: str = "", revision: str = "main", extra: str = "") -> Manifest:
    content = (
        text
        or f"""
schema_version = 1
[models."tiny@1.0.0"]
label = "Tiny"
family = "wan21"
mode = "t2v"
model_type = "WAN_2_1_T2V_1_3B"
pipeline = "WanPipeline"
components = ["scheduler", "text_encoder", "tokenizer", "transformer", "vae"]
{extra}
[models."tiny@1.0.0".defaults]
fps = 16
[models."tiny@1.0.0".vram]
transformer_billions = 1.4
text_encoder_billions = 5.7
vae_billions = 0.1
hidden_size = 1536
layers = 30
[models."tiny@1.0.0".variants.original]
precision = "fp32"
hub = {{ repository = "{REPOSITORY}", revision = "{revision}" }}
{files}
"""
    )
    return parse_manifest(content.encode(), Path("tiny.toml"))


def ensurer(root: Path, hub: Hub, manifest: Manifest | None = None, **options: Any) -> ModelEnsurer:
    retry = RetryPolicy(attempts=3, base_seconds=0.001)
    timeouts = options.pop("timeouts", (5.0, 5.0))
    token = options.pop("token", "")

    def sources(target: Target) -> list[Source]:
        return [HubStore(target.variant.hub, endpoint=hub.address, token=token, retry=retry, timeouts=timeouts)]

    make_sources = options.pop("make_sources", sources)
    settings = {"part_bytes": PART, "retry": retry, "safety_margin": 0, "connections": 4}
    fetch_options = FetchOptions(**{**settings, **options})
    return ModelEnsurer(
        manifest or manifest_of(), ModelResolver(root), options=fetch_options, make_sources=make_sources
    )


def content_of(folder: Path) -> dict[str, bytes]:
    """The files of a model folder, less the record of ours."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".verified.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


_USER = """
    import sys, time
    from pathlib import Path
    from wan_fixes.models.layout import ModelResolver
    from wan_fixes.models.locks import LockManager
    from wan_fixes.models.names import ModelName
    from wan_fixes.models.usage import UsageLog
    resolver = ModelResolver(Path(sys.argv[1]))
    UsageLog(resolver, LockManager(resolver.locks)).use(ModelName(*sys.argv[2:]))
    print("used", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def used_by_another(models: ModelEnsurer, model_id: str) -> Iterator[None]:
    """Within the block another process uses a model; then it is killed."""
    command = [sys.executable, "-c", textwrap.dedent(_USER), str(models.resolver.root), *models.target(model_id).name]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline().strip() == b"used"
            yield
        finally:
            child.kill()
