"""Training from a preset: what is trained, what is said, and what is left behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from wan_fixes.errors import CriticalError, UserError
from wan_fixes.health import RunDatabase
from wan_fixes.hosts.standalone import Preset
from wan_fixes.hosts.standalone.checkpoint import read_checkpoint
from wan_fixes.hosts.standalone.model import load_model
from wan_fixes.hosts.standalone.result import TrainResult
from wan_fixes.hosts.standalone.steps import velocity
from wan_fixes.hosts.standalone.trainer import MAX_BAD_STEPS, train
from wan_fixes.settings import Settings
from wan_fixes.store import SampleStore
from wan_fixes.wan.flow import add_noise, flow_matching_loss, velocity_target
from wan_fixes.wan.latents import normalize_latents
from wan_fixes.wan.lora import add_lora, load_adapter_state, load_lora, lora_state_dict
from wan_fixes.wan.lora_keys import lora_to_diffusers
from wan_fixes.wan.timesteps import stratified_sigmas


def run(preset: Preset, **options: Any) -> TrainResult:
    return train(preset, settings=Settings(), **options)


def test_a_run_trains_every_good_clip_names_every_bad_one_and_leaves_its_files(workplace):
    (workplace.clips / "text.mp4").write_text("not a video", encoding="utf-8")
    (workplace.clips / "empty.mp4").touch()
    events: list[tuple[str, dict[str, Any]]] = []
    preset = workplace.preset(
        samples=[{"prompt": "numbers", "diffusion_steps": 2, "cfg_scale": 1}],
        backup_after=4,
        backup_after_unit="STEP",
        save_every=5,
        save_every_unit="STEP",
        dataloader_threads=2,
        latent_caching=True,
    )
    result = run(preset, on_event=lambda name, payload: events.append((name, payload)))

    assert (result.steps, result.first_step, result.finished) == (10, 0, True)
    assert (result.valid, result.skipped, result.failed) == (5, 2, 0)
    assert {Path(remark.path).name: remark.reason for remark in result.left_out} == {
        "text.mp4": "not a video: a text file",
        "empty.mp4": "the file is empty",
    }
    assert all(remark.fix for remark in result.left_out)
    assert (result.cache_hits, result.cache_misses) == (0, 10)
    assert len(result.losses) == 10
    assert all(file.is_file() for file in result.files)
    assert {file.name for file in (preset.workspace_dir / "save").iterdir()} == {
        "lora-000005.safetensors",
        "lora-000010.safetensors",
    }

    names = [name for name, _ in events]
    assert names.index("caching_finished") < names.index("step_finished")
    ready = next(p for name, p in events if name == "message" and p["kind"] == "samples_ready")
    assert ready["text"] == "5 samples are valid, 2 are skipped, 0 failed"
    assert names.index("message") < names.index("step_finished")
    assert [names.count(name) for name in ("run_started", "epoch_started", "step_finished", "run_finished")] == [
        1,
        2,
        10,
        1,
    ]
    json.dumps(events)

    with RunDatabase(preset.run_database) as database:
        record = database.latest_run()
        assert record is not None
        assert (record.kind, record.status) == ("train", "finished")
        assert database.sample_counts(record.id)["valid"] == 5
        assert len(database.steps(record.id)) == 10
        assert any(event.kind == "samples_ready" for event in database.events(record.id))

    again = run(workplace.preset(epochs=1))
    assert (again.cache_hits, again.cache_misses) == (10, 0)
    assert (again.first_step, again.steps) == (0, 5)


def test_the_lora_changes_the_model_and_its_file_gives_the_trainers_output(workplace, tiny_wan):
    from diffusers import WanPipeline

    result = run(workplace.preset(learning_rate=1e-2, lora_alpha=8, epochs=4))
    torch.manual_seed(0)
    latents, text = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 512, 32)
    sigmas = torch.tensor([0.7])

    def output(transformer: Any) -> torch.Tensor:
        with torch.no_grad():
            return velocity(transformer.eval(), latents, sigmas, text)

    base = output(load_model(tiny_wan, "WAN_2_1_T2V_1_3B").transformer)
    pipeline = WanPipeline.from_pretrained(tiny_wan)
    pipeline.load_lora_weights(result.lora)
    trained = output(pipeline.transformer)
    assert (trained - base).abs().max() > 1e-3

    # the adapter as the trainer had it, from its checkpoint
    live = load_model(tiny_wan, "WAN_2_1_T2V_1_3B").transformer
    add_lora(live, 4, 8)
    load_adapter_state(live, read_checkpoint(result.checkpoint).adapter)
    assert (output(live) - trained).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("lora_format", "beginning"), [("COMFY_LORA", "diffusion_model.blocks."), ("KOHYA_LORA", "lora_unet_blocks_")]
)
def test_the_file_has_the_names_that_the_preset_asks_for_and_the_trainers_weights(workplace, lora_format, beginning):
    result = run(workplace.preset(output_model_format=lora_format, lora_alpha=8, save_every=3, save_every_unit="STEP"))
    state, header = load_lora(result.lora)
    assert all(key.startswith(beginning) for key in state)
    assert header["base_model"] == "WAN_2_1_T2V_1_3B"
    live = load_model(workplace.model, "WAN_2_1_T2V_1_3B").transformer
    add_lora(live, 4, 8)
    load_adapter_state(live, read_checkpoint(result.checkpoint).adapter)
    expected = lora_state_dict(live)
    read = lora_to_diffusers(state)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[key], expected[key]) for key in expected)
    (on_the_way, *_) = sorted((workplace.folder / "workspace" / "save").glob("*.safetensors"))
    assert load_lora(on_the_way)[0].keys() == state.keys()


def test_overfitting_one_clip_lowers_the_loss_over_a_fixed_grid_of_timesteps_and_noises(workplace, tiny_wan):
    from wan_fixes.hosts.standalone.checkpoint import read_checkpoint
    from wan_fixes.wan.lora import add_lora, load_adapter_state

    for number in range(1, 5):
        (workplace.clips / f"clip{number}.mp4").unlink()
    preset = workplace.preset(
        epochs=1,
        learning_rate=3e-3,
        lora_rank=16,
        lora_alpha=16,
        batch_size=4,
        concepts=[{"path": str(workplace.clips), "balancing": 400, "balancing_strategy": "SAMPLES"}],
    )
    result = run(preset)
    assert result.steps == 100

    model = load_model(tiny_wan, "WAN_2_1_T2V_1_3B")
    (latent,) = stored(preset.cache_dir / "image", "latent_image").values()
    (text,) = stored(preset.cache_dir / "text", "text_encoder_hidden_state").values()
    latents = normalize_latents(latent[None], model.vae.config)
    sigmas = stratified_sigmas(8, shift=preset.timestep_shift)

    @torch.no_grad()
    def grid_loss(transformer: Any) -> float:
        losses = []
        for sigma in sigmas:
            for seed in range(4):
                noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1000 + seed))
                prediction = velocity(transformer, add_noise(latents, noise, sigma[None]), sigma[None], text[None])
                losses.append(flow_matching_loss(prediction, velocity_target(latents, noise)).item())
        return sum(losses) / len(losses)

    before = grid_loss(model.transformer)
    add_lora(model.transformer, preset.lora_rank, preset.lora_alpha)
    load_adapter_state(model.transformer, read_checkpoint(result.checkpoint).adapter)
    assert grid_loss(model.transformer) <= 0.9 * before


def stored(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of that name in a cache, by key."""
    store = SampleStore(folder / "samples")
    try:
        keys = [path.stem for path in folder.rglob("*.safetensors")]
        return {key: store.get(key)[name] for key in keys}
    finally:
        store.close()


