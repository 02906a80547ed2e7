"""Whether a model folder is whole: every part and every file there, readable, and of the right model.

Nothing is loaded: configurations and safetensors headers are read, which takes milliseconds, so that a missing shard
of a 28 GB model is named at once and not after minutes. Pickled weights (`.bin`, `.pth`) are never opened: they can
run code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wan_fixes.errors import UserError
from wan_fixes.wan.variants import VARIANTS, WanVariant
from wan_fixes.wan.weight_files import StoredTensor, WeightFileError, read_header, read_shards

INDEX_NAME = "model_index.json"
_PIPELINES = {"WanPipeline": "t2v or ti2v", "WanImageToVideoPipeline": "i2v"}
_SCHEDULERS = ("UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler")
_CLASSES = {
    "vae": "AutoencoderKLWan",
    "text_encoder": "UMT5EncoderModel",
    "image_encoder": "CLIPVisionModel",
    "transformer": "WanTransformer3DModel",
    "transformer_2": "WanTransformer3DModel",
}
_TRANSFORMERS = ("text_encoder", "image_encoder")
# In the order in which the libraries look for them.
_WEIGHTS = {
    "diffusers": ("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors"),
    "transformers": ("model.safetensors", "model.safetensors.index.json"),
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Part:
    """A model part on disk: its configuration and the tensors of its weight files."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that has been checked."""

    path: Path
    scheduler: str
    """Class name of the scheduler, one of diffusers' flow schedulers."""
    boundary_ratio: float | None
    """Where the experts change; None with one expert."""
    parts: dict[str, Part]
    """`vae`, `text_encoder`, `transformer`, and `transformer_2` with two experts."""


def check_model_folder(
    path: Path | str,
    variant: WanVariant,
    *,
    without: Collection[str] = (),
    loaded_elsewhere: Collection[str] = (),
) -> ModelFolder:
    """Check a folder in diffusers' layout without loading it.

    Parameters
    ----------
    without:
        Experts that are not wanted and need not be there: `transformer` or `transformer_2`.
    loaded_elsewhere:
        Parts of which only the configuration is needed here, since their weights come from another file.

    Raises
    ------
    UserError
        Naming the part, the file, the reason and the fix, if anything is missing, cut short, unreadable, pickled, or
        of another variant.
    """
    folder = _existing_folder(path, variant)
    checker = _Checker(folder, variant, without)
    index = checker.read_json("index", folder / INDEX_NAME)
    checker.check_pipeline(index)
    experts = [name for name in ("transformer", "transformer_2")[: variant.experts] if name not in without]
    names = ["vae", "text_encoder", *experts] + (["image_encoder"] if variant.has_image_encoder else [])
    for name in names:
        checker.check_class(index, name)
    scheduler = checker.check_scheduler(index)
    checker.check_tokenizer()
    configs = {name: checker.read_json(name, folder / name / "config.json") for name in names}
    for name in experts:
        checker.check_transformer(name, configs[name])
        checker.check_text_width(configs["text_encoder"], configs[name])
    checker.check_vae(configs["vae"])
    if variant.has_image_encoder:
        checker.check_image_encoder(configs["image_encoder"], configs["transformer"])
    parts = {
        name: Part(folder / name, configs[name], {} if name in loaded_elsewhere else checker.read_headers(name))
        for name in names
    }
    return ModelFolder(folder, scheduler, checker.boundary_ratio(index), parts)


