"""A preset may name a model instead of a folder: it is there, complete and genuine, when it is loaded (M19)."""

from __future__ import annotations

import pytest
from models.named_model import served
from models.world import REPOSITORY

from wan_fixes.health import RunDatabase
from wan_fixes.hosts.standalone.trainer import train
from wan_fixes.models import ErrorCode, ModelError
from wan_fixes.models.locate import locate_model, named_model
from wan_fixes.settings import Settings


def test_m19_a_model_that_is_named_is_fetched_once(workplace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(workplace.model, "WAN_2_1_T2V_1_3B", tmp_path, monkeypatch) as hub:
        preset = workplace.preset(base_model_name="tiny", epochs=1)
        assert train(preset, settings=Settings()).finished
        files = hub.repositories[REPOSITORY].files
        assert hub.bytes_served == sum(map(len, files.values()))
        with RunDatabase(preset.run_database) as database:
            run = database.runs()[0]
            said = [event.message for event in database.events(run.id) if event.kind == "model_files"]
            loaded = [event for event in database.events(run.id) if event.kind == "model_loaded"]
        assert said and said[-1].startswith("fetching tiny@1.0.0#original: ")
        assert [event.facts["seconds"] > 0 for event in loaded] == [True]
        hub.requests.clear()
        assert train(preset, settings=Settings()).finished
        assert hub.requests == []


def test_m19_a_name_of_another_model_type_is_refused(workplace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(workplace.model, "WAN_2_2_TI2V_5B", tmp_path, monkeypatch) as hub:
        with pytest.raises(ModelError, match="set it to WAN_2_2_TI2V_5B") as caught:
            train(workplace.preset(base_model_name="tiny"), settings=Settings())
        assert caught.value.code is ErrorCode.INVALID_CONFIG
        assert hub.requests == []


def test_m19_a_repository_of_the_manifest_is_that_model(workplace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(workplace.model, "WAN_2_1_T2V_1_3B", tmp_path, monkeypatch):
        preset = workplace.preset(base_model_name=REPOSITORY.lower())
        assert preset.base_model_name == tmp_path / "models" / "wan21" / "tiny@1.0.0-original"
        assert locate_model(preset.model_type, preset.model_name, lambda _: None) == str(preset.base_model_name)
        assert (preset.base_model_name / ".verified.json").is_file()


def test_m19_a_repository_that_no_manifest_has_is_fetched_as_a_model_of_that_type(
    workplace, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(workplace.model, "WAN_2_1_T2V_1_3B", tmp_path, monkeypatch) as hub:
        hub.add("Somebody/Fine-Tuned", hub.repositories[REPOSITORY].files)
        preset = workplace.preset(base_model_name="Somebody/Fine-Tuned", epochs=1)
        assert train(preset, settings=Settings()).finished
        assert preset.base_model_name == tmp_path / "models" / "wan21" / "Somebody--Fine-Tuned@0-original"
        hub.requests.clear()
        assert train(preset, settings=Settings()).finished
        assert hub.requests == []


def test_m16_the_path_of_a_folder_that_is_gone_names_the_model_that_is_called_so(
    workplace, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(workplace.model, "WAN_2_1_T2V_1_3B", tmp_path, monkeypatch):
        for old in (tmp_path / "gone" / "Tiny-Diffusers", "D:\\models\\Tiny-Diffusers"):
            named = named_model(str(old), "WAN_2_1_T2V_1_3B")
            assert named is not None and named.name == "tiny@1.0.0#original"
        assert named_model(str(tmp_path / "gone" / "another"), "WAN_2_1_T2V_1_3B") is None


def test_m19_a_folder_of_that_name_is_that(workplace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(workplace.model, "WAN_2_1_T2V_1_3B", tmp_path, monkeypatch):
        (workplace.folder / "tiny").symlink_to(workplace.model, target_is_directory=True)
        preset = workplace.preset(base_model_name="tiny")
        assert (preset.base_model_name, preset.model_name) == (workplace.folder / "tiny", "")
