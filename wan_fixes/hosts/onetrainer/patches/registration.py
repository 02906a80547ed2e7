"""WAN's loader, setup, data loader, sampler and saver in OneTrainer's factory."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.patching import Patch, wrap
from wan_fixes.wan.variants import VARIANTS


def register_wan(module: ModuleType) -> None:
    """Register every class once `modules.util.create` has collected the stock ones."""
    from wan_fixes.hosts.onetrainer.wan import registry

    types = module.ModelType.__members__
    if missing := [name for name in VARIANTS if name not in types]:
        raise LookupError(f"the model types {', '.join(missing)} were not added")
    registry.register([types[name] for name in VARIANTS])
    wrap(module, "create_model_loader", _or_refuse)


def _or_refuse(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Stock makes no loader for a method that it does not know, and every caller dies of it with an AttributeError."""

    def create_model_loader(model_type: Any, *args: Any, **kwargs: Any) -> Any:
        loader = stock(model_type, *args, **kwargs)
        if loader is None and model_type.name in VARIANTS:
            method = next((str(value) for value in (*args, *kwargs.values())), "this method")
            known = [str(value) for value in model_type.supported_training_methods()]
            raise UserError(
                f"{model_type.name} cannot be loaded for {method}",
                reason="WAN has no embeddings or VAE of its own to train",
                fix=f"choose {' or '.join(known)} as the training method",
            )
        return loader

    return create_model_loader


PATCHES: tuple[Patch, ...] = (
    Patch(
        name="wan registration",
        module="modules.util.create",
        needs=(
            "ModelType",
            "create_model_loader",
            "modules.util.enum.ModelType:_MODEL_PARTS",  # without WAN's model types there is nothing to register for
            "modules.util.factory:register",
            "modules.modelLoader.GenericLoRAModelLoader:make_lora_model_loader",
            "modules.modelSaver.GenericLoRAModelSaver:make_lora_model_saver",
        ),
        apply=register_wan,
        why="training of WAN",
    ),
)
