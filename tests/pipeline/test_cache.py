"""ValidatedDiskCache: nothing is made twice, nothing bad is kept, and captions stay with their clips."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from concurrent.futures import wait
from dataclasses import replace

import pytest
import torch

from wan_fixes.errors import CriticalError, SampleError, UserError
from wan_fixes.pipeline import CacheStats, fan_out
from wan_fixes.store.atomic import disk_error

from .toys import events_of, samples_of
from .world import NAN, World, concept_over, number_of, trained, write_sample


@pytest.fixture
def folder(tmp_path):
    for number in range(1, 7):
        write_sample(tmp_path / "clips", number)
    return tmp_path / "clips"


@pytest.fixture
def make(context, tmp_path, folder):
    """A world over the folder and one cache; a second call stands for a second start."""

    def make_world(**options):
        concept = concept_over(folder, **options.pop("concept", {}))
        fresh = replace(context, roster=type(context.roster)())
        return World(options.pop("context", fresh), tmp_path / "cache", options.pop("concepts", [concept]), **options)

    return make_world


ALL = Counter(range(1, 7))
ENCODED = [(number, 0) for number in range(1, 7)]


def test_every_sample_is_made_once_and_given_with_its_own_caption(make):
    world = make()
    for epoch in range(3):
        assert trained(world.epoch()) == ALL
        assert world.encoded() == ((ENCODED, ENCODED) if epoch == 0 else ([], []))


def test_a_second_start_encodes_nothing(make):
    make().epoch()
    second = make()
    assert trained(second.epoch()) == ALL
    assert second.encoded() == ([], [])
    stats = second.image_cache.get_cache_statistics()
    assert isinstance(stats, CacheStats)
    assert (stats.hit_rate, stats.miss_rate, stats.corruption_count, stats.total_items) == (1.0, 0.0, 0, 6)
    assert stats.cache_size_mb > 0 and stats.avg_access_time > 0


def test_where_another_process_fills_the_cache_what_is_not_in_it_is_left_out(make, context, folder):
    make().epoch()
    for number in (7, 8):
        write_sample(folder, number)
    follower = make(context=replace(context, roster=type(context.roster)(), fills_cache=False))
    for _ in range(2):
        assert trained(follower.epoch()) == ALL
        assert follower.encoded() == ([], [])
    make().epoch()  # the other process has them now
    assert trained(follower.epoch()) == Counter(range(1, 9))


def test_models_are_made_ready_once_and_only_when_something_is_to_be_encoded(make):
    for expected in (1, 0):
        world = make()
        calls = []
        world.image_cache.before_cache_fun = lambda calls=calls: calls.append("vae")
        world.epoch()
        assert len(calls) == expected


def test_many_threads_give_what_one_gives(make):
    one = {number_of(sample): sample["latent_image"].tolist() for sample in make().epoch()}
    many = {number_of(sample): sample["latent_image"].tolist() for sample in make(threads=8).epoch()}
    assert one == many


def test_tensors_come_back_on_the_pipelines_device_and_values_as_they_were(make):
    make().epoch()
    [sample] = [sample for sample in make(buckets=3).epoch() if number_of(sample) == 5]
    assert sample["crop_resolution"] == (1, 66)
    assert sample["latent_image"].dtype == torch.float32


# Samples that fail

FAULTS = {
    "an error of ours": lambda: SampleError("broken", fix="mend it", module="vae"),
    "a foreign error": lambda: ValueError("broken"),
    "nothing": lambda: "none",
    "NaN": lambda: NAN,
    "no element": lambda: torch.zeros(0),
    "what cannot be stored": lambda: object(),
}


@pytest.mark.parametrize("stage", ["image", "text"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_sample_that_cannot_be_made_is_named_and_the_others_are_trained(make, context, stage, fault):
    world = make(**{f"{stage}_fault": lambda number, variation: FAULTS[fault]() if number == 3 else None})
    for _ in range(2):
        assert trained(world.epoch()) == ALL - Counter([3])
    [record] = samples_of(context).values()
    assert record.path.endswith("clip3.num")
    assert record.reason and record.module and record.fix
    failed = world.encoded()[stage == "text"]
    assert failed.count((3, 0)) == 1, "what failed is not tried again in the same run"


@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("place", [1, 1_000_001, -1])
def test_one_nan_in_a_big_tensor_is_found_before_it_is_cached_or_trained(make, context, caching, place):
    """The guards look at a sample of its values only; cache and sorting look at all."""
    tensor = torch.zeros(3, 9, 240, 416)
    tensor.view(-1)[place] = float("nan")
    world = make(image_fault=lambda number, variation: tensor if number == 3 else None, caching=caching, guards=True)
    assert trained(world.epoch()) == ALL - Counter([3])
    [record] = samples_of(context).values()
    assert record.path.endswith("clip3.num")
    assert f"1 of {tensor.numel()} values that are NaN or infinite" in record.reason
    assert record.module == ("ValidatedDiskCache" if caching else "SafeVariationSorting")


def test_a_sample_that_failed_is_tried_again_by_the_next_start(make):
    world = make(image_fault=lambda number, variation: NAN if number == 3 else None)
    world.epoch()
    mended = make()
    assert trained(mended.epoch()) == ALL
    assert mended.encoded() == ([(3, 0)], [(3, 0)])


def test_what_concerns_all_samples_ends_the_caching_and_keeps_what_is_done(make):
    def fault(number, variation):
        return OSError(errno.ENOSPC, "no space left") if number == 4 else None

    world = make(image_fault=fault)
    with pytest.raises(CriticalError, match="no space left"):
        world.epoch()
    again = make()
    assert trained(again.epoch()) == ALL
    redone = {number for number, _ in again.encoded()[0]}
    assert 4 in redone and not redone & {1, 2, 3}


def test_a_sample_that_lacks_memory_is_made_again_with_fewer_others_and_skipped_only_then(make):
    attempts = Counter()

    def fault(number, variation):
        attempts[number] += 1
        return MemoryError("no memory left") if number == 4 or (number == 2 and attempts[2] < 2) else None

    world = make(image_fault=fault)
    assert trained(world.epoch()) == ALL - Counter([4])
    assert attempts[2] == 2 and attempts[4] > 1 and world.context.recovery.policy.max_threads == 1


def test_when_no_sample_is_left_it_says_why(make):
    world = make(image_fault=lambda number, variation: SampleError("broken", reason=f"reason {number % 2}"))
    with pytest.raises(UserError, match="3 times: reason") as caught:
        world.epoch()
    assert "no usable sample is left" in str(caught.value)
    assert "wan check" in caught.value.fix


def test_a_concept_that_is_switched_off_is_no_empty_epoch(make, folder, tmp_path):
    write_sample(tmp_path / "other", 8)
    world = make(concepts=[concept_over(folder, enabled=False), concept_over(tmp_path / "other")])
    assert trained(world.epoch()) == Counter([8])


def test_a_sample_may_fail_in_a_later_variation_only(make, context):
    """With two variations a sample is encoded twice; the second time it may fail."""
    fault = lambda number, variation: NAN if (number, variation) == (2, 1) else None  # noqa: E731
    world = make(concept={"image_variations": 2, "text_variations": 3}, image_fault=fault)
    assert trained(world.epoch()) == ALL
    for _ in range(4):
        assert trained(world.epoch()) == ALL - Counter([2])
    [path] = samples_of(context)
    assert path.endswith("clip2.num")


def test_samples_that_come_round_only_because_others_failed_are_made_too(make):
    """Six samples of six files are one variation of each; when one file fails they reach into the second variation."""
    threads = set()

    def fault(number, variation):
        threads.add(threading.current_thread())
        return SampleError("broken") if number == 1 else None

    for stage in ("image", "text"):
        options = {"balancing": 6.0, "balancing_strategy": "SAMPLES", "image_variations": 7, "text_variations": 7}
        world = make(concept=options, **{f"{stage}_fault": fault})
        seen = [trained(world.epoch()) for _ in range(5)]
        assert [sum(counts.values()) for counts in seen] == [6] * 5
        assert sum(seen, Counter()) == Counter(dict.fromkeys(range(2, 7), 6))
        if stage == "image":
            assert threading.current_thread() not in threads, (
                "made by the loader threads, while models are ready for it"
            )


# Interruptions


def test_ctrl_c_while_caching_keeps_what_is_done(make):
    def fault(number, variation):
        return KeyboardInterrupt() if number == 4 else None

    with pytest.raises(KeyboardInterrupt):
        make(image_fault=fault).epoch()
    again = make()
    assert trained(again.epoch()) == ALL
    redone = {number for number, _ in again.encoded()[0]}
    assert 4 in redone and not redone & {1, 2, 3}


def test_ctrl_c_in_the_main_thread_ends_the_caching_at_once(make, monkeypatch):
    """It arrives while the main thread waits for the loader threads."""
    waits = []

    def interrupted(pending, **options):
        waits.append(len(pending))
        if len(waits) == 3:
            raise KeyboardInterrupt
        return wait(pending, **options)

    monkeypatch.setattr(fan_out, "wait", interrupted)
    world = make(threads=1)
    with pytest.raises(KeyboardInterrupt):
        world.epoch()
    monkeypatch.undo()
    done = {number for number, _ in world.encoded()[0]}
    assert 2 <= len(done) <= 4, "what was begun is finished, and nothing more is begun"
    again = make()
    assert trained(again.epoch()) == ALL
    assert {number for number, _ in again.encoded()[0]} == set(range(1, 7)) - done


# Damage


def entries(cache):
    return sorted(cache.store.folder.glob("entries/*/*.safetensors"))


def damage(path):
    """Flip the last byte: it belongs to a tensor."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone"])
