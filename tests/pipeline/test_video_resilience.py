"""Property 4 of the seed document: whatever files a folder holds, the good are trained and the bad are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media.corpus import CASES, Begins, Case, Either, Rejected, Serves, make

from .test_corpus import FRAMES, is_right, may_be_skipped, validated
from .toys import concept_of, samples_of
from .world import make_pipeline

#: Cases that are one regular file, which keeps its meaning under another name.
_MOVABLE = (Serves, Begins, Either, Rejected)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, tuple[Case, Path]]:
    """Every case of a video that is a file like any other, by its name."""
    folder = tmp_path_factory.mktemp("videos")
    made = {}
    for case in CASES:
        path = make(case, folder) if isinstance(case.truth, _MOVABLE) else None
        if path is not None and path.is_file() and not path.is_symlink() and case.name.isascii():
            made[case.name] = case, path
    return made


@st.composite
def folders(draw, names: list[str]) -> dict[str, str]:
    """Name of a file -> name of its case: any mix, in any order, some of them several times."""
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=6))
    stems = draw(
        st.lists(
            st.text("abcXYZ019 _-é日", min_size=1, max_size=8).filter(lambda stem: stem == stem.strip()),
            min_size=len(chosen), max_size=len(chosen), unique_by=str.casefold,
        )
    )  # fmt: skip
    return dict(zip(stems, chosen, strict=True))


def _outcomes(videos, contexts, tmp_path: Path, chosen: dict[str, str]) -> list[str]:
    """What is wrong with what became of each file; nothing is when the property holds."""
    folder = tmp_path / f"folder{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    cases: dict[str, Case] = {}
    for stem, name in chosen.items():
        case, source = videos[name]
        path = folder / f"{stem}{source.suffix}"
        shutil.copyfile(source, path)
        cases[str(path)] = case
    concept = concept_of(path=str(folder), include_subdirectories=True)
    with contexts.new_files(folder.with_suffix(".files"), decode_deadline_seconds=5) as context:
        pipeline = make_pipeline([concept], validated(context, None), {"frames": str(FRAMES)})
        try:
            pipeline.start_next_epoch()
            samples = list(pipeline)
        except Exception as error:
            if type(error).__name__ != "NothingUsableError":
                raise
            samples = []
        trained = {sample["image_path"]: sample for sample in samples if sample["loss_weight"] > 0}
        records = samples_of(context)
    faults = []
    for path, case in cases.items():
        sample, record = trained.get(path), records.get(path)
        if (sample is None) == (record is None):
            faults.append(f"{case.name}: neither trained nor named, or both")
        elif not (is_right(case, sample, None) if sample is not None else may_be_skipped(case, record)):
            faults.append(f"{case.name}: {record.reason if record else 'wrong frames'}")
    return faults


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_property_4_good_videos_are_trained_and_bad_ones_skipped_with_a_reason(videos, contexts, tmp_path, data):
    """Feature: wan-training-pipeline-fixes, Property 4: Video Processing Resilience"""
    assert _outcomes(videos, contexts, tmp_path, data.draw(folders(sorted(videos)))) == []


@pytest.mark.full
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_property_4_over_many_folders(videos, contexts, tmp_path, data):
    """Feature: wan-training-pipeline-fixes, Property 4: Video Processing Resilience"""
    assert _outcomes(videos, contexts, tmp_path, data.draw(folders(sorted(videos)))) == []
