"""Prints, or writes into docs/compatibility.md, which touch points the OneTrainer of each of the last months has.

python tests/host/touch_point_table.py CHECKOUT [--write FILE]

Sources are read from git with `ast`, so that no commit needs an environment of its own.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

from wan_fixes.hosts.onetrainer.symbols import SourceSymbols
from wan_fixes.hosts.onetrainer.touch_points import PATCHES

MONTHS = 12
BEGIN, END = "<!-- touch points: begin -->", "<!-- touch points: end -->"


@dataclass(frozen=True)
class Commit:
    """An upstream commit, and the day it was made."""

    sha: str
    day: str

    @property
    def month(self) -> str:
        return self.day[:7]


def git(checkout: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(checkout), *arguments]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "TZ": "UTC"})
    return done.stdout.decode("utf-8", errors="replace") if done.returncode == 0 else None


def monthly_commits(checkout: Path) -> list[Commit]:
    """The newest commit of each of the latest months, the oldest first."""
    newest = head_of(checkout)
    year, month = (int(part) for part in newest.month.split("-"))
    commits = [newest]
    for _ in range(MONTHS - 1):
        first_day = date(year, month, 1)
        sha = git(checkout, "rev-list", "-1", "--first-parent", f"--before={first_day}T00:00:00+00:00", "HEAD")
        if not sha or not sha.strip():
            break
        commits.append(_commit(checkout, sha.strip()))
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
    return commits[::-1]


def head_of(checkout: Path) -> Commit:
    """What is checked out."""
    return _commit(checkout, "HEAD")


def _commit(checkout: Path, ref: str) -> Commit:
    told = git(checkout, "log", "-1", "--format=%h %cd", "--date=short-local", "--abbrev=8", ref)
    if told is None:
        raise SystemExit(f"there is no commit {ref} in {checkout}")
    sha, day = told.split()
    return Commit(sha, day)


def has_commit(checkout: Path, sha: str) -> bool:
    return git(checkout, "cat-file", "-e", f"{sha}^{{commit}}") is not None


def lacking(checkout: Path, sha: str) -> dict[str, list[str]]:
    """By touch point: what the OneTrainer of a commit lacks for it; empty where nothing is missing."""
    symbols = SourceSymbols(partial(_read, checkout, sha))
    return {patch.name: symbols.missing(patch) for patch in PATCHES}


def out_of_reach(checkout: Path, sha: str) -> dict[str, list[str]]:
    """The same, but for touch points that are another way to what one of the others reaches."""
    return SourceSymbols(partial(_read, checkout, sha)).lacking(PATCHES)


def _read(checkout: Path, sha: str, path: str) -> str | None:
    return git(checkout, "show", f"{sha}:{path}")


def table(checkout: Path, commits: list[Commit]) -> str:
    """The table in Markdown: one row for each commit, one column for each touch point, and what they are for."""
    found = {commit.sha: lacking(checkout, commit.sha) for commit in commits}
    lines = ["| | touch point | without it there is no … |", "|---|---|---|"]
    lines += [
        f"| {number} | {patch.name} (`{patch.module}`) | {patch.why} |" for number, patch in enumerate(PATCHES, 1)
    ]
    lines += ["", f"| OneTrainer | {' | '.join(str(number) for number in range(1, len(PATCHES) + 1))} |"]
    lines += ["|---" * (len(PATCHES) + 1) + "|"]
    for commit in commits:
        cells = ["no" if found[commit.sha][patch.name] else "yes" for patch in PATCHES]
        lines += [f"| {commit.sha} of {commit.day} | {' | '.join(cells)} |"]
    return "\n".join(lines)


def rows_in(text: str) -> dict[Commit, list[bool]]:
    """What a table says: by commit, whether each touch point is there."""
    rows = re.findall(r"^\| ([0-9a-f]{8}) of (\d{4}-\d\d-\d\d) \| (.*) \|$", text, flags=re.MULTILINE)
    return {Commit(sha, day): [cell == "yes" for cell in cells.split(" | ")] for sha, day, cells in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="a clone of OneTrainer with its history")
    parser.add_argument("--write", type=Path, help="a document that holds the markers of the table")
    arguments = parser.parse_args()
    text = table(arguments.checkout, monthly_commits(arguments.checkout))
    if arguments.write is None:
        sys.stdout.write(text + "\n")
        return
    document = arguments.write.read_text(encoding="utf-8")
    before, _, rest = document.partition(BEGIN)
    after = rest.partition(END)[2]
    arguments.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