def test_a_damaged_entry_is_made_again_in_the_middle_of_an_epoch(make, how):
    make().epoch()
    world = make()
    world.pipeline.start_next_epoch()
    path = entries(world.image_cache)[0]
    if how == "flipped":
        damage(path)
    elif how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3] if how == "cut" else b"")
    assert trained(list(world.pipeline)) == ALL
    assert len(world.encoded()[0]) == 1
    assert world.image_cache.get_cache_statistics().corruption_count == (how != "gone")
    third = make()
    assert trained(third.epoch()) == ALL
    assert third.encoded() == ([], [])


def test_two_entries_that_were_swapped_are_noticed(make):
    make().epoch()
    world = make()
    first, second = entries(world.image_cache)[:2]
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    assert trained(world.epoch()) == ALL
    assert len(world.encoded()[0]) == 2


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_an_entry_that_cannot_be_made_again_is_replaced_by_a_placeholder(make, folder, context, batch_size):
    make().epoch()
    world = make(batch_size=batch_size)
    world.pipeline.start_next_epoch()
    (folder / "clip3.num").unlink()
    [lost] = [
        path for path in entries(world.image_cache) if world.image_cache.store.get(path.stem)["latent_image"][0] == 3
    ]
    damage(lost)

    samples = list(world.pipeline)
    assert trained(samples) == ALL - Counter([3])
    assert len(samples) % batch_size == 0
    placeholders = [sample for sample in samples if sample["loss_weight"] == 0]
    assert len(placeholders) == len(samples) - 5
    assert all(torch.isfinite(sample["latent_image"]).all() for sample in placeholders)
    assert all(number_of(sample) != 3 for sample in placeholders)
    assert [path for path in samples_of(context) if path.endswith("clip3.num")]

    after = world.epoch()
    assert trained(after) == ALL - Counter([3]), "the next epoch goes on without it"


