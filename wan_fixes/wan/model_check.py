"""Whether the local files that a host is about to load are whole, for every model type."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.wan.weight_files import WeightFileError, check_parts, read_gguf_header, read_header

# Beside the base model a configuration may name single parts; the LoRA to go on from is one more.
_NAMED = ("prior_model_name", "transformer_model_name", "transformer_2_model_name", "vae_model_name", "lora_name")


def check_named_files(model_type: str, base_model: str, config: dict[str, Any]) -> None:
    """Read the headers of all local weights that `base_model` and the part fields of `config` name.

    What is no local file or folder is a name on the Hugging Face Hub, and the host's own business. Raises ``UserError``
    naming the first file that is missing from its set, damaged or cut short.
    """
    named = [base_model, *(config.get(field) for field in _NAMED)]
    for text in named:
        if isinstance(text, str) and text.strip():
            _check(Path(text).expanduser(), model_type)


def _check(path: Path, model_type: str) -> None:
    try:
        if path.is_dir():
            check_parts(path)
        elif path.suffix == ".safetensors" and path.is_file():
            read_header(path)
        elif path.suffix == ".gguf" and path.is_file() and find_spec("gguf"):
            read_gguf_header(path)
    except WeightFileError as error:
        raise UserError(
            f"the files of the {model_type} model are not whole",
            path=error.path,
            reason=error.reason,
            fix=error.fix or "download it again; the files that are whole need not be",
            module="model",
        ) from error