def test_four_loader_threads_make_the_latents_of_one_bit_for_bit(make_workplace):
    made = []
    for threads in (1, 4):
        place = make_workplace(f"{threads} threads")
        preset = place.preset(
            dataloader_threads=threads,
            epochs=1,
            concepts=[
                {
                    "path": str(place.clips),
                    "image_variations": 3,
                    "image": {"enable_crop_jitter": True, "enable_random_flip": True},
                    "balancing": 3,
                }
            ],
        )
        run(preset, max_steps=1)
        made.append(stored(preset.cache_dir / "image", "latent_image"))
    one, four = made
    assert len(one) == 15
    assert one.keys() == four.keys()
    assert all(torch.equal(one[key], four[key]) for key in one)


def test_without_latent_caching_the_same_clips_are_trained(workplace):
    result = run(workplace.preset(latent_caching=False, epochs=1, batch_size=2))
    assert result.valid == 5
    assert result.steps == 3
    assert (result.cache_hits, result.cache_misses) == (0, 0)


def test_clips_of_different_shape_and_pictures_are_trained_in_batches_of_their_own(workplace):
    from clips import write_clip
    from painted import paint_frame
    from PIL import Image

    write_clip(workplace.clips / "wide.mp4", [paint_frame(n, width=128, height=48) for n in range(16)])
    Image.fromarray(paint_frame(0, width=64, height=64)).save(workplace.clips / "picture.png")
    shapes = set()
    result = run(workplace.preset(resolution="64", epochs=1, batch_size=2, save_every=1, save_every_unit="STEP"))
    assert result.valid == 7
    assert result.steps == 5  # 5 clips of 4:3 in 3 batches, one wide clip, one picture
    for latent in stored(workplace.folder / "cache" / "image", "latent_image").values():
        shapes.add(tuple(latent.shape))
    assert len(shapes) == 3
    assert any(shape[1] == 1 for shape in shapes)


