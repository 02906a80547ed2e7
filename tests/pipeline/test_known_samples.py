"""What a cache knows from the last start: unchanged samples are not looked at, changed ones are, none need be there."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from wan_fixes.errors import NothingUsableError
from wan_fixes.store import ContentIds, SampleStore
from wan_fixes.store.archive import export, import_
from wan_fixes.store.manifest import manifest_files

from .toys import Contexts, events_of
from .world import Step, World, age, concept_over, number_in, trained, write_sample

TEXTS = ("hidden", "prompt")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number in range(1, 6):
        write_sample(tmp_path / "clips", number)
    age(tmp_path / "clips")
    return tmp_path / "clips"


@pytest.fixture
def make(contexts: Contexts, clips: Path, tmp_path: Path) -> Any:
    def world(*concepts: dict[str, Any], cache: Path | None = None, **options: Any) -> World:
        return World(
            contexts.new(), cache or tmp_path / "cache", list(concepts) or [concept_over(clips)],
            text_names=TEXTS, **options,
        )  # fmt: skip

    return world


def asked(monkeypatch: pytest.MonkeyPatch, world: World) -> list[str]:
    """The samples of which a file's content was asked for while the epoch started."""
    paths: list[str] = []
    real = ContentIds.of

    def of(self: ContentIds, path: Any) -> str:
        paths.append(Path(path).stem)
        return real(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(ContentIds, "of", of)
        world.pipeline.start_next_epoch()
    return sorted(set(paths))


def lists(cache: Path) -> list[Path]:
    return [
        path for store in ("image", "text") for path in manifest_files(cache / store / "samples" / "v1" / "manifests")
    ]


def test_what_is_unchanged_is_not_looked_at_again(make, monkeypatch, clips):
    make().epoch()
    world = make()
    monkeypatch.setattr(SampleStore, "present", lambda self, keys: dict.fromkeys(keys, "asked"))
    assert asked(monkeypatch, world) == []
    samples = list(world.pipeline)
    assert trained(samples) == trained(make(caching=False).epoch())
    assert world.encoded() == ([], [])


@pytest.mark.parametrize("suffix", [".num", ".txt", "-masklabel.png"])
def test_a_change_in_one_sample_is_seen_and_the_others_are_not_looked_at(make, monkeypatch, clips, suffix):
    make().epoch()
    (clips / f"clip3{suffix}").write_text("caption 3" if suffix == ".txt" else "3")
    world = make()
    assert asked(monkeypatch, world) == ["clip3"]
    assert world.encoded() == ([], [])  # it was touched, and holds what it held


def test_what_changed_just_now_is_looked_at_until_it_is_older(make, monkeypatch, clips):
    write_sample(clips, 6)
    make().epoch()
    assert asked(monkeypatch, make()) == ["clip6"]
    age(clips)
    assert len(asked(monkeypatch, make())) == 6  # all have other times now
    assert asked(monkeypatch, make()) == []


def test_new_and_gone_samples_leave_the_others_alone(make, monkeypatch, clips):
    make().epoch()
    write_sample(clips, 6)
    (clips / "clip5.num").unlink()
    world = make()
    assert asked(monkeypatch, world) == ["clip6"]
    assert trained(list(world.pipeline)).keys() == {1, 2, 3, 4, 6}
    assert world.encoded() == ([(6, 0)], [(6, 0)])


def test_other_settings_are_another_list(make, monkeypatch, tmp_path):
    make().epoch()
    world = make(settings={"target_resolution": 128})
    world.epoch()
    assert len(world.encoded()[0]) == 5
    assert len(lists(tmp_path / "cache")) == 3  # two of images; the settings do not shape texts
    assert asked(monkeypatch, make(settings={"target_resolution": 128})) == []
    assert asked(monkeypatch, make()) == []


def test_a_variation_that_is_not_known_is_made(make, clips):
    concept = concept_over(clips, image_variations=2)
    make(concept).epoch()
    world = make(concept, epoch=1)
    world.epoch()
    assert world.encoded() == ([(number, 1) for number in range(1, 6)], [])
    world = make(concept)
    world.epoch()
    world.epoch()
    assert world.encoded() == ([], [])


def test_a_file_in_quarantine_is_not_trained_on_though_it_is_known(contexts, clips, tmp_path):
    concepts = [concept_over(clips)]
    with contexts.new_files(tmp_path / "files") as context:
        World(context, tmp_path / "cache", concepts).epoch()
        context.quarantine.add(clips / "clip2.num", context.content_id(str(clips / "clip2.num")), "bad", "test")
        world = World(context, tmp_path / "cache", concepts)
        assert trained(world.epoch()).keys() == {1, 3, 4, 5}
    with contexts.new_files(tmp_path / "files") as context:
        assert trained(World(context, tmp_path / "cache", concepts).epoch()).keys() == {1, 3, 4, 5}


def test_an_entry_that_is_gone_or_cut_is_made_again(make, tmp_path):
    make().epoch()
    entries = sorted((tmp_path / "cache" / "image").rglob("*.safetensors"))
    entries[0].unlink()
    entries[1].write_bytes(entries[1].read_bytes()[:-1])
    world = make()
    assert len(trained(world.epoch())) == 5
    assert len(world.encoded()[0]) == 2


@pytest.mark.parametrize("damage", [bytes, lambda data: data[:-1], lambda data: data.replace(b"clip1", b"clip9"), len])
def test_a_damaged_list_is_made_anew(make, tmp_path, damage):
    make().epoch()
    for path in lists(tmp_path / "cache"):
        path.write_bytes(b"" if damage is len else damage(path.read_bytes()))
    world = make()
    assert len(trained(world.epoch())) == 5
    assert world.encoded() == ([], [])


def test_modules_that_may_give_something_else_each_time_are_asked_each_time(make, monkeypatch, tmp_path):
    monkeypatch.delattr(Step, "CACHE_VERSION")
    make().epoch()
    assert lists(tmp_path / "cache") == []
    assert len(asked(monkeypatch, make())) == 5


def test_files_that_go_by_another_name_are_read_each_time(contexts, clips, tmp_path, monkeypatch):
    """Nothing is known of them, so nothing tells that they are as they were."""
    (clips / "all.txt").write_text("caption 7")
    age(clips)

    def world() -> World:
        made = World(contexts.new(), tmp_path / "cache", [concept_over(clips)])
        step = next(module for module in made.modules if getattr(module, "out_name", "") == "caption_path")
        step._work = lambda path, variation: str(clips / "all.txt")
        return made

    world().epoch()
    (clips / "all.txt").write_text("caption 8")
    again = world()
    again.epoch()
    assert again.encoded() == ([], [(8, 0)])


def test_a_list_of_prompts_that_changed_is_read_again(contexts, clips, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("caption 7")
    age(tmp_path)

    def epoch() -> World:
        concept = concept_over(clips, text={"prompt_path": str(prompts)})
        world = World(contexts.new(), tmp_path / "cache", [concept], caption_path="concept.text.prompt_path")
        world.epoch()
        return world

    assert epoch().encoded()[1] == [(7, 0)]
    assert epoch().encoded()[1] == []
    prompts.write_text("caption 8")
    assert epoch().encoded()[1] == [(8, 0)]


class Tag(Step):
    """Puts what a file of tags holds before a prompt, as stock `DropTags` reads one that its settings name."""

    def __init__(self) -> None:
        super().__init__("prompt", "prompt", lambda text, variation: text)
        self.tags_in_name = "concept.text.tags"

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        text = self._get_previous_item(variation, "prompt", index)
        tags = self._get_previous_item(variation, self.tags_in_name, index)
        return {"prompt": f"{Path(tags).read_text(encoding='utf-8')} {text}"}


def test_a_file_of_tags_that_changed_is_read_again(contexts, clips, tmp_path):
    tags = tmp_path / "tags.txt"
    tags.write_text("blue", encoding="utf-8")
    age(tmp_path)

    def prompts() -> set[str]:
        concept = concept_over(clips, text={"tags": str(tags)})
        world = World(contexts.new(), tmp_path / "cache", [concept], text_names=TEXTS, after_captions=[Tag()])
        return {sample["prompt"].split()[0] for sample in world.epoch()}

    assert prompts() == prompts() == {"blue"}
    tags.write_text("green", encoding="utf-8")
    assert prompts() == {"green"}


# Without sources


def carry(cache: Path, to: Path) -> Path:
    """The caches, as they come to another machine."""
    with ExitStack() as stack:

        def opened(folder: Path) -> SampleStore:
            return stack.enter_context(SampleStore(folder))

        stores = {f"{name}/samples": opened(cache / name / "samples") for name in ("image", "text")}
        export(stores, to.with_suffix(".tar"))
        result = import_(to.with_suffix(".tar"), lambda name: opened(to / name))
    assert result.refused == []
    return to


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    def parts(samples: list[dict[str, Any]]) -> list[Any]:
        found = [
            (Path(s["image_path"]).name, s["prompt"], s["crop_resolution"], s["latent_image"], s["hidden"])
            for s in samples
        ]
        return sorted(found, key=lambda part: part[0])

    pairs = list(zip(parts(one), parts(other), strict=True))
    return all(a[:3] == b[:3] and torch.equal(a[3], b[3]) and torch.equal(a[4], b[4]) for a, b in pairs)


def test_a_cache_trains_where_its_sources_are_not(make, clips, tmp_path):
    first = make().epoch()
    cache = carry(tmp_path / "cache", tmp_path / "carried")
    elsewhere = concept_over(tmp_path / "another machine" / "clips")
    world = make(elsewhere, cache=cache)
    assert same(world.epoch(), first)
    assert world.encoded() == ([], [])
    (event,) = events_of(world.context, "sources_missing")
    assert "5 samples are taken from the cache" in event.message
    assert same(make(elsewhere, cache=cache).epoch(), first)


def test_a_list_from_elsewhere_says_nothing_of_other_files_here(make, clips, tmp_path):
    """Neither of one that both know, nor of one that is not known here."""
    make().epoch()
    away = carry(tmp_path / "cache", tmp_path / "away")
    shutil.rmtree(tmp_path / "cache")
    for number in (1, 2):
        write_sample(clips, number, caption=f"another caption {number}")
    for number in (2, 4):
        (clips / f"clip{number}.num").rename(tmp_path / f"clip{number}.num")
    age(clips)
    make().epoch()
    for number in (2, 4):
        (tmp_path / f"clip{number}.num").rename(clips / f"clip{number}.num")
    write_sample(clips, 4, caption="another caption 4")
    age(clips)
    make().epoch()
    for part in ("image", "text"):  # 4 is known here by its row only
        with SampleStore(tmp_path / "cache" / part / "samples") as here, SampleStore(away / part / "samples") as there:
            assert {identity for identity, _ in here.manifests()} == {identity for identity, _ in there.manifests()}
    carry(away, tmp_path / "cache")
    assert same(make().epoch(), make(caching=False).epoch())


def test_a_folder_of_ones_own_that_is_not_there_is_a_mistake(make, clips):
    make().epoch()
    shutil.rmtree(clips)
    assert make().epoch() == []


def test_what_was_carried_is_not_taken_for_another_concept(make, clips, tmp_path):
    make().epoch()
    cache = carry(tmp_path / "cache", tmp_path / "carried")
    assert make(concept_over(tmp_path / "dogs"), cache=cache).epoch() == []


def test_also_what_was_new_when_it_was_cached(make, clips, tmp_path):
    write_sample(clips, 6)
    first = make().epoch()
    cache = carry(tmp_path / "cache", tmp_path / "carried")
    shutil.rmtree(clips)
    assert same(make(cache=cache).epoch(), first)


def test_one_folder_that_is_there_and_one_that_is_not(make, clips, tmp_path):
    for number in (11, 12):
        write_sample(tmp_path / "more", number)
    age(tmp_path / "more")
    concepts = concept_over(clips), concept_over(tmp_path / "more")
    first = make(*concepts).epoch()
    cache = carry(tmp_path / "cache", tmp_path / "carried")
    shutil.rmtree(tmp_path / "more")
    write_sample(clips, 6)
    world = make(*concepts, cache=cache)
    samples = world.epoch()
    assert same([sample for sample in samples if sample["name"] == "more"], [s for s in first if s["name"] == "more"])
    assert {int(sample["latent_image"][0]) for sample in samples} == {1, 2, 3, 4, 5, 6, 11, 12}
    assert world.encoded() == ([(6, 0)], [(6, 0)])


def test_without_sources_and_for_other_settings_nothing_can_be_trained(make, clips, tmp_path):
    make().epoch()
    cache = carry(tmp_path / "cache", tmp_path / "carried")
    shutil.rmtree(clips)
    with pytest.raises(NothingUsableError, match="No such file"):
        make(settings={"target_resolution": 128}, cache=cache).epoch()


def test_an_entry_that_is_lost_without_its_source_is_named(make, clips, tmp_path):
    make().epoch()
    cache = carry(tmp_path / "cache", tmp_path / "carried")
    shutil.rmtree(clips)
    entries = sorted((cache / "image").rglob("*.safetensors"))
    entries[0].unlink()
    samples = make(cache=cache).epoch()
    assert len({sample["image_path"] for sample in samples}) == 4
    for entry in entries[1:]:
        entry.unlink()
    with pytest.raises(NothingUsableError):
        make(cache=cache).epoch()


def test_the_path_of_a_sample_is_that_of_its_file_now(make, clips, tmp_path):
    make().epoch()
    moved = clips.rename(tmp_path / "moved")
    world = make(concept_over(moved))
    assert {number_in(sample["image_path"]) for sample in world.epoch()} == {1, 2, 3, 4, 5}
    assert world.encoded() == ([], [])
