"""What of WAN in OneTrainer needs a CUDA device: quantisation kernels, layers kept in main memory, compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def runs(wan_host: Path) -> Any:
    import torch
    import wan_runs

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return wan_runs


@pytest.fixture(scope="module")
def clips(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_clips(tmp_path_factory.mktemp("clips"), 2)


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        *({"weight_dtype": name} for name in ("FLOAT_8", "INT_8", "NFLOAT_4", "FLOAT_W8A8", "INT_W8A8")),
        {"offload_fraction": 0.5},
        {"offload_fraction": 0.5, "activation_offloading": True},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "plain",
)
def test_a_lora_trains_on_the_gpu(
    runs: Any,
    tiny_wan: Path,
    tiny_wan_two_experts: Path,
    clips: Path,
    tmp_path: Path,
    experts: int,
    changes: dict[str, Any],
) -> None:
    variant = {"model_type": "WAN_2_2_T2V_A14B"} if experts == 2 else {}
    part = {"weight_dtype": "BFLOAT_16"} | changes
    sample = {"prompt": "a ball", "width": 64, "height": 64, "frames": 5, "diffusion_steps": 2}
    result = runs.train(
        runs.configuration(
            tiny_wan_two_experts if experts == 2 else tiny_wan,
            clips,
            tmp_path,
            train_device="cuda",
            train_dtype="BFLOAT_16",
            transformer=part,
            transformer_2=part,
            epochs=3,
            samples=[sample],
            sample_after=2,
            sample_after_unit="EPOCH",
            **variant,
        )
    )

    assert len(result.losses) == 6
    assert all(0 < loss < 100 for loss in result.losses)
    assert len(list((tmp_path / "workspace").glob("samples/*/*.mp4"))) == 1


def test_a_lora_trains_compiled(runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    result = runs.train(runs.configuration(tiny_wan, clips, tmp_path, train_device="cuda", compile=True))

    assert all(0 < loss < 100 for loss in result.losses)


def test_only_the_expert_at_work_holds_gpu_memory(
    runs: Any, tiny_wan_two_experts: Path, clips: Path, tmp_path: Path
) -> None:
    from modules.util import create
    from modules.util.TrainProgress import TrainProgress

    config = runs.configuration(
        tiny_wan_two_experts, clips, tmp_path, train_device="cuda", model_type="WAN_2_2_T2V_A14B"
    )
    model = create.create_model_loader(config.model_type, config.training_method).load(
        config.model_type, config.model_names(), config.weight_dtypes(), config.quantization
    )
    model.train_config, model.train_progress = config, TrainProgress()
    for part, other in (("transformer", "transformer_2"), ("transformer_2", "transformer")):
        model.activate(part)
        assert {parameter.device.type for parameter in getattr(model, part).parameters()} == {"cuda"}
        assert {parameter.device.type for parameter in getattr(model, other).parameters()} == {"cpu"}
