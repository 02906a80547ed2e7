"""Checkpoints: what is read is what was written, and nothing damaged is ever believed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import CriticalError
from wan_fixes.hosts.standalone import checkpoint as checkpoint_room
from wan_fixes.hosts.standalone.checkpoint import KEPT, Checkpoints, Progress, TrainingState


def stepped(name: str, steps: int = 3) -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    """A small network after some steps of an optimizer."""
    torch.manual_seed(0)
    network = torch.nn.Linear(4, 3)
    makers = {
        "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.8, 0.99)),
        "Adam": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
        "SGD": lambda p: torch.optim.SGD(p, lr=1e-2),
        "SGD with momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    }
    optimizer = makers[name](network.parameters())
    for step in range(steps):
        advance(network, optimizer, step)
    return network, optimizer


def advance(network: torch.nn.Linear, optimizer: torch.optim.Optimizer, step: int) -> None:
    optimizer.zero_grad()
    network(torch.full((2, 4), float(step + 1))).square().mean().backward()
    optimizer.step()


def state_of(network: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int = 3, **changes) -> TrainingState:
    adapter = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    progress = Progress(epoch=1, epoch_batch=2, micro_step=6, global_step=step)
    return TrainingState(adapter, optimizer.state_dict(), progress, {"learning_rate": 0.1}, **changes)


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD", "SGD with momentum"])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, name):
    network, optimizer = stepped(name)
    Checkpoints(tmp_path).save(state_of(network, optimizer))
    for step in (3, 4):
        advance(network, optimizer, step)

    other, other_optimizer = stepped(name, steps=0)
    _, state = Checkpoints(tmp_path).newest()
    with torch.no_grad():
        for weight_name, weight in other.named_parameters():
            weight.copy_(state.adapter[weight_name])
    other_optimizer.load_state_dict(state.optimizer)
    for step in (3, 4):
        advance(other, other_optimizer, step)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_everything_comes_back(tmp_path):
    network, optimizer = stepped("AdamW")
    written = state_of(network, optimizer, finished=True, samples="abc")
    Checkpoints(tmp_path).save(written)
    _, read = Checkpoints(tmp_path).newest()
    assert read.progress == written.progress
    assert (read.fingerprint, read.finished, read.samples) == ({"learning_rate": 0.1}, True, "abc")


def test_only_the_last_two_are_kept_and_the_newest_wins_whatever_its_step(tmp_path):
    network, optimizer = stepped("SGD")
    checkpoints = Checkpoints(tmp_path)
    for step in (100, 200, 5):
        checkpoints.save(state_of(network, optimizer, step))
    assert len(list(tmp_path.iterdir())) == KEPT
    assert checkpoints.newest()[1].progress.global_step == 5


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert Checkpoints(tmp_path / "not there").newest() is None
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert Checkpoints(tmp_path).newest() is None


def two_checkpoints(folder: Path) -> Path:
    network, optimizer = stepped("AdamW")
    checkpoints = Checkpoints(folder)
    checkpoints.save(state_of(network, optimizer, 1))
    return checkpoints.save(state_of(network, optimizer, 2))


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> bytes:
    return two_checkpoints(tmp_path_factory.mktemp("intact")).read_bytes()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found_and_the_checkpoint_before_it_is_used(tmp_path_factory, intact, data):
    folder = tmp_path_factory.mktemp("damaged")
    newest = two_checkpoints(folder)
    position = data.draw(st.integers(0, len(intact) - 1))
    flipped = bytearray(newest.read_bytes())
    flipped[position] ^= data.draw(st.integers(1, 255))
    newest.write_bytes(flipped)
    checkpoints = Checkpoints(folder)
    path, state = checkpoints.newest()
    if checkpoints.damaged:
        assert checkpoints.damaged[0].path == str(newest)
        assert checkpoints.damaged[0].reason
        assert state.progress.global_step == 1
    else:  # padding of the header: the content is the same
        assert path == newest
        assert state.progress.global_step == 2
        assert position < 8 + int.from_bytes(intact[:8], "little")


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_cut_file_is_found(tmp_path, length):
    newest = two_checkpoints(tmp_path)
    newest.write_bytes(newest.read_bytes()[:length])
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest()[1].progress.global_step == 1
    assert "cannot be read" in checkpoints.damaged[0].reason


def test_another_format_version_is_named_and_not_believed(tmp_path, monkeypatch):
    newest = two_checkpoints(tmp_path)
    monkeypatch.setattr(checkpoint_room, "FORMAT_VERSION", 2)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() is None
    assert "format version is 1" in checkpoints.damaged[0].reason
    assert newest.exists()


def test_a_disk_that_refuses_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    newest = two_checkpoints(tmp_path)
    network, optimizer = stepped("SGD")

    def full(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CriticalError, match="checkpoint cannot be written"):
        Checkpoints(tmp_path).save(state_of(network, optimizer, 3))
    monkeypatch.undo()
    assert Checkpoints(tmp_path).newest()[0] == newest
    assert len(list(tmp_path.iterdir())) == KEPT
