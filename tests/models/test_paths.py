"""Where the parts of a model lie, checked first (M19); and which model a path of an older setup stands for (M16)."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.models.adopt import Migration
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.layout import windows_path_of_wsl
from wan_fixes.models.manifest import load_manifest
from wan_fixes.models.paths import get_wan_paths, legacy_path
from wan_fixes.models.sources.order import is_on_disk_of

from .hub_server import Hub
from .test_ensure import LARGE
from .test_nearby import write_model
from .world import PARTS, REPOSITORY, ensurer

MANIFEST = load_manifest()
NAME = "t2v-1.3B@2.1.0#original"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def models(hub: Hub, tmp_path: Path) -> ModelEnsurer:
    return ensurer(tmp_path, hub)


def test_m19_each_component_of_a_complete_model_has_its_folder(hub: Hub, models: ModelEnsurer) -> None:
    paths = get_wan_paths("tiny", ensure=True, ensurer=models)
    assert paths.root == models.target("tiny").folder and str(paths.name) == "tiny@1.0.0#original"
    assert paths.components == {name: paths.root / name for name in PARTS}
    assert (paths.root / LARGE).is_file()
    hub.requests.clear()
    assert get_wan_paths("tiny@1.0.0", "original", ensurer=models) == paths
    assert get_wan_paths(REPOSITORY, ensurer=models) == paths
    assert hub.requests == []


def test_m19_what_is_not_complete_is_refused_and_nothing_is_fetched(hub: Hub, models: ModelEnsurer) -> None:
    with pytest.raises(ModelError, match=r"wan models ensure tiny@1\.0\.0") as caught:
        get_wan_paths("tiny", ensurer=models)
    assert caught.value.code is ErrorCode.MISSING_FILES and hub.requests == []
    models.ensure("tiny")
    hub.requests.clear()
    (models.target("tiny").folder / LARGE).unlink()
    with pytest.raises(ModelError, match=LARGE):
        get_wan_paths("tiny", ensurer=models)
    assert hub.requests == []
    assert get_wan_paths("tiny", ensure=True, ensurer=models).components.keys() == PARTS.keys()


def test_m19_a_folder_that_is_no_whole_model_is_not_taken_over(
    hub: Hub, tmp_path: Path, models: ModelEnsurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN_MODELS_OFFLINE", "1")
    index = {"_class_name": "WanPipeline", **PARTS, "vae": [None, None]}
    mine = write_model(tmp_path / "mine", **{"model_index.json": json.dumps(index).encode()})
    migration = Migration(models)
    with pytest.raises(ModelError, match="the index does not name it") as caught:
        migration.adopt(migration.find(mine, "tiny")[0])
    assert caught.value.code is ErrorCode.MISSING_FILES and caught.value.context["components"] == ["vae"]


def test_m19_as_the_environment_says(cli_root: Path, hub: Hub) -> None:
    assert get_wan_paths("tiny", ensure=True).root == cli_root / "wan21" / "tiny@1.0.0-original"
    with pytest.raises(ModelError, match="the manifest has tiny"):
        get_wan_paths("t2v-A15B")


@pytest.mark.parametrize(
    "path",
    [
        "/data/models/Wan2.1-T2V-1.3B-Diffusers",
        "/data/models/Wan2.1-T2V-1.3B-Diffusers/",
        "/data/models/Wan2.1-T2V-1.3B-Diffusers/model_index.json",
        "/data/models/Wan-AI/wan2.1-t2v-1.3b-diffusers",
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "../models/./Wan2.1-T2V-1.3B-Diffusers",
        "/home/me/.cache/huggingface/hub/models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers",
        f"/home/me/.cache/huggingface/hub/models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers/snapshots/{COMMIT}",
        "models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers/snapshots",
        "/data/wan21/t2v-1.3B@2.1.0-original",
        "/data/versions/t2v-1.3B@2.1.0-original/0123456789ab",
        r"C:\models\Wan2.1-T2V-1.3B-Diffusers",
        r"c:\Users\me\.cache\huggingface\hub\models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers\snapshots" + f"\\{COMMIT}",
        "D:/wan21/T2V-1.3B@2.1.0-Original/",
        r"\\studio\models\Wan2.1-T2V-1.3B-Diffusers",
        r"\\studio\Wan2.1-T2V-1.3B-Diffusers",
        r"\\?\C:\models\Wan2.1-T2V-1.3B-Diffusers",
        r"\\?\UNC\studio\models\Wan2.1-T2V-1.3B-Diffusers",
        r"\\wsl.localhost\Ubuntu\home\me\models\Wan2.1-T2V-1.3B-Diffusers",
        r"\\wsl$\Ubuntu\data\wan21\t2v-1.3B@2.1.0-original",
        "/mnt/c/models/Wan2.1-T2V-1.3B-Diffusers",
    ],
)
def test_m16_a_path_of_an_older_setup_names_its_model(path: str) -> None:
    assert str(legacy_path(path, MANIFEST)) == NAME


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        ".",
        "C:\\",
        r"\\studio\models",
        "/data/models",
        "/data/models/Wan2.1-T2V-1.3B",  # Wan-AI's own layout
        "/data/models/Wan2.1-T2V-1.3B-Diffusers-lora",
        "/data/Wan2.1-T2V-1.3B-Diffusers/outputs/run1",
        "/data/Wan2.1-T2V-1.3B-Diffusers/..",
        "/cache/models--Somebody--Wan2.1-T2V-1.3B-Diffusers",
        "/cache/models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers/blobs/abc",
        "/data/wan21/t2v-1.3B@2.0.0-original",
        "Wan2.1-T2V-1.3B-Diffusers\0",
    ],
)
def test_m16_any_other_path_names_none(path: str) -> None:
    assert legacy_path(path, MANIFEST) is None


def test_m16_each_model_of_the_manifest_is_known_in_each_layout(tmp_path: Path) -> None:
    for spec in MANIFEST.models.values():
        for variant in spec.variants.values():
            name, repository = spec.name(variant.name), variant.hub.repository
            layouts = (
                PurePosixPath("/models", *repository.split("/")),
                PurePosixPath("/hub", f"models--{repository.replace('/', '--')}", "snapshots", COMMIT),
                PureWindowsPath("E:/", spec.family, name.folder_name),
            )
            assert [legacy_path(path, MANIFEST) for path in layouts] == [name] * 3


def test_m16_a_path_under_wsl_and_as_windows_sees_it_name_the_same_model() -> None:
    seen = windows_path_of_wsl("/mnt/d/models/Wan2.1-T2V-1.3B-Diffusers")
    assert seen == r"D:\models\Wan2.1-T2V-1.3B-Diffusers"
    assert str(legacy_path(seen, MANIFEST)) == NAME


@given(st.text())
def test_m16_no_text_is_too_much(text: str) -> None:
    legacy_path(text, MANIFEST)
    assert str(legacy_path(f"{text}/Wan2.1-T2V-1.3B-Diffusers", MANIFEST)) == NAME


def test_m8_where_nothing_is_there_no_file_can_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a drive of Windows that is away: not even its root exists."""
    assert is_on_disk_of(tmp_path, tmp_path / "not" / "yet")
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert not is_on_disk_of(tmp_path, tmp_path / "not" / "yet")
