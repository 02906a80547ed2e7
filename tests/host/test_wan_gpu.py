"""What of WAN in OneTrainer needs a CUDA device: quantisation kernels, layers kept in main memory, compilation."""

from __future__ import annotations

import shutil
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
    if changes.get("weight_dtype") in ("INT_8", "NFLOAT_4"):
        pytest.importorskip("bitsandbytes", reason="OneTrainer takes these weights' layers from bitsandbytes")
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
    assert len(list((tmp_path / "workspace").glob("samples/*/*.mp4"))) == 2


@pytest.mark.parametrize("offload_fraction", [0.0, 0.5])
@pytest.mark.parametrize("dtype", ["GGUF", "GGUF_A8_FLOAT", "GGUF_A8_INT"])
def test_a_lora_trains_over_a_gguf_transformer(
    runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path, dtype: str, offload_fraction: float
) -> None:
    import wan_files
    from safetensors.torch import load_file

    weights = load_file(tiny_wan / "transformer" / "diffusion_pytorch_model.safetensors")
    file = wan_files.write_gguf(tmp_path / "wan.gguf", wan_files.in_own_names(weights), {"": "Q8_0"})
    part = {"model_name": str(file), "weight_dtype": dtype, "offload_fraction": offload_fraction}
    result = runs.train(
        runs.configuration(
            tiny_wan, clips, tmp_path, train_device="cuda", train_dtype="BFLOAT_16", transformer=part, epochs=3
        )
    )

    assert len(result.losses) == 6
    assert all(0 < loss < 100 for loss in result.losses)


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


@pytest.mark.parametrize("dtype", ["BFLOAT_16", "FLOAT_8"])
def test_the_text_encoder_holds_little_gpu_memory_and_encodes_the_same(
    runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path, dtype: str
) -> None:
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    model_folder = shutil.copytree(tiny_wan, tmp_path / "model")
    encoder = UMT5Config.from_pretrained(model_folder / "text_encoder")
    encoder.num_layers, encoder.d_ff = 12, 65536  # so that the blocks are most of it
    UMT5EncoderModel(encoder).eval().save_pretrained(model_folder / "text_encoder")
    encoded, held, losses = [], [], []
    for fraction in (0.0, 0.75):
        run = runs.train(
            runs.configuration(
                model_folder,
                clips,
                tmp_path / str(fraction),
                train_device="cuda",
                train_dtype="BFLOAT_16",
                dataloader_threads=1,
                text_encoder={"train": False, "weight_dtype": dtype, "offload_fraction": fraction},
            )
        )
        model = run.trainer.model
        model.evict()
        before = torch.cuda.memory_allocated()
        model.materialize_only("text_encoder")
        encoded.append(torch.cat([model.encode_text(text=[prompt]).cpu() for prompt in ("a ball", "a city at night")]))
        held.append(torch.cuda.memory_allocated() - before)
        losses.append(run.losses)
        model.evict()

    torch.testing.assert_close(encoded[1], encoded[0], rtol=0.02, atol=0.02)
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert 0 < held[1] < 0.6 * held[0]
