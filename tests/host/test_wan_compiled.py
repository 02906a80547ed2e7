"""Both experts compiled by torch in one run: their layers are compiled for each, and the losses stay what they were."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.full  # a minute and more of compiling, where torch has compiled nothing yet
def test_both_experts_train_compiled_as_they_do_uncompiled(
    runs: Any, tiny_wan_two_experts: Path, tmp_path: Path
) -> None:
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch compiles for the CPU with a C++ compiler, and there is none")
    clips = runs.make_clips(tmp_path / "clips", 2)
    trained = {}
    for compiled in (False, True):
        config = runs.configuration(
            tiny_wan_two_experts,
            clips,
            tmp_path / str(compiled),
            model_type="WAN_2_2_T2V_A14B",
            epochs=3,
            compile=compiled,
        )
        trained[compiled] = runs.train(config)

    model = trained[True].trainer.model
    for part in ("transformer", "transformer_2"):
        blocks = [block for block in getattr(model, part).modules() if block._compiled_call_impl is not None]
        assert len(blocks) == len(getattr(model, part).blocks)
        adapters = getattr(model, f"{part}_lora").lora_modules.values()
        assert all(adapter.lora_up.weight.abs().max() > 0 for adapter in adapters)
    assert trained[True].losses == pytest.approx(trained[False].losses, rel=1e-4)
