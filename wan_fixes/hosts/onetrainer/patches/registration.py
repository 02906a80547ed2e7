"""WAN's loader, setup, data loader, sampler and saver in OneTrainer's factory."""

from __future__ import annotations

from types import ModuleType

from wan_fixes.hosts.onetrainer.patching import Patch
from wan_fixes.wan.variants import VARIANTS


def register_wan(module: ModuleType) -> None:
    """Register every class once `modules.util.create` has collected the stock ones."""
    from wan_fixes.hosts.onetrainer.wan import registry

    types = module.ModelType.__members__
    if missing := [name for name in VARIANTS if name not in types]:
        raise LookupError(f"the model types {', '.join(missing)} were not added")
    registry.register([types[name] for name in VARIANTS])


PATCHES: tuple[Patch, ...] = (
    Patch(
        name="wan registration",
        module="modules.util.create",
        needs=(
            "ModelType",
            "modules.util.enum.ModelType:_MODEL_PARTS",  # without WAN's model types there is nothing to register for
            "modules.util.factory:register",
            "modules.modelLoader.GenericLoRAModelLoader:make_lora_model_loader",
            "modules.modelSaver.GenericLoRAModelSaver:make_lora_model_saver",
        ),
        apply=register_wan,
        why="training of WAN",
    ),
)
