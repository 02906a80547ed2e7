"""One process of a training on several devices, as stock's `MultiTrainer` starts one for each GPU, on the CPU.

    python wan_rank.py CHECKOUT CONFIG RANK WORLD FOLDER [--cannot-read PATTERN]

The processes meet over gloo at a file in FOLDER, and each writes there what it saw (`rank0.json`) and the weights that
it ended with (`rank0.safetensors`). With `--cannot-read` the drive fails for this process alone, at the clips of that
name.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

SECONDS = 90
"""How long a process waits for the others: a process that waits for nobody is found out by this."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("rank", type=int)
    parser.add_argument("world", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cannot-read", default="")
    given = parser.parse_args()

    os.chdir(given.checkout)  # stock reads files relative to its own folder
    sys.path.insert(0, str(given.checkout))
    from wan_fixes.hosts.onetrainer.import_hooks import arm
    from wan_fixes.hosts.onetrainer.touch_points import PATCHES

    arm(PATCHES, given.checkout)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{given.folder / 'meeting'}",
        rank=given.rank,
        world_size=given.world,
        timeout=datetime.timedelta(seconds=SECONDS),
    )
    torch.manual_seed(given.rank)  # stock leaves the adapter's first values to chance
    if given.cannot_read:
        fail_reading(given.cannot_read)
    seen = train(json.loads(given.config.read_text(encoding="utf-8")))
    (given.folder / f"rank{given.rank}.json").write_text(json.dumps(seen["facts"]), encoding="utf-8")
    from safetensors.torch import save_file

    save_file(seen["weights"], given.folder / f"rank{given.rank}.safetensors")
    torch.distributed.destroy_process_group()


def fail_reading(pattern: str) -> None:
    """A drive that is too slow for this process: no file is to blame, and no quarantine tells the others of it."""
    from wan_fixes.errors import SampleError
    from wan_fixes.media import MediaReader

    decode = MediaReader.decode

    def decode_or_fail(reader: MediaReader, path: Any, *arguments: Any, **options: Any) -> Any:
        if Path(path).match(pattern):
            why = "the drive does not answer"
            raise SampleError("a clip cannot be read", path=path, reason=why, context={"damaged": False})
        return decode(reader, path, *arguments, **options)

    MediaReader.decode = decode_or_fail  # type: ignore[method-assign]


def train(content: dict[str, Any]) -> dict[str, Any]:
    """The order of `MultiTrainer._train_process`, and what was seen at each step."""
    import modules.util.multi_gpu_util as multi
    from modules.trainer.GenericTrainer import GenericTrainer
    from modules.util.callbacks.TrainCallbacks import TrainCallbacks
    from modules.util.commands.TrainCommands import TrainCommands
    from modules.util.config.TrainConfig import TrainConfig

    from wan_fixes.hosts.onetrainer.wan.setup import BaseWanSetup

    config = TrainConfig.default_values()
    config.from_dict(content, migrate=True)
    steps: list[dict[str, Any]] = []
    predict, velocity = BaseWanSetup.predict, BaseWanSetup._velocity

    def watch_predict(setup: Any, model: Any, batch: Any, config: Any, progress: Any, **options: Any) -> Any:
        clips = [
            (Path(path).name, float(weight))
            for path, weight in zip(batch["image_path"], batch["loss_weight"], strict=True)
        ]
        steps.append({"step": progress.global_step, "epoch": progress.epoch, "clips": clips})
        return predict(setup, model, batch, config, progress, **options)

    def watch_velocity(*arguments: Any) -> Any:
        *_, expert, _, _, sigmas = arguments
        steps[-1] |= {"expert": expert, "sigmas": sigmas.tolist()}
        return velocity(*arguments)

    BaseWanSetup.predict, BaseWanSetup._velocity = watch_predict, watch_velocity
    multi.set_global_commands(TrainCommands())  # what the window tells the first process
    trainer = GenericTrainer(config, TrainCallbacks(), TrainCommands())
    try:
        trainer.start()
        trainer.train()
        weights = {
            f"{part}.{name}": value.detach().clone().contiguous()
            for part, lora in trainer.model.lora_parts()
            for name, value in lora.state_dict().items()
        }
        rates = [group["lr"] for group in trainer.model.optimizer.param_groups]
    finally:
        trainer.end()
    return {"facts": {"steps": steps, "rates": [float(rate) for rate in rates]}, "weights": weights}


if __name__ == "__main__":
    main()
