"""What WAN needs of OneTrainer's configurations: two more parts, sampling defaults, Muon's layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

from wan_fixes.hosts.onetrainer.patching import Patch, wrap
from wan_fixes.wan.variants import VARIANTS

PARTS = {"transformer_2": True, "image_encoder": False}
"""Fields added to `TrainConfig`, and whether they are trained by default: the low-noise expert, I2V's image encoder."""

# The reference's guidance and, for sizes, its 480p; a preview at full size would take longer than an epoch.
_SAMPLING = {"width": 832, "height": 480, "diffusion_steps": 30, "cfg_scale": 5.0}

VAE_TILING = "vae_tiling"
"""Whether the VAE works on one tile of a picture after the other: less memory, and slightly other latents."""

_HIDDEN_LAYERS = r"blocks\.\d+\.(attn1|attn2|ffn)\."
"""The layers whose matrices Muon takes by default. A block's table of shifts and scales is no matrix, and is Adam's."""


def extend_train_config(module: ModuleType) -> None:
    """Add the parts to `TrainConfig`, and pass what they say on to the loader."""
    wrap(module.TrainConfig, "default_values", _with_parts(module))
    wrap(module.TrainConfig, "weight_dtypes", _with_dtype)
    wrap(module.TrainConfig, "model_names", _with_names)


def _with_parts(module: ModuleType) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(stock: Callable[..., Any]) -> Callable[..., Any]:
        def default_values(*arguments: Any, **options: Any) -> Any:
            config = stock(*arguments, **options)
            for name in (name for name in PARTS if name not in config.types):
                part = module.TrainModelPartConfig.default_values()
                part.train, part.stop_training_after = PARTS[name], 0
                setattr(config, name, part)
                config.types[name] = module.TrainModelPartConfig
                config.nullables[name] = False
                config.default_values[name] = part
            if VAE_TILING not in config.types:
                setattr(config, VAE_TILING, False)
                config.types[VAE_TILING], config.nullables[VAE_TILING] = bool, False
                config.default_values[VAE_TILING] = False
            return config

        return default_values

    return around


def _with_dtype(stock: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def weight_dtypes(self: Any) -> Any:
        dtypes = stock(self)
        for name in PARTS:
            setattr(dtypes, name, getattr(self, name).weight_dtype)
        return dtypes

    return weight_dtypes


def _with_names(stock: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def model_names(self: Any) -> Any:
        names = stock(self)
        names.transformer_2_model = self.transformer_2.model_name
        names.include_transformer = self.transformer.include
        names.include_transformer_2 = self.transformer_2.include
        return names

    return model_names


def extend_sample_config(module: ModuleType) -> None:
    """Give WAN's samples the size, steps and guidance that suit it."""

    def around(stock: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
        def model_defaults(model_type: Any) -> dict[str, Any]:
            defaults = stock(model_type)
            return defaults | _SAMPLING if getattr(model_type, "name", None) in VARIANTS else defaults

        return model_defaults

    wrap(module, "_get_model_defaults", around)


def extend_muon(module: ModuleType) -> None:
    """Tell Muon which layers of WAN are hidden ones, where the user does not: stock raises for models it lacks."""

    def around(stock: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def key_function(model: Any, config: Any) -> Any:
            if model.model_type.name in VARIANTS and config.optimizer.muon_hidden_layers is None:
                config = copy.copy(config)
                config.optimizer = copy.copy(config.optimizer)
                config.optimizer.muon_hidden_layers = _HIDDEN_LAYERS
                config.optimizer.muon_adam_regex = True
            return stock(model, config)

        return key_function

    wrap(module, "build_muon_adam_key_fn", around)


PATCHES: tuple[Patch, ...] = (
    Patch(
        name="wan model parts",
        module="modules.util.config.TrainConfig",
        needs=(
            "TrainModelPartConfig.default_values",
            "TrainConfig.default_values",
            "TrainConfig.weight_dtypes",
            "TrainConfig.model_names",
            "modules.util.enum.ModelType:_MODEL_PARTS",  # without it WAN is not among the model types
        ),
        apply=extend_train_config,
        why="setting for WAN 2.2's second expert and I2V's image encoder",
    ),
    Patch(
        name="wan sampling defaults",
        module="modules.util.config.SampleConfig",
        needs=("_get_model_defaults",),
        apply=extend_sample_config,
        why="fitting default for WAN's samples",
    ),
    Patch(
        name="wan muon layers",
        module="modules.util.optimizer.muon_util",
        needs=("build_muon_adam_key_fn",),
        apply=extend_muon,
        why="training of WAN with Muon",
    ),
)
