"""What the pages say of a run, without a window: short, plain, and safe to show."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import wan_fixes.ui
from wan_fixes.health.numbers import many, memory_text, rate_text, short_time_text, time_text
from wan_fixes.ui.left_out_page import copied, details, group_rows
from wan_fixes.ui.models_page import headline, model_row
from wan_fixes.ui.models_view import ModelRow
from wan_fixes.ui.overview_page import alert_lines, figures, headlines, stage_rows
from wan_fixes.ui.view_model import RunView
from wan_fixes.ui.watch import Glance, RunWatch
from wan_fixes.ui.words import kind_name, short

from .states import STATES, recording

TOOLKITS = ("tkinter", "_tkinter", "customtkinter", "PySide6")


def glance_at(folder: Path, state: str) -> Glance:
    with recording(folder) as run:
        STATES[state](run)
        run.flush() if hasattr(run, "flush") else None
    watch = RunWatch(lambda: folder / "runs.sqlite")
    return watch.look()


def run_in(folder: Path, state: str) -> RunView:
    run = glance_at(folder, state).run
    assert run is not None
    return run


def test_the_view_is_imported_where_there_is_no_toolkit() -> None:
    names = [
        f"wan_fixes.ui.{module.name}" for module in pkgutil.iter_modules(wan_fixes.ui.__path__) if not module.ispkg
    ]
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({TOOLKITS!r}))\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "from wan_fixes.plugin import plugin\n"
        "sys.stdout.write(plugin.onetrainer_ui_tabs()[0].title)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "WAN fixes"), done.stderr
    assert len(names) > 10 and importlib.util.find_spec("wan_fixes.ui.ctk") is not None


@pytest.mark.parametrize(
    ("state", "says"),
    [("running", "Training, for "), ("finished", "✓ Finished after "), ("failed", "✕ Failed after ")],
)
def test_the_headline_says_how_the_run_stands(tmp_path: Path, state: str, says: str) -> None:
    glance = glance_at(tmp_path, state)
    if state == "running":
        glance = Glance(number=1, run=glance.run and replace_state(glance.run, "running"))

    (words, _), (about, _) = headlines(glance)

    assert words.startswith(says)
    assert about.startswith("Run 1 (training), begun ")
    if state == "failed":
        assert about.endswith(": OutOfMemoryError: the GPU has no memory left")


def replace_state(run: RunView, state: str) -> RunView:
    import dataclasses

    return dataclasses.replace(run, state=state)


def test_nothing_run_and_something_broken_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    watch = RunWatch(lambda: path)
    assert headlines(watch.look())[0] == ("No run yet", "text")

    path.write_bytes(b"nonsense" * 500)
    headline_words, (what, _) = headlines(watch.look())
    assert headline_words == ("✕ The record of the runs cannot be shown", "bad")
    assert "is not a database" in what and "sets a damaged file aside" in what


def test_the_figures_of_a_training(tmp_path: Path) -> None:
    samples, cache, speed, loss, memory, gpu, errors, off = figures(run_in(tmp_path, "running"), quarantined=3)

    assert samples == (("1,204 fine", "text"), ("12 left out, 3 in quarantine", "warn"))
    assert cache == (("95% found", "text"), ("12.4 GB in 1,204 entries", "dim"))
    assert speed[0] == ("2.2 steps/s", "text")
    assert loss[1] == ("step 400", "dim")
    assert memory[0] == ("10.9 GB", "text") and gpu[0] == ("20.9 GB", "text")
    assert errors == (("✕ 12", "bad"), ("4 in: Reading clips", "dim"))
    assert off[0] == ("None", "text")


def test_a_run_of_which_nothing_is_known_has_figures_too(tmp_path: Path) -> None:
    found = figures(run_in(tmp_path, "started"), quarantined=0)

    assert found[0][0] == ("0 fine", "text")
    assert [value for (value, _), _ in found[1:6]] == ["–"] * 5  # noqa: RUF001


def test_alerts_say_what_helps_and_how_many_more_there_are(tmp_path: Path) -> None:
    run = run_in(tmp_path, "alerts")

    texts = [text for text, _ in alert_lines(run)]

    assert texts[0] == "⚠ 312 of 1216 samples are left out (26%)"
    assert texts[1] == "What helps: see which and why in the tab, or with `wan errors`"
    assert texts[-1] == "and 2 more alerts"
    assert figures(run, 0)[-1] == (("⚠ 2 stages", "warn"), ("Encoding clips, Reading and scaling clips", "warn"))


def test_stages_and_groups_are_in_words(tmp_path: Path) -> None:
    run = run_in(tmp_path, "running")

    assert stage_rows(run.modules)[0][1] == ("Encoding clips", "13 min 32 s", "1,204", "674 ms")
    idle = replace(run.modules[0], items=0, seconds=0.0)
    assert stage_rows([idle, run.modules[0]]) == stage_rows([run.modules[0]])
    assert group_rows(run.groups, ("skipped", "failed"))[0][1] == ("Reading clips", "decode", "4")


def test_names_and_reasons_are_one_line_each_in_what_is_copied(tmp_path: Path) -> None:
    left_out = glance_at(tmp_path, "hostile").left_out

    lines = [copied(sample) for sample in left_out]

    assert all(len(text.splitlines()) == 1 and text.isprintable() for text in (one.replace("\t", "") for one in lines))
    assert any(line.startswith("/videos/<b>bold [red]red &amp;.mp4\t<h1>big</h1>") for line in lines)
    assert any("turned\\u202etxt.4pm" in details(sample) for sample in left_out)


def test_models_are_told_in_words() -> None:
    row = ModelRow("t2v-A14B@2.2.0", "DOWNLOADING", 3 * 10**9, 10**10, 0.23, 5e7, "from the hub")

    assert headline([row])[0] == "↓ t2v-A14B@2.2.0 is being fetched: 23%, 50.0 MB/s, 3 min 20 s left"
    assert model_row(row)[1] == (
        "t2v-A14B@2.2.0",
        "↓ being fetched",
        "3.0 GB",
        "10.0 GB",
        "23%, 50.0 MB/s, 3 min 20 s left",
    )
    assert headline([ModelRow("a", "CORRUPT", 1, 0, None, None, "")]) == ("✕ 1 model is damaged", "bad")
    assert headline([]) == ("No model is here yet", "text")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (time_text(59.9), "59 s"),
        (time_text(7322), "2 h 2 min"),
        (time_text(200_000), "2 d 7 h"),
        (short_time_text(0.0004), "0.4 ms"),
        (short_time_text(1.25), "1.2 s"),
        (rate_text(2.31, "steps"), "2.3 steps/s"),
        (rate_text(0.05, "steps"), "3.0 steps/min"),
        (rate_text(0.001, "steps"), "3.6 steps/h"),
        (many(1, "file"), "1 file"),
        (many(1200, "entry", "entries"), "1,200 entries"),
        (memory_text(12_345), "12.1 GB"),
        (kind_name("DecodeTimeoutError"), "decode timeout"),
        (kind_name("warning"), "warning"),
        (short("x" * 400)[-2:], "x…"),
    ],
)
def test_numbers_and_names_read_well(text: str, says: str) -> None:
    assert text == says
