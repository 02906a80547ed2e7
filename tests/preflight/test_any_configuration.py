"""Whatever a configuration holds, nothing is raised; what is shipped is good; a correction touches nothing else."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from effort import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflight.conftest import make_clips, make_model
from wan_fixes.models.hardware import Hardware
from wan_fixes.preflight import check_config, corrected, corrections_in, keeping_paths, refusal
from wan_fixes.preflight.configuration import DEFAULTS
from wan_fixes.preflight.rules import RULES
from wan_fixes.wan.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted(
    [*(ROOT / "examples" / "presets").glob("*.json"), *(ROOT / "wan_fixes/hosts/onetrainer/presets").rglob("*.json")]
)
GB = 10**9

# Each has been somebody's fault: no name for a file system, no number, or one that Python alone takes for a number.
_ODD_TEXTS = (
    *("\0", "\ud800", "~nobody-here/x", "a" * 300, "C:\\x", "²", "1e999", "NaN", " 33 ", "٣٣", "1" * 5000),
    *('"clips"', "../..", "/", "x", "0x0"),
)
_TEXTS = st.text(max_size=20) | st.sampled_from(_ODD_TEXTS)
_ODD_NUMBERS = st.sampled_from([10**400, -(10**400), float("inf"), float("nan"), 10**12])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _ODD_NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)
_OF_PARTS = {
    "transformer": ("train", "include", "learning_rate", "weight_dtype", "offload_fraction"),
    "transformer_2": ("train", "include", "learning_rate"),
    "text_encoder": ("train", "offload_fraction", "weight_dtype"),
    "optimizer": ("optimizer", "relative_step"),
    "concepts.0": ("name", "path", "enabled", "type", "include_subdirectories", "balancing", "balancing_strategy"),
    "concepts.0.image": ("enable_resolution_override", "resolution_override"),
    "concepts.0.text": ("prompt_source", "prompt_path"),
}
_FIELDS = sorted({field for field in DEFAULTS if "." not in field})
_FIELDS += ["base_model_name", "concepts", "dynamic_timestep_shifting", "layer_filter", "masked_training", "model_type"]
_FIELDS += ["layer_offload_fraction", "prevent_overwrites", "train_device", "train_dtype", "vae_tiling", "validation"]
_FIELDS += [*_OF_PARTS, *(f"{part}.{name}" for part, names in _OF_PARTS.items() for name in names)]
_CHANGES = st.lists(st.tuples(st.sampled_from(_FIELDS), st.booleans() | _JSON), max_size=8)


def _set(config: Any, field: str, value: Any) -> None:
    """Write a field where the way to it is still there."""
    *way, last = field.split(".")
    for name in way:
        inner = (
            config.get(name) if isinstance(config, dict) else config[0] if isinstance(config, list) and config else None
        )
        if inner is None and isinstance(config, dict):
            inner = config[name] = {}
        config = inner
    if isinstance(config, dict):
        config[last] = value
    elif isinstance(config, list) and config and last == "0":
        config[0] = value


@pytest.mark.parametrize("text", _ODD_TEXTS, ids=range(len(_ODD_TEXTS)))
def test_a_finding_is_short_whatever_text_stands_in_any_field(
    tmp_path: Path, config: dict[str, Any], text: str
) -> None:
    for field in _FIELDS:
        changed = copy.deepcopy(config)
        _set(changed, field, text)
        for finding in check_config(changed, base=tmp_path, beside=tmp_path / "clips"):
            assert len(str(finding)) < 2000, (field, finding)


@settings(max_examples=times(150, 2000), deadline=None, suppress_health_check=list(HealthCheck))
@given(model_type=st.sampled_from([*VARIANTS, "FLUX_DEV_1"]), changes=_CHANGES)
def test_no_configuration_makes_a_rule_raise_and_every_finding_says_all_of_it(
    tmp_path: Path, config: dict[str, Any], model_type: str, changes: list[tuple[str, Any]]
) -> None:
    config = {**copy.deepcopy(config), "model_type": model_type}
    for field, value in changes:
        _set(config, field, value)
    before = copy.deepcopy(config)
    small = Hardware("Card", GB, GB, GB, GB)
    found = check_config(config, base=tmp_path, beside=tmp_path / "clips", gpu=small)
    assert repr(config) == repr(before)
    for finding in found:
        assert finding.rule in RULES and all((finding.field, finding.what, finding.why, finding.fix))
        assert len(str(finding)) < 2000
    severities = [finding.severity for finding in found]
    assert severities == sorted(severities)  # errors first
    better = corrected(config, found)
    for correction in corrections_in(found):
        assert _at(better, correction.field) == correction.value
    assert (refusal(found) is None) == ("error" not in severities)
    check_config(keeping_paths(better, base=tmp_path, beside=tmp_path, new=tmp_path / "clips"), base=tmp_path)


def _at(config: Any, field: str) -> Any:
    for name in field.split("."):
        config = config[int(name)] if isinstance(config, list) else config[name]
    return config


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_what_is_shipped_has_no_finding_once_it_has_clips_and_a_model(path: Path, tmp_path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    make_clips(tmp_path / "clips")
    config["concepts"] = config.get("concepts") or [{"path": "clips"}]
    if not config["base_model_name"].startswith("Wan-AI/"):
        make_model(tmp_path / config["base_model_name"], config["model_type"])
    card = float(path.stem.rpartition("GB")[0].rpartition(" ")[2] or 24)
    machine = Hardware("Card", round(card * 2**30), round(card * 2**30), 200 * GB, 200 * GB)
    assert [str(found) for found in check_config(config, base=tmp_path, gpu=machine)] == []


def test_a_correction_leaves_the_original_alone_and_makes_what_is_missing(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    config |= {"frames": 32, "concepts": [{"path": " clips "}], "transformer": None, "text_encoder": {"train": True}}
    before = copy.deepcopy(config)
    better = corrected(config, check_config(config, base=tmp_path))
    assert config == before
    assert (better["frames"], better["concepts"][0]["path"], better["text_encoder"]["train"]) == (29, "clips", False)
    assert check_config(better, base=tmp_path) == []
    assert better["concepts"] is not config["concepts"]


def test_all_errors_are_named_in_one_refusal_and_warnings_in_none(tmp_path: Path, config: dict[str, Any]) -> None:
    found = check_config({**config, "frames": 32, "epochs": 0, "latent_caching": False}, base=tmp_path)
    error = refusal(found, tmp_path / "preset.json")
    assert error is not None and error.path == str(tmp_path / "preset.json")
    assert "frames is 32" in error.reason and "epochs is 0" in error.reason and "caching" not in str(error)
    assert "set it to 29 or 33" in error.fix and error.context["fields"] == ["frames", "epochs"]


def test_paths_lead_where_they_led_from_another_folder_too(tmp_path: Path) -> None:
    old, new, working = (tmp_path / name for name in ("old", "new", "working"))
    for place, name in ((old, "clips"), (new, "shadow"), (working, "shadow"), (working, "both")):
        make_clips(place / name, count=1)
    concepts = [{"path": path} for path in ("clips", "shadow", "both", "gone", str(old))]
    config = {"base_model_name": "t2v-1.3B", "concepts": concepts, "workspace_dir": "workspace"}
    moved = keeping_paths(config, base=working, beside=old, new=new)
    paths = [concept["path"] for concept in moved["concepts"]]
    # From the new folder "shadow" would be another one.
    assert paths == [str(old / "clips"), str(working / "shadow"), "both", "gone", str(old)]
    assert (moved["base_model_name"], moved["workspace_dir"]) == ("t2v-1.3B", "workspace")
    assert keeping_paths(config, base=working, beside=old, new=old) == config


def test_concepts_of_a_file_are_taken_along_where_their_paths_would_lead_elsewhere(tmp_path: Path) -> None:
    old, new, working = (tmp_path / name for name in ("old", "new", "working"))
    for folder in (old, new, working):
        folder.mkdir()
    lists = make_clips(old / "lists", count=1)
    make_clips(old / "clips", count=1)
    file = lists / "concepts.json"
    file.write_text(json.dumps([{"name": "all", "path": "clips"}, {"path": "gone"}]), encoding="utf-8")
    config = {"concept_file_name": "lists/concepts.json"}
    moved = keeping_paths(config, base=working, beside=old, new=new)
    assert moved["concepts"] == [{"name": "all", "path": str(old / "clips")}, {"path": "gone"}]
    assert keeping_paths(config, base=working, beside=old, new=old) == config
    make_clips(lists / "clips", count=1)  # beside the file, where it is found from everywhere
    assert keeping_paths(config, base=working, beside=old, new=new) == {"concept_file_name": str(file)}


def test_the_page_for_users_lists_every_rule_and_no_other() -> None:
    text = (ROOT / "docs" / "configuration-checks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|", text, flags=re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(RULES)