def test_a_concept_of_weight_0_takes_no_step(workplace):
    concept = {"path": str(workplace.clips), "loss_weight": 0}
    result = run(workplace.preset(concepts=[concept], epochs=1))
    assert (result.steps, result.losses, result.finished) == (0, (), True)
    weights = load_file(result.lora)
    assert all(not weight.any() for name, weight in weights.items() if "lora_B" in name)


def test_a_loss_that_is_no_number_any_more_ends_the_run_and_keeps_the_last_checkpoint(workplace):
    preset = workplace.preset(learning_rate=1e36, clip_grad_norm=None, epochs=20, backup_after_unit="ALWAYS")
    preset = replace(preset, optimizer=replace(preset.optimizer, name="SGD", weight_decay=0.0))
    with pytest.raises(CriticalError, match=f"for the {MAX_BAD_STEPS}th time in a row") as caught:
        run(preset)
    assert "learning rate" in caught.value.fix
    with RunDatabase(preset.run_database) as database:
        record = database.latest_run()
        assert record is not None
        assert record.status == "failed"
        assert len([e for e in database.events(record.id) if e.kind == "step_skipped"]) == MAX_BAD_STEPS


@pytest.mark.parametrize("dtype", ["BFLOAT_16", "FLOAT_32"])
def test_weights_in_bf16_are_trained(workplace, dtype):
    preset = workplace.preset(
        train_dtype=dtype,
        transformer={"weight_dtype": "BFLOAT_16", "gradient_checkpointing": True},
        text_encoder={"weight_dtype": "BFLOAT_16", "dropout_probability": 0.5},
        output_dtype="BFLOAT_16",
    )
    result = run(preset, max_steps=2)
    assert len(result.losses) == 2
    assert {tensor.dtype for tensor in load_file(result.lora).values()} == {torch.bfloat16}


