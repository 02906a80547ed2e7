"""The files of a LoRA over two experts: one each, since other programs' formats know one transformer only."""

from __future__ import annotations

from pathlib import Path

from wan_fixes.wan.timesteps import Expert

SUFFIXES: dict[Expert, str] = {"high": "_high_noise", "low": "_low_noise"}
"""What is added to the name; ComfyUI's users, and the files of others, tell the two apart by these."""


def expert_file(path: Path, expert: Expert) -> Path:
    """`lora.safetensors` to `lora_high_noise.safetensors`."""
    return path.with_name(f"{path.stem}{SUFFIXES[expert]}{path.suffix}")


def expert_files(path: Path) -> dict[Expert, Path]:
    """The file of each expert, whichever of the two, or of their common name, `path` is. They need not exist."""
    for suffix in SUFFIXES.values():
        if path.stem.endswith(suffix):
            path = path.with_name(path.stem.removesuffix(suffix) + path.suffix)
            break
    return {expert: expert_file(path, expert) for expert in SUFFIXES}
