"""Several processes train one A14B, as stock does on several GPUs: here on the CPU, over gloo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

WORLD = 2
GOOD = [f"clip{number}.mp4" for number in range(5)]
SECONDS = 400


@pytest.fixture(scope="module")
def clips(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good clips, which two processes cannot share evenly, and two that nobody can read."""
    folder = runs.make_clips(tmp_path_factory.mktemp("clips") / "clips", len(GOOD))
    (folder / "bad.mp4").write_bytes(b"no video at all")
    whole = (folder / "clip0.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


def run_ranks(
    runs: Any, onetrainer: Path, model: Path, clips: Path, work: Path, *, cannot_read: dict[int, str], **changes: Any
) -> tuple[list[int], list[str]]:
    """Exit codes and logs. A process that waits for ever is an error."""
    config = runs.write_configuration(
        model,
        clips,
        work,
        **{"model_type": "WAN_2_2_T2V_A14B", "multi_gpu": True, "epochs": 3, "timestep_shift": 8.0} | changes,
    )
    script = str(Path(__file__).with_name("wan_rank.py"))
    (work / "meeting").unlink(missing_ok=True)  # of an earlier run
    running = []
    for rank in range(WORLD):
        command = [sys.executable, script, str(onetrainer), str(config), str(rank), str(WORLD), str(work)]
        if rank in cannot_read:
            command += ["--cannot-read", cannot_read[rank]]
        with (work / f"rank{rank}.log").open("w", encoding="utf-8") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
    try:
        ended = [process.wait(timeout=SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()
    return ended, [(work / f"rank{rank}.log").read_text(encoding="utf-8") for rank in range(WORLD)]


def train_on_ranks(runs: Any, *places: Path, **options: Any) -> list[SimpleNamespace]:
    """What each process saw, and what it ended with."""
    from safetensors.torch import load_file

    ended, logs = run_ranks(runs, *places, **options)
    assert ended == [0] * WORLD, "\n".join(log[-3000:] for log in logs)
    *_, work = places
    found = []
    for rank in range(WORLD):
        facts = json.loads((work / f"rank{rank}.json").read_text(encoding="utf-8"))
        found.append(SimpleNamespace(**facts, weights=load_file(work / f"rank{rank}.safetensors")))
    return found


def clips_of_epoch(rank: SimpleNamespace, epoch: int) -> list[str]:
    """What a process trained on in an epoch; a placeholder is not trained on."""
    return [name for step in rank.steps if step["epoch"] == epoch for name, weight in step["clips"] if weight > 0]


def assert_in_step(ranks: list[SimpleNamespace]) -> None:
    """As many steps everywhere, the same expert at each, and the same weights and learning rate at the end."""
    import torch

    first, second = ranks
    assert [step["step"] for step in first.steps] == [step["step"] for step in second.steps]
    assert [step["expert"] for step in first.steps] == [step["expert"] for step in second.steps]
    assert {step["expert"] for step in first.steps} == {"high", "low"}
    assert first.rates == second.rates
    assert first.weights.keys() == second.weights.keys()
    for name, weight in first.weights.items():
        assert torch.equal(weight, second.weights[name]), name
    for part in ("transformer", "transformer_2"):
        ups = [w for n, w in first.weights.items() if n.startswith(f"{part}.") and n.endswith("lora_up.weight")]
        assert any(up.abs().max() > 0 for up in ups), f"{part} was not trained"


@pytest.mark.parametrize("latent_caching", [True, False])
def test_ranks_train_one_expert_at_a_time_on_different_clips_and_end_with_equal_weights(
    runs: Any, wan_host: Path, tiny_wan_two_experts: Path, clips: Path, tmp_path: Path, latent_caching: bool
) -> None:
    ranks = train_on_ranks(
        runs, wan_host, tiny_wan_two_experts, clips, tmp_path, cannot_read={}, latent_caching=latent_caching
    )

    assert_in_step(ranks)
    for epoch in range(3):
        # Each clip once, on one of the processes; the bad ones on none.
        assert sorted(name for rank in ranks for name in clips_of_epoch(rank, epoch)) == GOOD
    assert all(a["sigmas"] != b["sigmas"] for a, b in zip(*(rank.steps for rank in ranks), strict=True))


def test_what_the_process_that_fills_the_cache_cannot_read_is_left_out_by_all(
    runs: Any, wan_host: Path, tiny_wan_two_experts: Path, clips: Path, tmp_path: Path
) -> None:
    ranks = train_on_ranks(runs, wan_host, tiny_wan_two_experts, clips, tmp_path, cannot_read={0: "clip1.mp4"})

    assert_in_step(ranks)
    for epoch in range(3):
        assert sorted(name for rank in ranks for name in clips_of_epoch(rank, epoch)) == sorted({*GOOD} - {"clip1.mp4"})


def test_without_a_cache_a_clip_that_fails_for_one_process_stops_none_and_is_then_left_out_by_all(
    runs: Any, wan_host: Path, tiny_wan_two_experts: Path, clips: Path, tmp_path: Path
) -> None:
    ranks = train_on_ranks(
        runs,
        wan_host,
        tiny_wan_two_experts,
        clips,
        tmp_path,
        cannot_read={1: "clip1.mp4"},
        latent_caching=False,
    )

    assert_in_step(ranks)
    for epoch in (1, 2):
        assert sorted(name for rank in ranks for name in clips_of_epoch(rank, epoch)) == sorted({*GOOD} - {"clip1.mp4"})


def test_ranks_without_a_cache_go_on_in_the_middle_of_an_epoch_with_the_batches_that_were_due(
    runs: Any, wan_host: Path, tiny_wan_two_experts: Path, clips: Path, tmp_path: Path
) -> None:
    places = (wan_host, tiny_wan_two_experts, clips, tmp_path)
    common = {"cannot_read": {}, "latent_caching": False, "epochs": 1}
    first = train_on_ranks(runs, *places, **common, backup_after=2, backup_after_unit="STEP", backup_before_save=False)
    again = train_on_ranks(runs, *places, **common, continue_last_backup=True)

    for before, after in zip(first, again, strict=True):
        assert len(before.steps) == 3
        assert 0 < len(after.steps) < 3
        assert after.steps == before.steps[-len(after.steps) :]  # steps, clips, expert and noise levels


def test_when_one_process_has_nothing_to_train_on_the_others_do_not_wait_for_it(
    runs: Any, wan_host: Path, tiny_wan_two_experts: Path, clips: Path, tmp_path: Path
) -> None:
    ended, logs = run_ranks(
        runs, wan_host, tiny_wan_two_experts, clips, tmp_path, cannot_read={1: "*.mp4"}, latent_caching=False
    )

    assert 0 not in ended
    assert "there is nothing to train on" in logs[1]
    assert "another process of this training has failed" in logs[0]