def test_checkpointing_of_gradients_changes_no_number(make_workplace):
    losses = []
    for checkpointing in (False, True):
        place = make_workplace(f"checkpointing {checkpointing}")
        preset = place.preset(transformer={"gradient_checkpointing": checkpointing}, dropout_probability=0.2)
        losses.append(run(preset, max_steps=4).losses)
    assert losses[0] == losses[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("latent_caching", [True, False])
def test_a_gpu_trains_on_the_same_noise_and_timesteps(make_workplace, latent_caching):
    on_cpu = run(make_workplace("cpu").preset(), max_steps=3)
    preset = make_workplace("cuda").preset(train_device="cuda", latent_caching=latent_caching)
    on_gpu = run(preset, max_steps=2)
    rest = run(preset, max_steps=3)
    assert (rest.first_step, rest.steps) == (2, 3)
    if latent_caching:
        assert on_gpu.losses + rest.losses == pytest.approx(on_cpu.losses, rel=1e-2)


def test_a_sample_that_cannot_be_made_does_not_spoil_the_run(workplace):
    preset = workplace.preset(epochs=1, samples=[{"prompt": "x", "diffusion_steps": 1}])
    (preset.workspace_dir).mkdir()
    (preset.workspace_dir / "samples").write_text("in the way", encoding="utf-8")
    messages = []
    result = run(preset, on_event=lambda name, p: messages.append(p.get("kind")))
    assert result.finished
    assert result.previews == ()
    assert "sample_failed" in messages


def test_without_samples_a_training_prompt_is_sampled(workplace):
    result = run(workplace.preset(), max_steps=1)
    assert len(result.previews) == 1


def test_a_concept_without_files_is_refused_before_the_model_is_loaded(workplace, monkeypatch):
    empty = workplace.folder / "empty"
    (empty / "below").mkdir(parents=True)
    (empty / "notes.txt").touch()
    monkeypatch.setattr("wan_fixes.hosts.standalone.trainer.load_model", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UserError, match="nothing to train on") as caught:
        run(workplace.preset(concepts=[{"path": str(empty)}]))
    assert str(empty) in str(caught.value)
    assert "include_subdirectories" in caught.value.fix


def test_when_every_clip_is_broken_the_reasons_are_named(workplace):
    for path in workplace.clips.glob("*.mp4"):
        path.write_bytes(b"")
    with pytest.raises(UserError) as caught:
        run(workplace.preset())
    assert "the file is empty" in caught.value.reason
    with RunDatabase(workplace.preset().run_database) as database:
        assert database.latest_run().status == "failed"


def test_a_model_folder_that_lacks_a_part_is_named(workplace, tmp_path):
    import shutil

    broken = tmp_path / "broken model"
    shutil.copytree(workplace.model, broken)
    shutil.rmtree(broken / "vae")
    with pytest.raises(UserError, match="vae"):
        run(workplace.preset(base_model_name=str(broken)))


def test_a_device_that_is_not_there_is_refused(workplace):
    if torch.cuda.device_count() > 7:
        pytest.skip("there are as many devices")
    with pytest.raises(UserError, match="train_device"):
        run(workplace.preset(train_device="cuda:7"))


PLUGIN = """
from pathlib import Path
from wan_fixes.errors import UserError
from wan_fixes.hookspecs import hookimpl

class Plugin:
    @hookimpl
    def onetrainer_before_model_load(self, model_type, base_model, config):
        if config["lora_rank"] == 13:
            raise UserError("refused by a plugin", reason=model_type)

    @hookimpl
    def onetrainer_training_event(self, name, payload):
        with (Path(__file__).parent / "events.txt").open("a", encoding="utf-8") as file:
            file.write(name + "\\n")

plugin = Plugin()
"""


def test_plugins_hear_every_event_and_may_refuse_a_model(workplace):
    folder = workplace.folder / "a plugin"
    folder.mkdir()
    (folder / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    settings = Settings(plugin_folders=[str(folder)])
    train(workplace.preset(), settings=settings, max_steps=2)
    heard = (folder / "events.txt").read_text(encoding="utf-8").split()
    assert heard[0] == "run_started"
    assert heard.count("step_finished") == 2
    assert heard[-1] == "run_finished"

    with pytest.raises(UserError, match="refused by a plugin"):
        train(workplace.preset(lora_rank=13), settings=settings)
    assert (folder / "events.txt").read_text(encoding="utf-8").split()[-1] == "run_failed"
