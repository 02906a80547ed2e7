"""The presets say only what OneTrainer understands and WAN can do: every model, for a LoRA by memory and as a whole."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import wan_fixes

FOLDER = Path(wan_fixes.__file__).parent / "hosts" / "onetrainer" / "presets"
PRESETS = sorted(FOLDER.glob("*/#*.json"))


def test_each_model_has_a_lora_for_each_size_of_memory_and_a_full_fine_tune() -> None:
    from wan_fixes.wan.variants import VARIANTS

    found: Counter[tuple[str, str, int]] = Counter()
    for path in PRESETS:
        content = json.loads(path.read_text(encoding="utf-8"))
        memory = re.search(r"(\d+)GB \(estimated\)", path.stem)
        found[content["model_type"], content["training_method"], int(memory[1])] += 1
    expected = {(name, "LORA", memory) for name in VARIANTS for memory in (8, 12, 16, 24)}
    expected |= {(name, "FINE_TUNE", 24) for name in VARIANTS}
    assert set(found) == expected
    assert set(found.values()) == {1}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_onetrainer_takes_every_setting_of_it_and_wan_has_nothing_against_it(
    wan_host: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from modules.util.config.TrainConfig import TrainConfig

    from wan_fixes.hosts.onetrainer.wan.configuration import check_configuration
    from wan_fixes.hosts.onetrainer.wan.setup import BaseWanSetup
    from wan_fixes.wan.variants import get_variant

    content = json.loads(path.read_text(encoding="utf-8"))
    config = TrainConfig.default_values().from_dict(content, migrate=False)
    variant = get_variant(content["model_type"])

    assert "Could not set" not in capsys.readouterr().out
    unknown = content.keys() - config.types.keys()
    unknown |= {
        f"{name}.{key}"
        for name, part in content.items()
        if name in config.model_type.model_parts()
        for key in part.keys() - getattr(config, name).types.keys()
    }
    assert not unknown
    check_configuration(config, variant)
    assert config.timestep_shift == variant.default_shift
    assert config.base_model_name == variant.repository
    assert config.output_model_format in config.model_type.supported_output_formats(config.training_method)
    patterns = [pattern for pattern in config.layer_filter.split(",") if pattern]
    assert BaseWanSetup.LAYER_PRESETS[config.layer_filter_preset] == patterns
    assert not config.text_encoder.train
    assert (config.text_encoder.offload_fraction > 0) == bool(re.search(r" (8|12)GB ", path.stem))
    assert config.text_encoder.offload_fraction == 0 or config.dataloader_threads == 1
