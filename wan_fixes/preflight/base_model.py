"""Rules on the model: a type that is known, and files and folders that are there and hold a model of that type."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any, Final

from wan_fixes.models.failures import ModelError
from wan_fixes.models.locate import named_like, named_model
from wan_fixes.models.manifest import load_manifest
from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding, Correction
from wan_fixes.preflight.near_paths import as_meant, near_path
from wan_fixes.preflight.values import of_system, shown
from wan_fixes.wan.variants import VARIANTS, WanVariant

_LARGEST_JSON: Final = 1 << 20  # bytes
_PIPELINES: Final = {"WanPipeline": ("t2v", "ti2v"), "WanImageToVideoPipeline": ("i2v",)}
_WEIGHT_FILES: Final = (".safetensors", ".gguf", ".ckpt", ".pt", ".bin", ".json")


def model_type(configuration: Configuration) -> Iterator[ConfigFinding]:
    """A model type; of those that look like WAN's one that there is."""
    name = configuration.text("model_type")
    if not name:
        yield ConfigFinding(
            "error",
            "model_type",
            "the configuration names no model type",
            "OneTrainer takes it for Stable Diffusion 1.5",
            f"set it to one of {', '.join(VARIANTS)}, or to one of OneTrainer's",
        )
    elif name not in VARIANTS and name.upper().startswith("WAN") and not configuration.is_of_another_wan:
        plain = re.sub(r"\W+", "_", name.upper())
        near = [plain] if plain in VARIANTS else difflib.get_close_matches(plain, VARIANTS, n=1)
        yield ConfigFinding(
            "error",
            "model_type",
            f"{shown(name)} is no WAN model type",
            "OneTrainer does not know it, and goes on as Stable Diffusion 1.5",
            (f"did you mean {near[0]}? There are " if near else "set it to one of ") + ", ".join(VARIANTS),
            Correction("model_type", plain) if plain in VARIANTS else None,
        )


def base_model(configuration: Configuration) -> Iterator[ConfigFinding]:
    """The base model is there, or is the name of one that can be fetched, and is of the model type."""
    text, variant = configuration.text("base_model_name"), configuration.variant
    if _is_in_the_backup(configuration):
        return
    if not text.strip():
        if variant is not None:
            yield ConfigFinding(
                "error", "base_model_name", "no base model is named", "there is nothing to train", _name_it(variant)
            )
        return
    path = configuration.read_from(text)
    if os.path.isdir(path):  # noqa: PTH112 - it takes any text
        yield from _of_folder(configuration, path)
    elif os.path.exists(path):  # noqa: PTH110 - it takes any text
        return  # a single file, of which loading it says what it is
    elif variant is not None:
        yield from _of_name(configuration, variant, text)
    elif _is_path(text):
        yield _missing(configuration, text, "correct the path")


