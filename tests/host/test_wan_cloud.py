"""Trainings in the cloud: refused for WAN where the machine would not have the plugin, and warned of for the others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

PLAIN = "git clone https://github.com/Nerogar/OneTrainer"
WITH_PLUGIN = f"{PLAIN} && (cd OneTrainer && ./install.sh) && pip install plugin.whl && wan enable OneTrainer"


@pytest.fixture(scope="module")
def runs(wan_host: Path) -> Any:
    import wan_runs

    from wan_fixes.hosts.onetrainer.import_hooks import arm, outcomes
    from wan_fixes.hosts.onetrainer.patches import cloud

    arm(cloud.PATCHES, wan_host)
    import modules.trainer.CloudTrainer  # noqa: F401 - imported for its patches

    (outcome,) = [outcome for outcome in outcomes() if outcome.patch == "cloud training"]
    assert outcome.status == "applied", outcome.message
    return wan_runs


def make_trainer(runs: Any, work: Path, model_type: str, *, reattach: bool = False, **cloud: Any) -> Any:
    """As OneTrainer makes it; it connects to nothing before it is started."""
    from modules.util import create
    from modules.util.callbacks.TrainCallbacks import TrainCallbacks
    from modules.util.commands.TrainCommands import TrainCommands

    config = runs.configuration(Path("Wan-AI/any"), work, work, model_type=model_type)
    config.cloud.from_dict({"enabled": True, "type": "LINUX", "install_cmd": PLAIN} | cloud)
    return create.create_trainer(config, TrainCallbacks(), TrainCommands(), reattach=reattach)


def start(trainer: Any) -> Exception:
    """What starting ends with: with neither address nor port the real one gets no further than to look for them."""
    with pytest.raises(Exception) as caught:
        trainer.start()
    return caught.value


def test_wan_is_refused_before_the_cloud_is_reached_where_the_install_command_lacks_the_plugin(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules.cloud.LinuxCloud import LinuxCloud

    from wan_fixes.errors import UserError

    touched: list[str] = []
    for action in ("delete", "stop", "delete_workspace"):
        monkeypatch.setattr(LinuxCloud, action, lambda _, action=action: touched.append(action), raising=False)
    trainer = make_trainer(
        runs, tmp_path, "WAN_2_2_T2V_A14B", on_error="DELETE", on_finish="DELETE", delete_workspace=True
    )
    settings = trainer.config.cloud
    refusal = start(trainer)
    trainer.end()

    assert isinstance(refusal, UserError)
    assert all(words in str(refusal) for words in ("WAN_2_2_T2V_A14B", "install_cmd", "wan enable"))
    assert touched == []
    assert str(settings.on_error) == "DELETE"  # the user's own settings are as they were


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"install_cmd": WITH_PLUGIN}, False),
        ({"reattach": True}, False),
        ({"install_onetrainer": False}, True),
    ],
)
def test_wan_goes_to_a_cloud_that_has_the_plugin_or_may_have_it(
    runs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any], warned: bool
) -> None:
    with caplog.at_level(logging.WARNING, logger="wan_fixes"):
        ended = start(make_trainer(runs, tmp_path, "WAN_2_1_T2V_1_3B", **options))

    assert "Host and port required" in str(ended)
    assert any("wan enable" in record.message for record in caplog.records) == warned


def test_other_models_go_there_with_a_warning_that_nothing_is_validated(
    runs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="wan_fixes"):
        ended = start(make_trainer(runs, tmp_path, "STABLE_DIFFUSION_15"))

    assert "Host and port required" in str(ended)
    (record,) = caplog.records
    assert "no validation of training data" in record.message
    assert "wan enable" in record.message
