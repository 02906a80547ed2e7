"""Presets and concepts: what is read, what is reported, and what every kind of bad input says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import UserError
from wan_fixes.hosts.standalone import Preset, read_preset
from wan_fixes.hosts.standalone.onetrainer_fields import (
    CONCEPT,
    CONCEPT_IMAGE,
    CONCEPT_TEXT,
    OPTIMIZER,
    TRAIN,
    TRANSFORMER,
)
from wan_fixes.preflight.near_paths import closest_path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "presets"


def minimal(**changes: Any) -> dict[str, Any]:
    """A preset that can be read, with `changes`; a value of ``...`` removes the field."""
    preset = {
        "model_type": "WAN_2_1_T2V_1_3B",
        "training_method": "LORA",
        "base_model_name": "model",
        "concepts": [{"path": "clips"}],
        "output_model_destination": "out/lora.safetensors",
        "text_encoder": {"train": False},
        **changes,
    }
    return {name: value for name, value in preset.items() if value is not ...}


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "clips").mkdir()

    def write(content: Any, name: str = "preset.json") -> Path:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def read(write: Any, **changes: Any) -> Preset:
    return read_preset(write(minimal(**changes)))


def notes(preset: Preset) -> dict[str, str]:
    return {note.field: f"{note.status}: {note.reason}" for note in preset.report}


def test_absent_fields_have_onetrainers_defaults(write):
    preset = read(write)
    assert (preset.batch_size, preset.epochs, preset.learning_rate) == (1, 100, 3e-6)
    assert (preset.frames, preset.resolution, preset.lora_rank, preset.lora_alpha) == (25, "512", 16, 1.0)
    assert (preset.backup_after, preset.backup_after_unit) == (30, "MINUTE")
    assert preset.clip_grad_norm == 1.0
    assert preset.optimizer.name == "ADAMW"
    assert preset.optimizer.weight_decay == 0.01
    assert preset.report == ()


def test_numbers_may_be_texts_as_onetrainers_window_saves_them(write):
    preset = read(write, frames="17", resolution=256, learning_rate="1e-4", batch_size="2")
    assert (preset.frames, preset.resolution, preset.learning_rate, preset.batch_size) == (17, "256", 1e-4, 2)


def test_transformers_learning_rate_wins(write):
    assert read(write, learning_rate=1e-3, transformer={"learning_rate": 2e-4}).learning_rate == 2e-4


def test_inputs_lie_beside_the_preset_or_in_the_working_folder_and_outputs_in_the_working_folder(
    write, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "more clips").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    preset = read(write, concepts=[{"path": "clips"}, {"path": "more clips"}], workspace_dir="w", cache_dir="c")
    assert preset.base_model_name == tmp_path / "model"
    assert [concept.path for concept in preset.concepts] == [str(tmp_path / "clips"), str(elsewhere / "more clips")]
    assert preset.workspace_dir == elsewhere / "w"
    assert preset.output_model_destination == elsewhere / "out" / "lora.safetensors"


def test_concepts_of_a_file_are_looked_up_beside_it(write, tmp_path):
    folder = tmp_path / "concepts"
    (folder / "own clips").mkdir(parents=True)
    (folder / "concepts.json").write_text(json.dumps([{"path": "own clips"}]), encoding="utf-8")
    preset = read(write, concepts=..., concept_file_name="concepts/concepts.json")
    assert preset.concepts[0].path == str(folder / "own clips")
    assert preset.concepts[0].name == "own clips"


def test_what_is_known_but_not_done_is_reported(write):
    preset = read(
        write,
        validation=True,
        clear_cache_before_training=True,
        continue_last_backup=True,
        output_model_format="ORIGINAL_LORA",
        tensorboard=False,
        transformer={"offload_fraction": 0.5},
        concepts=[{"path": "clips", "image": {"enable_random_hue": True}, "text": {"tag_dropout_enable": True}}],
    )
    assert set(notes(preset)) == {
        "validation",
        "clear_cache_before_training",
        "continue_last_backup",
        "output_model_format",
        "transformer.offload_fraction",
        "concepts[0].image.enable_random_hue",
        "concepts[0].text.tag_dropout_enable",
    }


@pytest.mark.parametrize(
    ("asked", "written", "reported"),
    [
        ("DIFFUSERS_LORA", "DIFFUSERS_LORA", False),
        ("COMFY_LORA", "COMFY_LORA", False),
        ("KOHYA_LORA", "KOHYA_LORA", False),
        ("SAFETENSORS", "DIFFUSERS_LORA", False),
        ("LEGACY_LORA", "DIFFUSERS_LORA", False),
        ("ORIGINAL_LORA", "DIFFUSERS_LORA", True),
        ("SOMETHING", "DIFFUSERS_LORA", True),
        (7, "DIFFUSERS_LORA", True),
    ],
)
def test_the_lora_is_written_as_the_preset_asks_or_the_report_says_how(write, asked, written, reported):
    preset = read(write, output_model_format=asked)
    assert preset.output_model_format == written
    assert ("output_model_format" in notes(preset)) == reported


def test_unknown_fields_are_reported_with_the_nearest_known_name(write):
    preset = read(write, lora_rnak=8, video_config={"target_fps": 24}, transformer={"weight_dtyp": "BFLOAT_16"})
    assert notes(preset)["lora_rnak"] == "unknown: did you mean lora_rank?"
    assert notes(preset)["transformer.weight_dtyp"] == "unknown: did you mean weight_dtype?"
    assert "video_config" in notes(preset)
    assert preset.lora_rank == 16


def test_a_disabled_or_validation_concept_is_not_trained_and_its_folder_may_be_gone(write):
    preset = read(
        write,
        concepts=[
            {"path": "clips"},
            {"path": "gone", "enabled": False},
            {"path": "gone too", "type": "VALIDATION"},
        ],
    )
    assert len(preset.concepts) == 1
    assert "concepts[2].type" in notes(preset)


def test_concept_settings_reach_the_modules(write, tmp_path):
    (tmp_path / "prompts.txt").write_text("a prompt\n", encoding="utf-8")
    preset = read(
        write,
        concepts=[
            {
                "path": "clips",
                "seed": 7,
                "include_subdirectories": True,
                "image_variations": 3,
                "balancing": 2.5,
                "balancing_strategy": "SAMPLES",
                "loss_weight": 0.5,
                "image": {"enable_fixed_flip": True, "enable_resolution_override": True, "resolution_override": "64"},
                "text": {"prompt_source": "concept", "prompt_path": "prompts.txt", "enable_tag_shuffling": True},
            }
        ],
    )
    concept = preset.concepts[0].to_dict()
    assert concept["image"]["enable_fixed_flip"] is True
    assert concept["image"]["resolution_override"] == "64"
    assert concept["text"]["prompt_path"] == str(tmp_path / "prompts.txt")
    assert (concept["seed"], concept["balancing"], concept["loss_weight"]) == (7, 2.5, 0.5)


def test_old_spellings_are_understood(write):
    preset = read(
        write,
        __version=6,
        lora_layers="attn1,attn2",
        save_after=3,
        save_after_unit="EPOCH",
        gradient_checkpointing="CPU_OFFLOADED",
        layer_offload_fraction=0.5,
        weight_dtype="BFLOAT_16",
        vae={"weight_dtype": "FLOAT_32"},
        concepts=[{"path": "clips", "repeats": 2.0}],
    )
    assert preset.layer_filter == ("attn1", "attn2")
    assert (preset.save_every, preset.save_every_unit) == (3, "EPOCH")
    assert preset.gradient_checkpointing is True
    assert (preset.transformer_weight_dtype, preset.vae_weight_dtype) == ("BFLOAT_16", "FLOAT_32")
    assert preset.concepts[0].balancing == 2.0
    assert "transformer.offload_fraction" in notes(preset)


def test_a_newer_version_is_read_and_reported(write):
    assert "__version" in notes(read(write, __version=99))


def test_a_size_that_wan_does_not_take_is_rounded_and_reported(write):
    preset = read(write, resolution="850x480")
    assert "848x480" in notes(preset)["resolution"]


def test_samples_are_read_from_their_file_and_fitted_to_wan(write, tmp_path):
    (tmp_path / "samples.json").write_text(
        json.dumps([{"prompt": "a kite", "width": 833, "frames": 16}, {"enabled": False}]), encoding="utf-8"
    )
    preset = read(write, sample_definition_file_name="samples.json")
    (sample,) = preset.samples
    assert (sample.prompt, sample.width, sample.height, sample.frames) == ("a kite", 832, None, 13)
    assert len(preset.report) == 2


def test_a_preset_as_plain_values_survives_json(write):
    preset = read(write, lora_rnak=8)
    assert json.loads(json.dumps(preset.to_dict()))["report"][0]["field"] == "lora_rnak"


def test_a_byte_order_mark_does_no_harm(write):
    assert read_preset(write(b"\xef\xbb\xbf" + json.dumps(minimal()).encode())).epochs == 100


BAD_FILES = {
    "missing comma": (b'{\n  "a": 1\n  "b": 2\n}', "line 3, column 3"),
    "cut short": (json.dumps(minimal()).encode()[:-5], "line 1"),
    "empty": (b"", "line 1, column 1"),
    "not UTF-8": (b'{"model_type": "\xff\xfe"}', "not UTF-8"),
    "a list": (b"[]", "not an object"),
    "a number": (b"1", "not an object"),
    "nested without end": (b"[" * 200_000, "nested too deeply"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_no_preset_is_named_with_the_place_and_a_fix(write, case):
    content, place = BAD_FILES[case]
    path = write(content)
    with pytest.raises(UserError) as caught:
        read_preset(path)
    assert caught.value.path == str(path)
    assert place in caught.value.reason
    assert caught.value.fix


def test_a_preset_that_is_not_there_names_the_nearest(write, tmp_path):
    write(minimal(), "my preset.json")
    with pytest.raises(UserError, match=re.escape(f"did you mean {tmp_path / 'my preset.json'}?")):
        read_preset(tmp_path / "my_preset.json")


def test_a_folder_is_no_preset(tmp_path):
    with pytest.raises(UserError, match="folder"):
        read_preset(tmp_path)


SD, WAN22 = "STABLE_DIFFUSION_XL_10_BASE", "WAN_2_2"
# what is wrong -> changes to a good preset, and what the message must hold: the field, and how to mend it
BAD_FIELDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "another model type": ({"model_type": SD}, ('"model_type"', SD, "WAN_2_1_T2V_1_3B")),
    "a model type of a fork": ({"model_type": WAN22}, ('"model_type"', WAN22, "WAN_2_1_T2V_14B")),
    "a WAN that is not trained here": ({"model_type": "WAN_2_1_I2V_14B"}, ("not trained by the standalone host",)),
    "no model type": ({"model_type": ...}, ('"model_type"', "missing", "WAN_2_1_T2V_1_3B")),
    "a model type that is no text": ({"model_type": ["WAN"]}, ('"model_type"',)),
    "a full fine-tune": ({"training_method": "FINE_TUNE"}, ('"training_method"', '"LORA"')),
    "no training method": ({"training_method": ...}, ('"training_method"', '"LORA"')),
    "a model folder that is not there": ({"base_model_name": "modle"}, ("modle", "did you mean")),
    "a model that nobody knows": ({"base_model_name": "sdxl"}, ("names no model", "name the model (t2v-1.3B)")),
    "a model that is a file": ({"base_model_name": "preset.json"}, ("is a file", "preset.json")),
    "no model": ({"base_model_name": ...}, ('"base_model_name"', "missing")),
    "frames that do not fit": ({"frames": 16}, ('"frames"', "16", "4n + 1", "13 or 17")),
    "no frames": ({"frames": 0}, ('"frames"', "at least 1")),
    "frames in words": ({"frames": "many"}, ('"frames"', '"many"', "number")),
    "half a frame": ({"frames": 16.5}, ('"frames"', "whole number")),
    "a batch of nothing": ({"batch_size": 0}, ('"batch_size"', "at least 1")),
    "an infinite rate": ({"learning_rate": "inf"}, ('"learning_rate"', "finite")),
    "a rate of nothing": ({"learning_rate": 0}, ('"learning_rate"', "above 0")),
    "a resolution in words": ({"resolution": "big"}, ('"resolution"', "big", "832x480")),
    "a resolution of nothing": ({"resolution": "0x480"}, ('"resolution"',)),
    "a resolution below one patch": ({"resolution": "4"}, ('"resolution"', "16")),
    "a fixed size without buckets": ({"resolution": "64x32", "aspect_ratio_bucketing": False}, ("square",)),
    "a switch that is a number": ({"latent_caching": 1}, ('"latent_caching"', "true or false")),
    "a scheduler": ({"learning_rate_scheduler": "REX"}, ('"learning_rate_scheduler"', "COSINE")),
    "a distribution": ({"timestep_distribution": "COS_MAP"}, ('"timestep_distribution"', "LOGIT_NORMAL")),
    "bounds the wrong way round": ({"min_noising_strength": 0.9, "max_noising_strength": 0.5}, ("0.5",)),
    "a shift of nothing": ({"timestep_shift": 0}, ('"timestep_shift"', "above 0")),
    "an optimizer": ({"optimizer": {"optimizer": "PRODIGY"}}, ('"optimizer.optimizer"', "PRODIGY", "ADAMW")),
    "quantised weights": ({"transformer": {"weight_dtype": "FLOAT_8"}}, ('"transformer.weight_dtype"', "BFLOAT_16")),
    "half precision": ({"train_dtype": "FLOAT_16"}, ('"train_dtype"', "BFLOAT_16")),
    "a text encoder to train": ({"text_encoder": {"train": True}}, ('"text_encoder.train"', "false")),
    "a transformer not to train": ({"transformer": {"train": False}}, ('"transformer.train"', "true")),
    "masks": ({"masked_training": True}, ('"masked_training"', "false")),
    "conditioning images": ({"custom_conditioning_image": True}, ('"custom_conditioning_image"',)),
    "prior preservation": ({"masked_prior_preservation_weight": 0.5}, ('"masked_prior_preservation_weight"',)),
    "averaged weights": ({"ema": "GPU"}, ('"ema"', "OFF")),
    "embeddings": ({"additional_embeddings": [{"placeholder": "<x>"}]}, ('"additional_embeddings"',)),
    "another adapter": ({"peft_type": "LOHA"}, ('"peft_type"', "LORA")),
    "several devices": ({"multi_gpu": True}, ('"multi_gpu"',)),
    "the cloud": ({"cloud": {"enabled": True}}, ('"cloud.enabled"',)),
    "another loss": ({"mae_strength": 0.5}, ('"mae_strength"',)),
    "a section that is a text": ({"transformer": "yes"}, ('"transformer"', "not an object")),
    "a filter that is no expression": ({"layer_filter": "attn(", "layer_filter_regex": True}, ('"layer_filter"',)),
    "a device": ({"train_device": "tpu"}, ('"train_device"', "cuda")),
    "an output that is no LoRA file": ({"output_model_destination": "lora.ckpt"}, (".safetensors",)),
    "a workspace that is a file": ({"workspace_dir": "{here}/preset.json"}, ('"workspace_dir"', "is a file")),
    "a version of long ago": ({"__version": 1}, ("too old", "save it again")),
    "concepts that are no list": ({"concepts": {"path": "clips"}}, ("not a list",)),
    "no concept": ({"concepts": []}, ("nothing to train on", "add a concept")),
    "no enabled concept": ({"concepts": [{"path": "clips", "enabled": False}]}, ("nothing to train on", "enable")),
    "a concept that is a text": ({"concepts": ["clips"]}, ("concepts[0]", "not an object")),
    "a concept without a path": ({"concepts": [{"name": "x"}]}, ("concepts[0].path", "folder")),
    "a concept that is not there": ({"concepts": [{"path": "clisp"}]}, ("clisp", "concepts[0].path", "did you mean")),
    "a concept that is a file": ({"concepts": [{"path": "preset.json"}]}, ("names a file", "name the folder")),
    "prior concepts": ({"concepts": [{"path": "clips", "type": "PRIOR_PREDICTION"}]}, ("concepts[0].type",)),
    "a concept file that is not there": (
        {"concepts": ..., "concept_file_name": "prest.json"},
        ("concept_file_name", "did you mean"),
    ),
    "a prompt source": (
        {"concepts": [{"path": "clips", "text": {"prompt_source": "llm"}}]},
        ("concepts[0].text.prompt_source", "filename"),
    ),
    "a prompt file that is not there": (
        {"concepts": [{"path": "clips", "text": {"prompt_source": "concept", "prompt_path": "p.txt"}}]},
        ("p.txt", "concepts[0].text.prompt_path"),
    ),
    "negative weight": (
        {"concepts": [{"path": "clips", "loss_weight": -1}]},
        ("concepts[0].loss_weight", "at least 0"),
    ),
    "a strategy": (
        {"concepts": [{"path": "clips", "balancing_strategy": "ALL"}]},
        ("concepts[0].balancing_strategy", "REPEATS"),
    ),
    "samples that are no list": ({"samples": {}}, ("sample definitions", "not a list")),
    "a sample without steps": ({"samples": [{"diffusion_steps": 0}]}, ("samples[0].diffusion_steps",)),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_what_cannot_be_trained_is_refused_naming_file_field_and_fix(write, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    changes, parts = BAD_FIELDS[case]
    changes = {
        name: value.replace("{here}", str(tmp_path)) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    path = write(minimal(**changes))
    with pytest.raises(UserError) as caught:
        read_preset(path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert caught.value.reason
    assert caught.value.fix
    for part in parts:
        assert part in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**6) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
NESTED = {"transformer": TRANSFORMER, "optimizer": OPTIMIZER}


@settings(max_examples=300, deadline=None)
@given(field=st.sampled_from(sorted(TRAIN) + [f"{s}.{n}" for s, fields in NESTED.items() for n in fields]), value=JSON)
def test_any_value_in_any_field_is_read_or_refused_in_words(tmp_path_factory, field, value):
    folder = tmp_path_factory.mktemp("any")
    (folder / "model").mkdir()
    (folder / "clips").mkdir()
    section, _, name = field.rpartition(".")
    changes = {section: {name: value}} if section else {field: value}
    path = folder / "preset.json"
    path.write_text(json.dumps(minimal(**changes)), encoding="utf-8")
    try:
        assert read_preset(path).path == path
    except UserError as error:
        assert error.path
        assert error.reason
        assert error.fix


@settings(max_examples=200, deadline=None)
@given(
    field=st.sampled_from(
        [*CONCEPT, *(f"image.{name}" for name in CONCEPT_IMAGE), *(f"text.{name}" for name in CONCEPT_TEXT)]
    ),
    value=JSON,
)
def test_any_value_in_any_field_of_a_concept_is_read_or_refused_in_words(tmp_path_factory, field, value):
    folder = tmp_path_factory.mktemp("any")
    (folder / "model").mkdir()
    (folder / "clips").mkdir()
    section, _, name = field.rpartition(".")
    concept = {"path": "clips", **({section: {name: value}} if section else {field: value})}
    path = folder / "preset.json"
    path.write_text(json.dumps(minimal(concepts=[concept])), encoding="utf-8")
    try:
        assert len(read_preset(path).concepts) == 1
    except UserError as error:
        assert error.path
        assert error.reason
        assert error.fix


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.json")))
def test_the_shipped_examples_are_read_without_a_note(example, tmp_path, monkeypatch):
    data = json.loads((EXAMPLES / example).read_text(encoding="utf-8"))
    (tmp_path / data["base_model_name"]).mkdir(parents=True)
    clips = tmp_path / "clips"
    clips.mkdir()
    concept_file = tmp_path / data.get("concept_file_name", "unused.json")
    concept_file.parent.mkdir(exist_ok=True)
    concept_file.write_text(json.dumps([{"path": str(clips)}]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert read_preset(EXAMPLES / example).report == ()


def test_the_nearest_path_mends_every_part(tmp_path):
    (tmp_path / "My Clips" / "train").mkdir(parents=True)
    assert closest_path(tmp_path / "my_clips" / "trian") == tmp_path / "My Clips" / "train"
    assert closest_path(tmp_path / "quite another name") is None


def test_reading_a_preset_never_imports_torch():
    code = "import sys, wan_fixes.hosts.standalone as host; host.read_preset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


ONETRAINER = os.environ.get("WAN_FIXES_ONETRAINER")

_DUMP = """
import json, sys
sys.path.insert(0, sys.argv[1])
from modules.util.config.TrainConfig import TrainConfig
from modules.util.config.ConceptConfig import ConceptConfig
from modules.util.config.SampleConfig import SampleConfig
train = TrainConfig.default_values()
names = lambda config: {name: str(value) for name, value in config.default_values.items()}
json.dump({
    "TRAIN": names(train), "TRANSFORMER": names(train.transformer), "TEXT_ENCODER": names(train.text_encoder),
    "VAE": names(train.vae), "OPTIMIZER": names(train.optimizer), "CONCEPT": names(ConceptConfig.default_values()),
    "CONCEPT_IMAGE": names(ConceptConfig.default_values().image),
    "CONCEPT_TEXT": names(ConceptConfig.default_values().text), "SAMPLE": names(SampleConfig.default_values()),
}, sys.stdout)
"""

# ours differ on purpose: chosen by device or model, drawn at random, or an object
_DIFFER = {"train_device", "seed", "stop_training_after", "stop_training_after_unit"}


@pytest.mark.host
@pytest.mark.skipif(not ONETRAINER, reason="needs a OneTrainer checkout: WAN_FIXES_ONETRAINER")
def test_the_table_of_fields_agrees_with_a_real_onetrainer():
    from wan_fixes.hosts.standalone import onetrainer_fields

    python = os.environ.get("WAN_FIXES_ONETRAINER_PYTHON", sys.executable)
    dump = subprocess.run([python, "-c", _DUMP, ONETRAINER], check=True, capture_output=True, cwd=ONETRAINER)
    theirs = json.loads(dump.stdout)
    for table, defaults in theirs.items():
        ours = getattr(onetrainer_fields, table)
        assert set(ours) == set(defaults), table
        for name, default in defaults.items():
            if name not in _DIFFER and ours[name].default != {}:
                assert str(ours[name].default) == default or float(ours[name].default) == float(default), (table, name)