class _Checker:
    """The folder and variant in hand, which every check and every message needs."""

    def __init__(self, folder: Path, variant: WanVariant, without: Collection[str]) -> None:
        self.folder = folder
        self.variant = variant
        self.without = without

    def error(self, part: str, path: Path, reason: str, fix: str | None = None) -> UserError:
        return UserError(
            f"the model's {part} cannot be used",
            path=path,
            reason=reason,
            fix=fix or f"download it again: {_download(self.variant.repository, self.folder)}",
            module="model",
            context={"part": part},
        )

    def other_variant(self, part: str, path: Path, reason: str, candidates: list[WanVariant]) -> UserError:
        names = " or ".join(candidate.name for candidate in candidates)
        return self.error(
            part,
            path,
            reason,
            (f"set model_type to {names}, or " if names else "")
            + f"take a folder of {self.variant.label}: {_download(self.variant.repository)}",
        )

    def read_json(self, part: str, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self.error(part, path, "the file is missing") from None
        except (OSError, ValueError, RecursionError) as error:
            raise self.error(part, path, f"it cannot be read as JSON: {error}") from error
        if not isinstance(content, dict):
            raise self.error(part, path, "it holds no JSON object")
        return content

    def check_pipeline(self, index: dict[str, Any]) -> None:
        path = self.folder / INDEX_NAME
        pipeline = index.get("_class_name")
        if not isinstance(pipeline, str) or pipeline not in _PIPELINES:
            raise self.error(
                "index",
                path,
                f"it describes {pipeline!r}, which is no WAN model",
                f"take a folder of {self.variant.label}: {_download(self.variant.repository)}",
            )
        expected = "WanImageToVideoPipeline" if self.variant.mode == "i2v" else "WanPipeline"
        if pipeline != expected:
            modes = _PIPELINES[pipeline]
            raise self.other_variant(
                "index",
                path,
                f"it describes {pipeline} ({modes}), and {self.variant.name} is {self.variant.mode}",
                [other for other in VARIANTS.values() if other.mode in modes.split(" or ")],
            )
        experts = 2 if _class_of(index, "transformer_2") else 1
        if experts != self.variant.experts and "transformer_2" not in self.without:
            raise self.other_variant(
                "index",
                path,
                f"the number of its transformers is {experts}, and that of {self.variant.name} {self.variant.experts}",
                [v for v in VARIANTS.values() if v.experts == experts and v.mode == self.variant.mode],
            )

    def check_class(self, index: dict[str, Any], part: str) -> None:
        found, expected = _class_of(index, part), _CLASSES[part]
        if found != expected:
            reason = f"{part} is {found}, not {expected}" if found else f"it names no {part}"
            raise self.error(part, self.folder / INDEX_NAME, reason)
        if not (self.folder / part).is_dir():
            raise self.error(part, self.folder / part, "the folder is missing")

    def check_scheduler(self, index: dict[str, Any]) -> str:
        name = _class_of(index, "scheduler")
        if name not in _SCHEDULERS:
            raise self.error(
                "scheduler",
                self.folder / INDEX_NAME,
                f"scheduler is {name}, which is no flow matching scheduler of WAN ({', '.join(_SCHEDULERS)})",
            )
        self.read_json("scheduler", self.folder / "scheduler" / "scheduler_config.json")
        return name

    def check_tokenizer(self) -> None:
        folder = self.folder / "tokenizer"
        self.read_json("tokenizer", folder / "tokenizer_config.json")
        if (folder / "tokenizer.json").exists():
            self.read_json("tokenizer", folder / "tokenizer.json")
        elif not (folder / "spiece.model").is_file():
            raise self.error("tokenizer", folder, "neither tokenizer.json nor spiece.model is there")

    def check_transformer(self, part: str, config: dict[str, Any]) -> None:
        path = self.folder / part / "config.json"
        channels = config.get("in_channels", 16)
        if channels != self.variant.in_channels:
            raise self.other_variant(
                part,
                path,
                f"it takes {channels} channels, and {self.variant.name} has {self.variant.in_channels}",
                [other for other in VARIANTS.values() if other.in_channels == channels],
            )
        image = config.get("image_dim") is not None
        if image != self.variant.has_image_encoder:
            raise self.other_variant(
                part,
                path,
                f"it {'attends' if image else 'does not attend'} to image embeddings, unlike {self.variant.name}",
                [v for v in VARIANTS.values() if v.in_channels == channels and v.has_image_encoder == image],
            )
        size = (config.get("num_attention_heads", 40), config.get("num_layers", 40))
        same_size = [v for v in VARIANTS.values() if (v.heads, v.layers) == size and v.experts == self.variant.experts]
        if same_size and self.variant not in same_size:
            raise self.other_variant(
                part,
                path,
                f"{size[1]} blocks of {size[0]} heads are those of {same_size[0].label}, not of {self.variant.label}",
                [other for other in same_size if other.in_channels == channels],
            )
        if "quantization_config" in config:
            raise self.error(part, path, "its weights are quantised, and a LoRA is trained here over full weights")

    def check_vae(self, config: dict[str, Any]) -> None:
        path = self.folder / "vae" / "config.json"
        channels = config.get("z_dim", 16)
        expected = 48 if self.variant.mode == "ti2v" else 16
        if channels != expected:
            raise self.error(
                "vae", path, f"its latents have {channels} channels, and {self.variant.name} has {expected}"
            )
        for name in ("latents_mean", "latents_std"):
            values = config.get(name)
            if values is not None and (not isinstance(values, list) or len(values) != channels):
                raise self.error("vae", path, f"{name} does not hold {channels} numbers")

    def check_text_width(self, text_encoder: dict[str, Any], transformer: dict[str, Any]) -> None:
        given = text_encoder.get("d_model")
        wanted = transformer.get("text_dim", 4096)
        if given != wanted:
            raise self.error(
                "text_encoder",
                self.folder / "text_encoder" / "config.json",
                f"its embeddings have {given} numbers, and the transformer takes {wanted}",
            )

    def check_image_encoder(self, config: dict[str, Any], transformer: dict[str, Any]) -> None:
        path = self.folder / "image_encoder" / "config.json"
        kind = config.get("model_type")
        if kind != "clip_vision_model":
            raise self.error(
                "image_encoder", path, f"it describes {kind!r}, and WAN sees images by a clip_vision_model"
            )
        given, wanted = config.get("hidden_size", 768), transformer.get("image_dim")
        if given != wanted:
            raise self.error(
                "image_encoder", path, f"its embeddings have {given} numbers, and the transformer takes {wanted}"
            )
        processor = self.folder / "image_processor" / "preprocessor_config.json"
        crop = self.read_json("image_processor", processor).get("crop_size")
        sides = set(crop.values()) if isinstance(crop, dict) else {crop}
        size = config.get("image_size", 224)
        if crop is not None and sides != {size}:
            raise self.error(
                "image_processor", processor, f"it crops images to {crop}, and the image encoder takes {size} x {size}"
            )

    def boundary_ratio(self, index: dict[str, Any]) -> float | None:
        if self.variant.experts == 1:
            return None
        ratio = index.get("boundary_ratio")
        if ratio is None:
            return self.variant.boundary_ratio
        if not isinstance(ratio, (int, float)) or not 0.0 < ratio < 1.0:
            raise self.error("index", self.folder / INDEX_NAME, f"boundary_ratio is {ratio!r}, not between 0 and 1")
        return float(ratio)

    def read_headers(self, part: str) -> dict[str, StoredTensor]:
        """The tensors of a part, from the headers of all its weight files."""
        folder = self.folder / part
        library: Literal["diffusers", "transformers"] = "transformers" if part in _TRANSFORMERS else "diffusers"
        path = next((folder / name for name in _WEIGHTS[library] if (folder / name).exists()), None)
        if path is None:
            raise self.missing_weights(part, folder, library)
        try:
            return read_header(path) if path.suffix == ".safetensors" else read_shards(path)
        except WeightFileError as error:
            raise self.error(part, error.path, error.reason, error.fix or None) from error

    def missing_weights(self, part: str, folder: Path, library: str) -> UserError:
        name = _WEIGHTS["diffusers"][1] if library == "diffusers" else _WEIGHTS["transformers"][0]
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in {".bin", ".pth", ".pt", ".ckpt"})
        if pickled:
            return self.error(
                part,
                folder / pickled[0],
                "only pickled weights are there; they can run code and are never opened",
                f"take the safetensors files: {_download(self.variant.repository)}",
            )
        others = sorted(file.name for file in folder.glob("*.safetensors*"))
        found = f"; there is {', '.join(others)}, which is not loaded by itself" if others else ""
        return self.error(part, folder / name, f"the file is missing{found}")


