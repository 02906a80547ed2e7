"""WAN's model types in OneTrainer's `ModelType`, and what that enumeration says of them."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import ModuleType
from typing import Any

from wan_fixes.hosts.onetrainer.patching import Patch, on_undo, replace, wrap
from wan_fixes.wan.variants import VARIANTS, WanVariant

MODULE = "modules.util.enum.ModelType"


def model_parts(variant: WanVariant) -> tuple[str, ...]:
    """The parts of a WAN model by the names of their fields in `TrainConfig`, the denoising one first."""
    experts = ("transformer", "transformer_2")[: variant.experts]
    encoders = ("text_encoder", "image_encoder") if variant.has_image_encoder else ("text_encoder",)
    return (*experts, *encoders, "vae")


def extend_model_type(module: ModuleType) -> None:
    """Add a member for each variant (its name is its value, since configurations load by name) and answer for it."""
    model_type: Any = module.ModelType
    for variant in VARIANTS.values():
        if variant.name not in model_type.__members__:
            _add_member(model_type, variant.name)
        module._MODEL_PARTS[model_type[variant.name]] = model_parts(variant)
    replace(model_type, "is_wan", is_wan)
    wrap(model_type, "is_flow_matching", _or_wan)
    wrap(model_type, "is_video_model", _or_wan)
    wrap(model_type, "supported_training_methods", _training_methods(module))


def is_wan(self: Enum) -> bool:
    """Whether a model type is one of WAN's."""
    return self.name in VARIANTS


def _or_wan(stock: Callable[[Enum], bool]) -> Callable[[Enum], bool]:
    def answer(self: Enum) -> bool:
        return is_wan(self) or stock(self)

    return answer


def _training_methods(module: ModuleType) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(stock: Callable[..., Any]) -> Callable[..., Any]:
        def supported_training_methods(self: Enum) -> Any:
            if is_wan(self):
                return module.TrainingMethod.FINE_TUNE, module.TrainingMethod.LORA
            return stock(self)

        return supported_training_methods

    return around


def _add_member(enumeration: Any, name: str) -> None:
    """Add a member to an enumeration that is already in use: its members stay the objects that they are."""
    member = object.__new__(enumeration)
    member._name_, member._value_ = name, name
    member.__objclass__ = enumeration
    member._sort_order_ = len(enumeration._member_names_)
    # Past the metaclass, which forbids it; before the maps know the name, which it looks into.
    type.__setattr__(enumeration, name, member)
    enumeration._member_names_.append(name)
    enumeration._member_map_[name] = member
    enumeration._value2member_map_[name] = member

    def remove() -> None:
        enumeration._member_names_.remove(name)
        del enumeration._member_map_[name], enumeration._value2member_map_[name]
        type.__delattr__(enumeration, name)

    on_undo(remove)


PATCHES: tuple[Patch, ...] = (
    Patch(
        name="wan model types",
        module=MODULE,
        needs=(
            "ModelType",
            "_MODEL_PARTS",
            "TrainingMethod",
            "ModelType.is_flow_matching",
            "ModelType.is_video_model",
            "ModelType.supported_training_methods",
        ),
        apply=extend_model_type,
        why="WAN among the model types",
    ),
)