def other_weights(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Weights that OneTrainer loads beside or in the place of the base model's are there."""
    variant = configuration.variant
    if variant is None or not configuration.is_for_onetrainer:
        return
    fields = [] if _is_in_the_backup(configuration) else [f"{part}.model_name" for part in configuration.experts]
    fields.append("vae.model_name")
    # Of two experts each has a file of its own, with a longer name.
    if configuration.is_lora and variant.experts == 1 and not configuration.goes_on_from_backup:
        fields.append("lora_model_name")
    for field in fields:
        text = configuration.text(field)
        if _is_path(text) and not os.path.exists(configuration.read_from(text)):  # noqa: PTH110 - it takes any text
            near = near_path(configuration.read_from(text))
            yield ConfigFinding(
                "error",
                field,
                f"there is nothing at {shown(text)}",
                "these weights are loaded before the training begins",
                "correct the path, or empty the field" if near is None else f"did you mean {near}?",
            )


def _is_in_the_backup(configuration: Configuration) -> bool:
    """Whether a whole model goes on from its backup, which then is the base model, whatever is named."""
    is_whole = configuration.text("training_method") not in ("LORA", "EMBEDDING")
    return is_whole and configuration.goes_on_from_backup


def _of_folder(configuration: Configuration, folder: Path) -> Iterator[ConfigFinding]:
    """A folder in diffusers' layout says itself what it is. One of a WAN may be meant for no other model type."""
    variant = configuration.variant
    if variant is not None and not os.path.exists(folder / "model_index.json"):  # noqa: PTH110 - it takes any text
        yield ConfigFinding(
            "error",
            "base_model_name",
            f"the folder {folder} holds no model",
            "a model in diffusers' layout has a model_index.json, and folders for its parts",
            _name_it(variant),
        )
        return
    held = variants_of(folder)
    if held is None:
        return
    if variant is None:
        if configuration.text("model_type") and not configuration.is_of_another_wan:
            yield _mismatch(shown(configuration.text("model_type")), "a WAN model", held)
        return
    if variant in held:
        return
    # Of two experts one may be left out, and its folder be missing.
    if variant.experts == 2 and not all(map(configuration.is_on, ("transformer.include", "transformer_2.include"))):
        return
    if held:
        yield _mismatch(variant.label, " or ".join(other.label for other in held), held)
    else:
        yield _mismatch(variant.label, "a WAN that is none of the released ones", held)


def _mismatch(wanted: str, found: str, held: list[WanVariant]) -> ConfigFinding:
    names = " or ".join(variant.name for variant in held)
    return ConfigFinding(
        "error",
        "base_model_name",
        f"the model type is {wanted}, and the folder holds {found}",
        "the sizes of their weights differ, or what they take does",
        (f"set model_type to {names}, or " if names else "") + "name a folder of the model type",
    )


def _of_name(configuration: Configuration, variant: WanVariant, text: str) -> Iterator[ConfigFinding]:
    """What is no path on this machine is the name of a model, or wrong."""
    meant = as_meant(text, configuration.read_from)
    if meant is not None or _is_missing_beside_others(configuration, text):
        yield _missing(configuration, text, _name_it(variant))
        return
    try:
        named = named_model(text, variant.name)
    except (ModelError, OSError, ValueError) as error:
        of_model = (error.reason, error.fix) if isinstance(error, ModelError) else None
        reason, fix = of_model or (of_system(error), _name_it(variant))
        yield ConfigFinding("error", "base_model_name", f"{shown(text)} names no model", reason, fix)
        return
    if named is None:
        yield _missing(configuration, text, _name_it(variant))
    elif named.spec.model_type != variant.name:
        yield ConfigFinding(
            "error",
            "base_model_name",
            f"the model type is {variant.label}, and {text.strip()} is {named.spec.label}",
            "the sizes of their weights differ, or what they take does",
            f"set model_type to {named.spec.model_type}, or {_name_it(variant)}",
        )


def _is_missing_beside_others(configuration: Configuration, text: str) -> bool:
    """Whether it is a path below a folder that is there, and no OWNER/NAME of the hub that is known."""
    parent = configuration.read_from(text).parent
    is_below = "/" in text and not Path(text).is_absolute() and os.path.isdir(parent)  # noqa: PTH112 - any text
    try:
        return is_below and load_manifest().find_repository(text.strip()) is None
    except (ModelError, OSError, ValueError):  # of which looking for the model tells
        return False


def _missing(configuration: Configuration, text: str, fix: str) -> ConfigFinding:
    meant = as_meant(text, configuration.read_from)
    if meant is not None:
        return ConfigFinding(
            "error",
            "base_model_name",
            "the base model does not exist as it is written",
            f"there is none at {shown(text)}, with all marks and blanks",
            f"write it as {shown(meant)}",
            Correction("base_model_name", meant),
        )
    # A name without folders is a misspelt name sooner than a path.
    near = near_path(configuration.read_from(text)) if re.search(r"[/\\]", text) else None
    return ConfigFinding(
        "error",
        "base_model_name",
        f"there is no base model {shown(text)}",
        "it is no file, no folder, and no name of a model",
        fix if near is None else f"did you mean {near}? Else {fix}",
    )


def _is_path(text: str) -> bool:
    """Whether a text can be nothing but a path: a name on the hub has one slash, and no ending of a weight file."""
    if "://" in text:
        return False
    is_absolute = bool(PureWindowsPath(text).anchor) or text.startswith(("~", "./", "../", ".\\", "..\\", '"', "'"))
    return is_absolute or (text.lower().endswith(_WEIGHT_FILES) and text.count("/") != 1)


def _name_it(variant: WanVariant) -> str:
    try:
        names = named_like(variant.name)
    except ModelError:
        names = []
    return f"name the model ({' or '.join([*names, variant.repository])}), or a folder of it"


def variants_of(folder: Path) -> list[WanVariant] | None:
    """The WAN models that a folder in diffusers' layout can be one of, by its configurations; None if it is no WAN.

    A model of other sizes, as small ones for tests are, can be any that takes the same.
    """
    index, config = _read(folder / "model_index.json"), _read(folder / "transformer" / "config.json")
    modes = _PIPELINES.get(str(index.get("_class_name")))
    if modes is None or not config:
        return None
    second = index.get("transformer_2")
    experts = 2 if isinstance(second, list) and any(second) else 1
    alike = [
        variant
        for variant in VARIANTS.values()
        if variant.mode in modes
        and variant.experts == experts
        and variant.in_channels == config.get("in_channels", 16)
        and variant.has_image_encoder == (config.get("image_dim") is not None)
    ]
    size = (config.get("num_attention_heads", 40), config.get("num_layers", 40))
    return [variant for variant in alike if (variant.heads, variant.layers) == size] or alike


def _read(path: Path) -> dict[str, Any]:
    """The object in a small JSON file; nothing where there is none, which other checks of the folder name."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