def test_a_placeholder_leaves_the_concept_of_its_siblings_alone(make, folder):
    concept = concept_over(folder)
    world = make(concepts=[concept], batch_size=4)
    weights = Counter(float(sample["loss_weight"]) for sample in world.epoch())
    assert weights == {1.0: 6, 0.0: 2}
    assert concept["loss_weight"] == 1.0
    assert Counter(float(sample["loss_weight"]) for sample in world.epoch()) == weights


def test_when_the_cache_can_no_longer_be_written_the_epoch_goes_on(make, monkeypatch, context):
    make().epoch()
    world = make()
    world.pipeline.start_next_epoch()
    damage(entries(world.image_cache)[0])

    def full(key, item):
        raise CriticalError("cache cannot be written", path="cache", reason="the disk is full")

    monkeypatch.setattr(world.image_cache.store, "put", full)
    assert trained(list(world.pipeline)) == ALL
    assert "the disk is full" in samples_of(context, "warning")["cache"].reason


def test_a_full_disk_ends_the_caching(make, monkeypatch):
    world = make()

    def full(key, item):
        raise CriticalError("cache cannot be written", path="cache", reason="the disk is full")

    monkeypatch.setattr(world.image_cache.store, "put", full)
    with pytest.raises(CriticalError, match="the disk is full"):
        world.epoch()


