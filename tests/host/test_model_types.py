"""The protections fit every model type of OneTrainer: no module of any of its pipelines is unknown to the rewrite."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

REPLACED = {
    *("AspectBatchSorting", "CollectPaths", "DiskCache", "EncodeVAE", "InlineAspectBatchSorting", "LoadImage"),
    *("LoadMultipleTexts", "LoadVideo", "VariationSorting"),
}
GUARDED = {
    *("AspectBucketing", "CalcAspect", "CapitalizeTags", "DecodeTokens", "DecodeVAE", "DistributedSampler"),
    *("DownloadHuggingfaceDatasets", "DropTags", "EncodeAnimaText", "EncodeClipText", "EncodeGemmaText"),
    *("EncodeIdeogramText", "EncodeLlamaText", "EncodeMistralText", "EncodeQwenText", "EncodeT5Text"),
    *("EncodeWuerstchenEffnet", "GenerateDepth", "GenerateImageLike", "GenerateMaskedConditioningImage", "GetFilename"),
    *("ImageToVideo", "MapData", "ModifyPath", "NormalizeImageChannels", "PadMaskedTokens", "PruneMaskedTokens"),
    *("RandomBrightness", "RandomCircularMaskShrink", "RandomContrast", "RandomFlip", "RandomHue"),
    *("RandomLatentMaskRemove", "RandomMaskRotateCrop", "RandomRotate", "RandomSaturation", "RescaleImageChannels"),
    *("SampleVAEDistribution", "SaveImage", "SaveText", "ScaleCropImage", "ScaleImage", "SelectFirstInput"),
    *("SelectInput", "SelectRandomText", "ShuffleFluxFillMaskChannels", "ShuffleTags", "SingleAspectCalculation"),
    "Tokenize",
}
FITTED = {"CalcAspect", "ScaleCropImage"}
"""Replaced together, where clips are loaded and nothing between needs them whole; else guarded."""
LEFT = {"OutputPipelineModule", "InlineDistributedSampler"}
"""They only pass on what the modules before them have checked, and the engine asks for whole batches of their kind."""

FROZEN = {f"text_encoder{number}": {"train": False} for number in ("", "_2", "_3", "_4")}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "text encoders trained": {},
    "masks": FROZEN | {"masked_training": True, "custom_conditioning_image": True, "debug_mode": True},
    "validation": FROZEN | {"aspect_ratio_bucketing": False, "validation": True},
    "two GPUs": FROZEN | {"multi_gpu": True},
}


@pytest.fixture(scope="module")
def factory(wan_host: Path) -> Any:
    from modules.util import factory

    return factory


def loaders(factory: Any) -> list[tuple[Any, Any, type]]:
    """Every data loader that is registered: model type, training method, and the class of the model."""
    from modules.dataLoader.BaseDataLoader import BaseDataLoader
    from modules.modelLoader.BaseModelLoader import BaseModelLoader
    from modules.util.enum.ModelType import ModelType
    from modules.util.enum.TrainingMethod import TrainingMethod

    found = []
    for model_type in ModelType:
        for method in TrainingMethod:
            model_loader = factory.get(BaseModelLoader, model_type, method)
            data_loader = factory.get(BaseDataLoader, model_type, method) or factory.get(BaseDataLoader, model_type)
            if model_loader is not None and data_loader is not None:
                (model_class, _) = get_args(inspect.signature(model_loader.load).return_annotation)
                found.append((model_type, method, model_class))
    return found


def without_weights(model_class: type, model_type: Any) -> Any:
    """OneTrainer's model as its constructor leaves it; where a network or a tokenizer belongs is something empty."""
    import torch

    model = model_class(model_type=model_type)
    for name in [name for name, value in vars(model).items() if value is None]:
        if "tokenizer" in name:
            setattr(model, name, SimpleNamespace(model_max_length=77))
        elif any(part in name for part in ("vae", "encoder", "transformer", "unet", "prior", "decoder")):
            network = torch.nn.Module()
            network.config = SimpleNamespace(num_attention_heads=2, llama_layers=[0])  # HiDream's encoders are asked
            network.use_tiling, network.dtype = False, torch.float32  # and WAN's VAE
            setattr(model, name, network)
    return model


def definition_of(factory: Any, model_type: Any, method: Any, model_class: type, changes: dict[str, Any]) -> list[Any]:
    """What the stock data loader hands to MGDS."""
    import torch
    from modules.dataLoader.mixin.DataLoaderMgdsMixin import DataLoaderMgdsMixin
    from modules.util import create, multi_gpu_util
    from modules.util.config.TrainConfig import TrainConfig

    config = TrainConfig.default_values()
    config.model_type, config.training_method = model_type, method
    config.from_dict(changes, migrate=False)
    definitions = []

    def take(self: Any, config: Any, definition: list[Any], *arguments: Any) -> Any:
        definitions.append(definition)
        return SimpleNamespace()

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(DataLoaderMgdsMixin, "_create_mgds", take)
        monkeypatch.setattr(multi_gpu_util, "world_size", lambda: 2)
        cpu = torch.device("cpu")
        model = without_weights(model_class, model_type)
        create.create_data_loader(cpu, cpu, model, model_type, SimpleNamespace(), method, config)
    (definition,) = definitions
    return definition


def flat(definition: list[Any]) -> Iterator[Any]:
    for part in definition:
        if isinstance(part, list):
            yield from flat(part)
        elif part is not None:
            yield part


def test_every_model_type_has_a_loader_that_is_looked_at_here(factory: Any) -> None:
    from modules.util.enum.ModelType import ModelType

    missing = {kind.name for kind in ModelType} - {kind.name for kind, _, _ in loaders(factory)}
    assert missing == set()


@pytest.mark.parametrize("latent_caching", [True, False], ids=["cached", "not cached"])
@pytest.mark.parametrize("changes", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_every_module_of_every_model_type_is_replaced_guarded_or_left_on_purpose(
    factory: Any, tmp_path: Path, changes: dict[str, Any], latent_caching: bool
) -> None:
    from wan_fixes.pipeline import EnhancedSafePipelineModule, PipelineContext, rewrite_definition

    context = PipelineContext.create(tmp_path)
    try:
        for model_type, method, model_class in loaders(factory):
            which = f"{model_type.name} {method.name}"
            settings = changes | {"latent_caching": latent_caching}
            definition = definition_of(factory, model_type, method, model_class, settings)
            kinds = [type(module) for module in flat(definition)]
            stock = {kind.__name__ for kind in kinds if not kind.__module__.startswith("wan_fixes.")}

            report = rewrite_definition(definition, context)

            assert stock <= REPLACED | GUARDED | LEFT, which
            assert set(report.replaced) - FITTED == stock & REPLACED, which
            assert set(report.replaced) & FITTED in (set(), FITTED), which
            if "LoadVideo" not in stock or changes.get("masked_training"):
                assert not set(report.replaced) & FITTED, which
            assert report.not_runnable == {}, which
            for module in flat(definition):
                name = type(module).__name__
                if isinstance(module, EnhancedSafePipelineModule):
                    inner = type(module.wrapped_module)
                    assert inner.__name__ in GUARDED or inner.__module__.startswith("wan_fixes."), which
                else:
                    assert type(module).__module__.startswith("wan_fixes.") or name in LEFT, (which, name)
            assert {"CollectPaths", "DiskCache" if latent_caching else "InlineAspectBatchSorting"} <= stock, which
    finally:
        context.close()
