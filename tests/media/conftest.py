"""Clips for all tests of the media room, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import BrokenTruth, ClipTruth, make_broken_files, make_good_clips


@pytest.fixture(scope="session")
def good_clips(tmp_path_factory: pytest.TempPathFactory) -> list[ClipTruth]:
    return make_good_clips(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="session")
def broken_files(tmp_path_factory: pytest.TempPathFactory) -> list[BrokenTruth]:
    return make_broken_files(tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For clips that one test makes and examples of that test share."""
    return tmp_path_factory.mktemp("clips")