@pytest.mark.parametrize("fit", [0, 4])
def test_with_a_full_disk_the_run_can_go_on_uncached(make, monkeypatch, contexts, fit):
    context = contexts.new(full_disk="uncached")
    world = make(context=context)
    put, stored = world.image_cache.store.put, []

    def full_after(key, item):
        if len(stored) >= fit:
            raise disk_error(OSError(errno.ENOSPC, "no space left"), world.image_cache.store.root, 1000)
        stored.append(key)
        return put(key, item)

    monkeypatch.setattr(world.image_cache.store, "put", full_after)
    assert trained(world.epoch()) == ALL
    (warning,) = samples_of(context, "warning").values()
    assert "the disk is full" in warning.reason and "free some space" in warning.fix
    assert len(entries(world.image_cache)) == fit
    world.encoded()[0].clear()
    monkeypatch.setattr(world.image_cache.store, "put", put)
    assert trained(world.epoch()) == ALL and len(entries(world.image_cache)) == 6, "with room, the rest is cached"
    assert len(world.encoded()[0]) == 6 - fit


def test_handle_cache_corruption_sets_an_entry_aside(make, context):
    make().epoch()
    world = make()
    world.pipeline.start_next_epoch()
    path = entries(world.image_cache)[0]
    assert world.image_cache.handle_cache_corruption(str(path))
    assert not path.exists()
    assert events_of(context, "cache_corruption")[0].facts == {"key": path.stem}
    assert not world.image_cache.handle_cache_corruption("/etc/passwd")
    assert trained(list(world.pipeline)) == ALL


def test_validate_cache_item(make):
    cache = make().image_cache
    good = {"latent_image": torch.zeros(2), "crop_resolution": (1, 2)}
    assert cache.validate_cache_item(good)
    for bad in ({}, {"crop_resolution": (1, 2)}, {**good, "latent_image": NAN}, {**good, "crop_resolution": None}):
        assert not cache.validate_cache_item(bad)


# Several at once


def test_two_pipelines_share_a_cache(make, contexts, tmp_path):
    """Like training and validation, or two runs at a time: both end well, and what one has made the other finds."""
    worlds = [make(context=contexts.new()) for _ in range(2)]
    results = [None, None]

    def run(place):
        results[place] = [trained(worlds[place].epoch()) for _ in range(2)]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[ALL, ALL]] * 2
    third = make()
    assert trained(third.epoch()) == ALL
    assert third.encoded() == ([], [])


def test_equal_files_share_an_entry_and_are_both_trained(make, folder):
    write_sample(folder, 2, name="copy of 2")
    world = make()
    assert trained(world.epoch()) == ALL + Counter([2])
    assert world.encoded() == (ENCODED, ENCODED)
    again = make()
    again.epoch()
    assert again.context.metrics.snapshot()["cache_hits"] == 2 * 7, "samples are counted, not entries"


def test_of_equal_files_one_that_can_be_read_is_enough(make, folder):
    write_sample(folder, 2, name="a copy of 2")
    calls = Counter()

    def fault(number, variation):
        calls[number] += 1
        return SampleError("a hiccup") if number == 2 and calls[2] == 1 else None

    world = make(image_fault=fault)
    assert trained(world.epoch()) == ALL + Counter([2])


def test_many_damaged_entries_raise_an_alert_and_a_single_one_does_not(make, tmp_path):
    make().epoch()
    entries = sorted((tmp_path / "cache" / "image").rglob("*.safetensors"))
    for damaged in (1, len(entries)):
        for entry in entries[:damaged]:
            entry.write_bytes(b"damaged")
        world = make()
        world.epoch()
        warned = [record.reason for record in samples_of(world.context, "warning").values()]
        assert any("many entries of the cache are damaged" in reason for reason in warned) == (damaged > 1)
        assert world.image_cache.get_cache_statistics().corruption_count == damaged
