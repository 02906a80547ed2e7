"""Puts WAN's classes into OneTrainer's factory, for every variant."""

from __future__ import annotations

from typing import Any

from modules.dataLoader.BaseDataLoader import BaseDataLoader
from modules.modelLoader.GenericFineTuneModelLoader import make_fine_tune_model_loader
from modules.modelLoader.GenericLoRAModelLoader import make_lora_model_loader
from modules.modelSampler.BaseModelSampler import BaseModelSampler
from modules.modelSaver.GenericFineTuneModelSaver import make_fine_tune_model_saver
from modules.modelSaver.GenericLoRAModelSaver import make_lora_model_saver
from modules.modelSetup.BaseModelSetup import BaseModelSetup
from modules.util import factory
from modules.util.enum.TrainingMethod import TrainingMethod

from wan_fixes.hosts.onetrainer.wan.data_loader import WanDataLoader
from wan_fixes.hosts.onetrainer.wan.loader import WanModelLoader
from wan_fixes.hosts.onetrainer.wan.lora_loader import WanLoRALoader
from wan_fixes.hosts.onetrainer.wan.lora_saver import WanLoRASaver
from wan_fixes.hosts.onetrainer.wan.model import WanModel
from wan_fixes.hosts.onetrainer.wan.sampler import WanSampler
from wan_fixes.hosts.onetrainer.wan.saver import WanModelSaver
from wan_fixes.hosts.onetrainer.wan.setup_finetune import WanFineTuneSetup
from wan_fixes.hosts.onetrainer.wan.setup_lora import WanLoRASetup


def register(model_types: list[Any]) -> None:
    """Register each class for each of `model_types`; types that are registered already are left alone."""
    new = [kind for kind in model_types if factory.get(BaseDataLoader, kind) is None]
    if not new:
        return
    # An empty name: the header is filled in by the loader, from the variant, instead of from a file of OneTrainer's.
    headers = dict.fromkeys(new, "")
    make_lora_model_loader(headers, WanModel, WanModelLoader, None, WanLoRALoader)
    make_fine_tune_model_loader(headers, WanModel, WanModelLoader, None)
    make_lora_model_saver(new, WanModel, WanLoRASaver, None)
    make_fine_tune_model_saver(new, WanModel, WanModelSaver, None)
    for kind in new:
        factory.register(BaseDataLoader, WanDataLoader, kind)
        factory.register(BaseModelSampler, WanSampler, kind)
        factory.register(BaseModelSetup, WanLoRASetup, kind, TrainingMethod.LORA)
        factory.register(BaseModelSetup, WanFineTuneSetup, kind, TrainingMethod.FINE_TUNE)
