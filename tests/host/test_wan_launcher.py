"""Stock `scripts/train.py` trains every WAN on the quickstart's messy clips: cache, sample, back up, go on, save."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

LAUNCHED = ("WAN_2_1_T2V_1_3B", "WAN_2_2_T2V_A14B")
"""In every run of the tests; the others in full ones."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from clips import make_broken_files, make_good_clips

    from host.own_host import make_own_host

    host = make_own_host(tmp_path_factory.mktemp("host"), Path(os.environ["WAN_FIXES_ONETRAINER"]))
    good = make_good_clips(host.work / "clips")[:4]
    kept = {path for clip in good for path in (clip.path, clip.path.with_suffix(".txt"))}
    for path in set((host.work / "clips").iterdir()) - kept:
        path.unlink()
    broken = make_broken_files(host.work / "clips")
    enabled = host.wan("enable", str(host.checkout))
    assert enabled.returncode == 0, enabled.stderr
    yield SimpleNamespace(own=host, work=host.work, clips=host.work / "clips", good=good, broken=broken)


def train(host: Any, variant: str, work: Path, **changes: Any) -> Any:
    from tiny_wan import make_tiny_wan

    from wan_fixes.wan.variants import get_variant

    sys.path.insert(0, str(Path(__file__).parent))
    try:
        from wan_runs import write_configuration
    finally:
        sys.path.pop(0)
    known = get_variant(variant)
    model = host.work / "models" / variant
    if not model.exists():
        make_tiny_wan(model, mode=known.mode, experts=known.experts)
    path = write_configuration(model, host.clips, work, model_type=variant, **changes)
    done = host.own.launch("scripts/train.py", "--config-path", str(path))
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=[] if name in LAUNCHED else [pytest.mark.full])
        for name in (
            "WAN_2_1_T2V_1_3B",
            "WAN_2_1_T2V_14B",
            "WAN_2_1_I2V_14B",
            "WAN_2_2_T2V_A14B",
            "WAN_2_2_I2V_A14B",
            "WAN_2_2_TI2V_5B",
        )
    ],
)
def test_every_variant_trains_through_the_stock_script_and_goes_on(host: Any, variant: str, tmp_path: Path) -> None:
    from painted import paint_frame
    from PIL import Image
    from safetensors.torch import load_file

    from wan_fixes.health import RunDatabase, run_database_path
    from wan_fixes.wan.variants import get_variant

    image = tmp_path / "first.png"
    Image.fromarray(paint_frame(0, width=64, height=64, hue=0.2)).save(image)
    known = get_variant(variant)
    sample = {"prompt": "a ball", "width": 64, "height": 64, "frames": 5, "diffusion_steps": 2, "cfg_scale": 1.0}
    if known.mode == "i2v":
        sample["base_image_path"] = str(image)
    common = {"samples": [sample], "sample_after": 1, "sample_after_unit": "EPOCH", "backup_before_save": True}

    train(host, variant, tmp_path, epochs=1, **common)
    done = train(host, variant, tmp_path, epochs=2, continue_last_backup=True, **common)

    runs = RunDatabase.open_readonly(run_database_path(tmp_path / "workspace"))
    first, second = sorted(runs.runs(), key=lambda run: run.id)
    assert (first.status, second.status) == ("finished", "finished")
    steps = [[step.step for step in runs.steps(run.id)] for run in (first, second)]
    assert steps[0] + steps[1] == list(range(1, 2 * len(steps[0]) + 1))
    assert len(steps[0]) >= len(host.good)
    skipped = {Path(sample.path).name for sample in runs.samples(first.id, "skipped")}
    assert skipped
    assert not skipped & {clip.path.name for clip in host.good}
    assert "cache_misses" not in str({k: v for k, v in runs.counters_of(second.id).items() if v})
    assert len(list((tmp_path / "workspace").glob("samples/*/*.mp4"))) == 2
    loras = list(tmp_path.glob("*.safetensors"))
    assert len(loras) == known.experts
    assert all(weight.isfinite().all() for path in loras for weight in load_file(path).values())
    assert "Could not set" not in done.stdout
    assert host.own.git_status() == ""


def test_switched_off_there_is_no_wan_among_the_model_types(host: Any, tmp_path: Path) -> None:
    (host.work / "settings.json").write_text('{"enabled": false}', encoding="utf-8")
    code = (
        "from util.import_util import script_imports; script_imports()\n"
        "from modules.util.enum.ModelType import ModelType\n"
        "print([name for name in ModelType.__members__ if name.startswith('WAN')])\n"
    )
    script = host.own.checkout / "scripts" / "probe.py"
    script.write_text(code, encoding="utf-8")
    try:
        done = host.own.launch("scripts/probe.py")
    finally:
        script.unlink()
        (host.work / "settings.json").write_text("{}", encoding="utf-8")
    assert done.stdout.splitlines()[-1] == "[]", done.stderr[-3000:]
