"""Muon trains the matrices of WAN's blocks, and Adam everything else, as adapters and as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ADAM_LEARNING_RATE = 1e-3


def muon(name: str, **settings: Any) -> dict[str, Any]:
    """An optimizer as a configuration file of OneTrainer's has it: its defaults, where nothing else is said."""
    from modules.util.enum.Optimizer import Optimizer
    from modules.util.optimizer_util import OPTIMIZER_DEFAULT_PARAMETERS

    defaults = OPTIMIZER_DEFAULT_PARAMETERS[Optimizer[name]]
    return defaults | {"optimizer": name, "muon_adam_lr": ADAM_LEARNING_RATE} | settings


def configuration(runs: Any, model: Path, clips: Path, work: Path, method: str, **changes: Any) -> Any:
    settings: dict[str, Any] = {"layer_filter": "", "layer_filter_preset": "full", "epochs": 2}
    if method == "FINE_TUNE":
        settings |= {
            "training_method": "FINE_TUNE",
            "output_model_format": "DIFFUSERS",
            "output_model_destination": str(work / "model"),
            "learning_rate": 1e-3,
        }
    return runs.configuration(model, clips, work, **(settings | changes))


def named_parameters(model: Any, part: str, method: str) -> dict[str, Any]:
    """All that is trained of a transformer, by the names of its layers."""
    if method == "FINE_TUNE":
        return dict(getattr(model, part).named_parameters())
    layers = getattr(model, f"{part}_lora").lora_modules
    return {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.named_parameters()}


def is_hidden_matrix(name: str) -> bool:
    """By diffusers' names: the linear layers of attention and feed-forward, neither biases nor norms nor tables."""
    block, _, layer = name.partition(".")[2].partition(".")
    return (
        name.startswith("blocks.")
        and block.isdecimal()
        and layer.startswith(("attn1.to_", "attn2.to_", "ffn.net."))
        and name.endswith("weight")
    )


def optimizer_of(model: Any) -> dict[int, str]:
    groups = model.optimizer.param_groups
    return {id(parameter): group["optim_type"] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("method", ["LORA", "FINE_TUNE"])
@pytest.mark.parametrize(("name", "experts"), [("MUON_ADV", 1), ("ADAMUON_ADV", 2)])
def test_muon_gets_the_matrices_of_the_blocks_and_everything_learns(
    runs: Any,
    tiny_wan: Path,
    tiny_wan_two_experts: Path,
    clips: Path,
    tmp_path: Path,
    method: str,
    name: str,
    experts: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from modules.trainer.GenericTrainer import GenericTrainer

    variant = {"model_type": "WAN_2_2_T2V_A14B", "epochs": 6} if experts == 2 else {}
    model = tiny_wan_two_experts if experts == 2 else tiny_wan
    config = configuration(runs, model, clips, tmp_path, method, optimizer=muon(name), **variant)
    before: dict[str, dict[str, Any]] = {}
    train = GenericTrainer.train

    def remember_and_train(self: Any) -> None:
        before.update(snapshot(self.model, method))
        train(self)

    monkeypatch.setattr(GenericTrainer, "train", remember_and_train)
    run = runs.train(config)

    trained = run.trainer.model
    kinds = optimizer_of(trained)
    for part in trained.experts():
        parameters = named_parameters(trained, part, method)
        expected = {key: "muon" if is_hidden_matrix(key) else "adam" for key in parameters}
        assert set(expected.values()) == {"muon", "adam"}
        assert {key: kinds[id(parameter)] for key, parameter in parameters.items()} == expected
        unchanged = [key for key, value in parameters.items() if torch.equal(value, before[part][key])]
        assert not unchanged
        assert all(value.isfinite().all() for value in parameters.values())
    assert len(kinds) == sum(len(named_parameters(trained, part, method)) for part in trained.experts())
    rates = {(group["optim_type"], group["initial_lr"]) for group in trained.optimizer.param_groups}
    assert rates == {("muon", config.learning_rate), ("adam", ADAM_LEARNING_RATE)}
    assert all(0 < loss < 100 for loss in run.losses)


def snapshot(model: Any, method: str) -> dict[str, dict[str, Any]]:
    return {
        part: {key: value.detach().clone() for key, value in named_parameters(model, part, method).items()}
        for part in model.experts()
    }


def test_layers_that_the_user_names_are_taken_instead(runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    optimizer = muon("MUON_ADV", muon_hidden_layers="ffn")
    trained = runs.train(configuration(runs, tiny_wan, clips, tmp_path, "LORA", optimizer=optimizer)).trainer.model

    kinds = optimizer_of(trained)
    for key, parameter in named_parameters(trained, "transformer", "LORA").items():
        assert kinds[id(parameter)] == ("muon" if "ffn" in key else "adam"), key


@pytest.mark.parametrize("method", ["LORA", "FINE_TUNE"])
def test_a_run_goes_on_from_its_backup_as_if_it_had_not_stopped(
    runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path, method: str
) -> None:
    optimizer = muon("MUON_ADV")

    def run(work: str, **changes: Any) -> Any:
        return runs.train(configuration(runs, tiny_wan, clips, tmp_path / work, method, optimizer=optimizer, **changes))

    whole = run("whole")
    first = run("parts", epochs=1, backup_before_save=True)
    again = run("parts", continue_last_backup=True)

    assert first.losses + again.losses == pytest.approx(whole.losses, rel=1e-5)
