"""`wan stats --follow`: shows a run of another process while it goes on, and ends with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.cli import following
from wan_fixes.health import RUN_DATABASE_NAME, RunDatabase

WAN = "from wan_fixes.cli.main import main; main()"

# Records what each line that it reads says, and answers when that is in the file.
TRAINING = """
import sys
from wan_fixes.health import RunDatabase

with RunDatabase(sys.argv[1]) as database, database.start_run("train") as run:
    for number, line in enumerate(sys.stdin, start=1):
        run.state("phase", line.strip())
        run.sample(f"/clips/{number}.mp4", "valid")
        run.step(number, 0.5, 1e-4, 0.5)
        run.flush()
        print("recorded", flush=True)
"""


class Training:
    """A process that records a run, step by step."""

    def __init__(self, workspace: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(workspace / RUN_DATABASE_NAME)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, phase: str) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(phase + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "recorded\n"

    def end(self) -> None:
        self._process.communicate("")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def training(workspace: Path) -> Iterator[Training]:
    process = Training(workspace)
    yield process
    process.kill()


@contextmanager
def wan_stats(workspace: Path, *options: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAN, "stats", str(workspace), "--follow", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        **streams,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def next_line(process: subprocess.Popen[str], containing: str) -> str:
    """The next line that it prints which contains this text."""
    assert process.stdout is not None
    for line in process.stdout:
        if containing in line:
            return line
    raise AssertionError(f"no line had {containing!r}")


def test_each_change_is_a_line_until_the_run_of_the_other_process_ends(workspace: Path, training: Training) -> None:
    training.do("caching")
    with wan_stats(workspace) as process:
        assert "running: caching; 1 valid" in next_line(process, "caching")
        training.do("training")
        assert "2 valid" in next_line(process, "running: training")
        training.end()
        assert "steps: 2" in next_line(process, "finished")
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_with_json_each_line_is_an_object(workspace: Path, training: Training) -> None:
    training.do("caching")
    with wan_stats(workspace, "--json") as process:
        first = json.loads(next_line(process, "caching"))
        training.do("training")
        second = json.loads(next_line(process, '"training"'))
        training.end()
        rest, _ = process.communicate(timeout=60)
    assert (first["valid"], first["state"], second["valid"]) == (1, "running", 2)
    assert "skipped_samples" not in first
    assert json.loads(rest.splitlines()[-1])["state"] == "finished"
    assert process.returncode == 0


def test_a_run_whose_process_is_killed_ends_it_too(workspace: Path, training: Training) -> None:
    training.do("caching")
    with wan_stats(workspace) as process:
        next_line(process, "caching")
        training.kill()
        assert "1 valid" in next_line(process, "interrupted")
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_where_there_is_no_run_yet_it_waits_and_says_so(workspace: Path) -> None:
    with wan_stats(workspace) as process:
        assert process.stderr is not None
        assert f"waiting for a run in {workspace}" in process.stderr.readline()
        training = Training(workspace)
        try:
            training.do("caching")
            assert "1 valid" in next_line(process, "caching")
        finally:
            training.kill()


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to a whole console")
@pytest.mark.parametrize("is_there", [False, True], ids=["waiting", "following"])
def test_ctrl_c_ends_it_with_code_0(workspace: Path, training: Training, is_there: bool) -> None:
    if is_there:
        training.do("caching")
    else:
        training.kill()
        for path in workspace.iterdir():
            path.unlink()
    with wan_stats(workspace) as process:
        assert process.stderr is not None
        if is_there:
            next_line(process, "caching")
        else:
            process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no terminals that a program can make")
def test_in_a_terminal_it_is_drawn_anew(workspace: Path, training: Training) -> None:
    import pty

    training.do("caching")
    ours, theirs = pty.openpty()
    program = [sys.executable, "-c", WAN, "stats", str(workspace), "--follow"]
    process = subprocess.Popen(
        program, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    )
    os.close(theirs)
    try:
        seen = b""
        while b"caching" not in seen:
            seen += os.read(ours, 4096)
        training.do("training [red]x[/red]")
        while b"training [red]x[/red]" not in seen:
            seen += os.read(ours, 4096)
        training.end()
        while b"finished" not in seen:
            seen += os.read(ours, 4096)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_run_that_is_over_is_shown_once(wan: Any, workspace: Path) -> None:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database:
        database.start_run("train").finish()
    result = wan("stats", workspace, "--follow")
    assert result.exit_code == 0
    assert result.stdout == "finished\n"
    assert "run 1 is over" in result.stderr


def test_a_wrong_place_is_an_error_and_nothing_to_wait_for(wan: Any, tmp_path: Path) -> None:
    result = wan("stats", tmp_path / "nowhere", "--follow")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_a_record_that_cannot_be_read_any_more_ends_it(
    wan: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []

    def spoil(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            for path in workspace.iterdir():
                path.unlink()
            (workspace / RUN_DATABASE_NAME).write_bytes(b"no database" * 1000)

    monkeypatch.setattr(following.time, "sleep", spoil)
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database:
        run = database.start_run("train")
        run.flush()
        result = wan("stats", workspace, "--follow")
        assert result.exit_code == 2
        assert "the run database cannot be read" in result.stderr
        assert 1 < len(waits) < 20


def test_texts_of_a_run_are_one_safe_line(wan: Any, workspace: Path) -> None:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database:
        run = database.start_run("train")
        run.state("alerts", [{"kind": "x", "message": "a\x1b[2J\nb [red]c", "fix": "", "since": 0.0}])
        run.finish()
    (line,) = wan("stats", workspace, "--follow").stdout.splitlines()
    assert "ALERT: a\\x1b[2J\\nb [red]c" in line
