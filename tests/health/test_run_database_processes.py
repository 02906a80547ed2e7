"""The run database between processes: killed writers, readers beside a writer, many writers. No child imports torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wan_fixes.health import RunDatabase

CHILD_SECONDS = 60
# One second is promised; a busy machine may let the writing thread start late.
LOST_SECONDS = 1.0 + 2.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.sqlite"


@contextmanager
def child(code: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process running `code`, in which `path` is the database; gone at the end of the block."""
    prologue = f"import os, sys\nfrom wan_fixes.health import RunDatabase\npath = {str(path)!r}\n"
    process = subprocess.Popen(
        [sys.executable, "-c", prologue + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=CHILD_SECONDS)


ECHO = """
from wan_fixes.health import run_writer
run_writer._EARLY_WRITE_ROWS = 10**9  # the clock alone decides when to write
run = RunDatabase(path).start_run("train")
print("ready", flush=True)
for line in sys.stdin:
    run.event("note", line.strip())
    print(line.strip(), flush=True)
"""


def test_a_killed_writer_loses_the_last_second_at_most(path: Path) -> None:
    with child(ECHO, path) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        acknowledged: list[float] = []
        begin = time.monotonic()
        while time.monotonic() - begin < LOST_SECONDS + 1.5:
            process.stdin.write(f"{len(acknowledged)}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{len(acknowledged)}\n"
            acknowledged.append(time.monotonic())
        killed = time.monotonic()
        process.kill()
        process.wait(CHILD_SECONDS)
    reader = RunDatabase.open_readonly(path)
    run = reader.latest_run()
    assert run is not None
    assert run.status == "interrupted"
    found = [event.message for event in reader.events(run.id)]
    due = sum(moment < killed - LOST_SECONDS for moment in acknowledged)
    assert due > 0
    assert due <= int(found[-1]) + 1 <= len(acknowledged)
    assert found == [str(int(found[0]) + number) for number in range(len(found))]  # nothing out of the middle


def test_after_a_kill_the_next_run_goes_on_in_the_same_database(path: Path) -> None:
    with child(ECHO, path) as process:
        assert process.stdout
        process.stdout.readline()
        process.kill()
        process.wait(CHILD_SECONDS)
    with RunDatabase(path) as database, database.start_run("train"):
        pass
    assert [run.status for run in RunDatabase.open_readonly(path).runs()] == ["finished", "interrupted"]


def test_a_run_lives_as_long_as_its_process(path: Path) -> None:
    with child(ECHO, path) as process:
        assert process.stdout
        process.stdout.readline()
        reader = RunDatabase.open_readonly(path)
        assert reader.runs()[0].status == "running"
        assert reader.runs()[0].pid == process.pid
        process.kill()
        process.wait(CHILD_SECONDS)
        assert reader.runs()[0].status == "interrupted"


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="only where a dead process stays listed until it is asked about")
def test_a_run_whose_process_died_unnoticed_reads_as_interrupted(path: Path) -> None:
    with child(ECHO, path) as process:
        assert process.stdout
        process.stdout.readline()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and left as a zombie
        assert RunDatabase.open_readonly(path).runs()[0].status == "interrupted"


def test_a_process_that_forgets_to_close_loses_nothing(path: Path) -> None:
    code = """
run = RunDatabase(path).start_run("train")
for number in range(300):
    run.event("note", str(number))
"""
    with child(code, path) as process:
        assert process.wait(CHILD_SECONDS) == 0
    reader = RunDatabase.open_readonly(path)
    assert [event.message for event in reader.events(1)] == [str(number) for number in range(300)]
    assert reader.runs()[0].status == "interrupted"


READ = """
reader = RunDatabase.open_readonly(path)
seen, rounds = 0, 0
print("ready", flush=True)
while True:
    status = reader.latest_run().status
    events = [event.message for event in reader.events(1)]
    assert events == [str(number) for number in range(len(events))], events[-5:]
    assert len(events) >= seen
    seen, rounds = len(events), rounds + 1
    if status == "finished":
        break
print(seen, rounds, flush=True)
"""


def test_others_read_while_one_writes(path: Path) -> None:
    with RunDatabase(path) as database:
        run = database.start_run("train")
        with child(READ, path) as first, child(READ, path) as second:
            for process in (first, second):
                assert process.stdout
                assert process.stdout.readline() == "ready\n"
            for number in range(2000):
                run.event("note", str(number))
                if number % 50 == 0:
                    run.flush()
            run.finish()
            for process in (first, second):
                assert process.stdout
                seen, rounds = map(int, process.stdout.readline().split())
                assert seen == 2000
                assert rounds > 1


WRITE = """
database = RunDatabase(path)
print("ready", flush=True)
sys.stdin.readline()
with database.start_run(sys.argv[0]) as run:
    for number in range(500):
        run.event("note", str(number))
        if number % 20 == 0:
            run.flush()
"""


def test_several_processes_may_write_at_once(path: Path) -> None:
    with child(WRITE, path) as first, child(WRITE, path) as second, child(WRITE, path) as third:
        processes = (first, second, third)
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.wait(CHILD_SECONDS) == 0
    reader = RunDatabase.open_readonly(path)
    runs = reader.runs()
    assert [run.status for run in runs] == ["finished"] * 3
    for run in runs:
        assert [event.message for event in reader.events(run.id)] == [str(number) for number in range(500)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_forked_child_does_not_take_the_database_from_its_parent(path: Path) -> None:
    code = """
database = RunDatabase(path)
run = database.start_run("train")
run.event("note", "before")
child = os.fork()
if child == 0:
    database.close()
    sys.exit(0)
os.waitpid(child, 0)
run.event("note", "after")
run.finish()
print([event.message for event in database.events(run.id)], flush=True)
"""
    with child(code, path) as process:
        assert process.stdout
        assert process.stdout.readline() == "['before', 'after']\n"
        assert process.wait(CHILD_SECONDS) == 0


def test_the_caller_never_waits_for_the_disk(path: Path) -> None:
    """While another program holds the database, recording goes on at once; everything arrives afterwards."""
    with RunDatabase(path) as database:
        run = database.start_run("train")
        database.flush()
        with database._writer._connection_lock:  # what the writing thread needs
            for number in range(1000):
                run.event("note", str(number))
        assert len(database.events(run.id)) == 1000