def _existing_folder(path: Path | str, variant: WanVariant) -> Path:
    text = str(path)
    folder = Path(path).expanduser()
    if not text.strip():
        raise UserError(
            "no model is named", reason="base_model_name is empty", fix=f"get one: {_download(variant.repository)}"
        )
    if folder.is_file():
        raise UserError(
            "the model is a single file",
            path=folder,
            reason="the standalone host takes a folder in diffusers' layout",
            fix=f"get one: {_download(variant.repository)}",
        )
    if not folder.is_dir():
        hub_id = _HUB_ID.fullmatch(text) is not None
        raise UserError(
            "the model folder is not there",
            path=text,
            reason="it looks like a Hub id, and models are taken from a local folder" if hub_id else "no such folder",
            fix=f"get it, and name the folder in the preset: {_download(text if hub_id else variant.repository)}",
        )
    if not (folder / INDEX_NAME).is_file():
        original = sorted(file.name for file in folder.glob("*.pth"))
        reason = f"it holds {original[0]}, the layout of the original release" if original else f"no {INDEX_NAME} in it"
        raise UserError(
            "the folder is not in diffusers' layout",
            path=folder,
            reason=reason,
            fix=f"take the diffusers version: {_download(variant.repository)}",
        )
    return folder


def _class_of(index: dict[str, Any], part: str) -> str | None:
    """Class name of a part in `model_index.json`, where a part is `[library, class]` or `[null, null]`."""
    entry = index.get(part)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str) else None


def _download(repository: str, folder: Path | None = None) -> str:
    return f'hf download {repository} --local-dir "{folder or "models/" + repository.split("/")[-1]}"'
