"""`wan inspect`: the modules of a run's pipeline, what they do, and where the run stands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.health import RUN_DATABASE_NAME, RunDatabase

STRUCTURE = [
    {
        "at": 0,
        "name": "ValidatedCollectPaths",
        "part": "validated",
        "inputs": ["concept", "path"],
        "outputs": ["image_path"],
        "sources": {},
    },
    {
        "at": 1,
        "name": "Loader",
        "part": "guarded",
        "inputs": ["image_path", "mask"],
        "outputs": ["image"],
        "sources": {"image_path": 0},
    },
    {
        "at": 2,
        "name": "OutputPipelineModule",
        "part": "as it was",
        "inputs": ["image"],
        "outputs": ["image"],
        "sources": {"image": 1},
    },
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace whose run goes on no more: its loader was switched off."""
    with RunDatabase(tmp_path / RUN_DATABASE_NAME) as database, database.start_run("train") as run:
        run.state("pipeline training", STRUCTURE)
        run.state("phase", "caching")
        run.state("phase_since", time.time() - 125)
        run.state("breakers", {"Loader": "open"})
        run.state("caches", {"/cache": {"entries": 12, "bytes": 3_400_000}})
        run.counters(
            {
                "Loader.seconds": 12.5,
                "Loader.calls": 50,
                "Loader.max_seconds": 4.0,
                "module_failures{module=Loader}": 3,
                "cache_hits": 4,
                "cache_misses": 8,
            }
        )
    return tmp_path


def test_modules_are_shown_in_order_with_what_they_read_give_and_did(wan: Any, workspace: Path) -> None:
    result = wan("inspect", workspace)
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    start = lines.index("training pipeline: 3 modules")
    assert lines[start + 2 :] == [
        "0 ValidatedCollectPaths validated",
        "gives image_path",
        "1 Loader guarded 50 items, 12.5 s, longest 4.0 s",
        "switched off · 3 failed",
        "reads image_path (0), mask (nobody)",
        "gives image",
        "2 OutputPipelineModule as it was",
        "reads image (1)",
        "gives image",
        "nobody gives mask (read by 1 Loader)",
    ]


def test_where_it_stands_is_said_first(wan: Any, workspace: Path) -> None:
    shown = " ".join(wan("inspect", workspace).stdout.split())
    for text in (
        "run 1 (train): finished",
        "at last caching, since 20",
        "4 hits, 8 misses (33% hits); holds 12 entries, 3.4 MB",
        "switched off Loader",
    ):
        assert text in shown


def test_json_has_all_of_it(wan: Any, workspace: Path) -> None:
    answer = json.loads(wan("inspect", workspace, "--json").stdout)
    assert (answer["run_id"], answer["state"], answer["phase"]) == (1, "finished", "caching")
    assert answer["phase_since"] == pytest.approx(time.time() - 125, abs=60)
    assert answer["breakers"] == {"Loader": "open"}
    assert answer["caches"] == [{"folder": "/cache", "entries": 12, "bytes": 3_400_000}]
    pipeline = answer["pipelines"]["training"]
    assert [module["name"] for module in pipeline["modules"]] == [module["name"] for module in STRUCTURE]
    loader = pipeline["modules"][1]
    assert (loader["part"], loader["items"], loader["seconds"], loader["failures"]) == ("guarded", 50, 12.5, 3)
    assert (loader["reads"], loader["gives"]) == ({"image_path": 0, "mask": None}, ["image"])
    assert loader["breaker"] == "open"
    assert pipeline["nobody_gives"] == [{"item": "mask", "read_by": 1}]


def test_a_run_of_another_process_is_looked_at_while_it_goes_on(wan: Any, workspace: Path) -> None:
    program = (
        "import sys, time\n"
        "from wan_fixes.health import RunDatabase\n"
        "with RunDatabase(sys.argv[1]) as database:\n"
        "    run = database.start_run('train')\n"
        "    run.state('phase', 'loading the model')\n"
        "    run.state('phase_since', time.time())\n"
        "    run.flush()\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    arguments = [sys.executable, "-c", program, str(workspace / RUN_DATABASE_NAME)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None and training.stdout.readline() == "ready\n"
        shown = " ".join(wan("inspect", workspace).stdout.split())
        training.communicate("")
    assert "run 2 (train): running" in shown
    assert "now loading the model, since 20" in shown
    assert "last wrote" in shown
    assert "no pipeline is recorded: it was not built, or not yet" in shown


def test_a_damaged_structure_is_passed_over(wan: Any, tmp_path: Path) -> None:
    with RunDatabase(tmp_path / RUN_DATABASE_NAME) as database, database.start_run("train") as run:
        run.state("pipeline training", [*STRUCTURE[:1], "text", {"at": "x"}, {**STRUCTURE[1], "sources": None}])
        run.state("phase_since", "yesterday")
    result = wan("inspect", tmp_path)
    assert result.exit_code == 0
    assert "image_path (nobody)" in result.stdout
    json.loads(wan("inspect", tmp_path, "--json").stdout)


def test_names_are_text(wan: Any, tmp_path: Path) -> None:
    named = {**STRUCTURE[1], "name": "[red]x[/red]\x1b[2J", "outputs": ["[b]y[/b]"]}
    with RunDatabase(tmp_path / RUN_DATABASE_NAME) as database, database.start_run("train") as run:
        run.state("pipeline training", [STRUCTURE[0], named])
    shown = wan("inspect", tmp_path).stdout
    assert "[red]x[/red]\\x1b[2J" in shown
    assert "[b]y[/b]" in shown


def test_a_run_of_another_number_can_be_looked_at(wan: Any, workspace: Path) -> None:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database:
        database.start_run("check").finish()
    assert "2 (check)" in wan("inspect", workspace).stdout
    assert "training pipeline" in wan("inspect", workspace, "--run", "1").stdout
