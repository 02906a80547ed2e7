"""RobustTemporalVAE with the real AutoencoderKLWan: many threads give what one gives, and no NaN gets through."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch

from wan_fixes.errors import CriticalError, SampleError
from wan_fixes.health import total
from wan_fixes.pipeline import RobustTemporalVAE, SafeVariationSorting, ValidatedDiskCache
from wan_fixes.pipeline.base import ENGINE
from wan_fixes.pipeline.vae_lock import vae_lock

from .toys import Collector, RandomAccess, build, concept_of, output, samples_of, started
from .world import LoadNumber, Step, number_in, write_sample

CLIPS = 12


@pytest.fixture(scope="module")
def vae():
    from tiny_wan import make_vae

    torch.manual_seed(0)
    return make_vae()


def clip_of(number, frames=5):
    return torch.rand(3, frames, 32, 32, generator=torch.Generator().manual_seed(number)) * 2 - 1


class LoadClip(LoadNumber):
    """A clip that follows from the number in a file."""

    def get_item(self, variation, index, requested_name=None):
        [number] = super().get_item(variation, index, requested_name).values()
        return {self.out_name: clip_of(int(number))}


def encoder_of(vae, context, **options):
    return [
        RobustTemporalVAE("image", "distribution", vae, context=context, **options),
        Step("distribution", "latent_image", lambda distribution, variation: distribution.mode()[0]),
    ]


def cached_epoch(vae, context, folder, cache_dir, *, threads):
    """Number -> latent of every clip in the folder, encoded by so many threads."""
    paths = sorted(map(str, folder.glob("*.num")))
    pipeline = build(
        Collector([concept_of()] * len(paths), paths),
        LoadClip("image_path", "image"),
        *encoder_of(vae, context),
        ValidatedDiskCache(str(cache_dir), ["latent_image"], ["image_path"], context=context),
        SafeVariationSorting(["concept"], context=context),
        output("image_path", "latent_image"),
        threads=threads,
    )
    pipeline.start_next_epoch()
    return {number_in(sample["image_path"]): sample["latent_image"] for sample in pipeline}


def test_latents_of_many_threads_are_those_of_one_bit_for_bit(vae, contexts, tmp_path):
    """Without the lock about fifteen of sixteen come out wrong: the VAE keeps the features of the frame before."""
    for number in range(CLIPS):
        write_sample(tmp_path / "clips", number)
    one = cached_epoch(vae, contexts.new(), tmp_path / "clips", tmp_path / "one", threads=1)
    many = cached_epoch(vae, contexts.new(), tmp_path / "clips", tmp_path / "many", threads=4)
    assert one.keys() == many.keys() == set(range(CLIPS))
    for number in range(CLIPS):
        assert one[number].shape == (16, 2, 4, 4)
        assert torch.equal(one[number], many[number])
        with torch.no_grad():
            alone = vae.encode(clip_of(number)[None]).latent_dist.mode()[0]
        assert torch.equal(one[number], alone)


def test_other_weights_are_another_cache(vae, contexts, tmp_path):
    from tiny_wan import make_vae

    write_sample(tmp_path / "clips", 1)
    first = cached_epoch(vae, contexts.new(), tmp_path / "clips", tmp_path / "cache", threads=1)
    torch.manual_seed(1)
    other = make_vae()
    context = contexts.new()
    second = cached_epoch(other, context, tmp_path / "clips", tmp_path / "cache", threads=1)
    assert not torch.equal(first[1], second[1])
    assert context.metrics.snapshot()["cache_misses"] == 1


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_it_gives_the_distribution_with_a_batch_dimension_as_mgds_does(vae, context, frames):
    source = RandomAccess(lambda module, variation, index, name: {name: clip_of(3, frames)}, ("image",), "image_path")
    reader = started(Collector([concept_of()]), source, *encoder_of(vae, context))
    mean = reader.read("distribution", 0).mode()
    assert mean.shape == (1, 16, 1 + (frames - 1) // 4, 4, 4)
    assert torch.equal(reader.read("latent_image", 0), mean[0])
    assert not mean.requires_grad


@pytest.mark.skipif(ENGINE != "mgds", reason="the stock class comes with mgds, which is not importable here")
def test_it_gives_what_the_stock_module_gives(vae, context):
    from mgds.pipelineModules.EncodeVAE import EncodeVAE

    source = RandomAccess(lambda module, variation, index, name: {name: clip_of(3)}, ("image",), "image_path")
    stock = EncodeVAE("image", "distribution", vae, [torch.autocast("cpu", enabled=False)], torch.float32)
    ours = encoder_of(vae, context, autocast_contexts=[torch.autocast("cpu", enabled=False)], dtype=torch.float32)
    expected = started(Collector([concept_of()]), source, stock, ours[1]).read("latent_image", 0)
    assert torch.equal(started(Collector([concept_of()]), source, *ours).read("latent_image", 0), expected)


def one_nan():
    clip = clip_of(1)
    clip[1, 2, 3, 4] = float("nan")
    return clip


BAD_PICTURES = {
    "NaN": torch.full((3, 5, 32, 32), float("nan")),
    "one NaN": one_nan(),
    "infinite": torch.full((3, 5, 32, 32), float("inf")),
    "nothing": torch.zeros(3, 0, 32, 32),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_a_bad_picture_is_never_encoded(context, kind):
    vae = SimpleNamespace(parameters=lambda: iter([torch.zeros(1)]), encode=lambda picture: pytest.fail("encoded"))
    source = RandomAccess(lambda module, variation, index, name: {name: BAD_PICTURES[kind]}, ("image",), "image_path")
    with pytest.raises(SampleError, match=r"'image' (has|is)") as caught:
        started(Collector([concept_of()]), source, *encoder_of(vae, context)).read("distribution", 0)
    assert caught.value.module == "RobustTemporalVAE"


class Vae(torch.nn.Module):
    """A stand-in that can fail: what matters here is what is done about it."""

    def __init__(self, encode):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.encode = encode


def distribution(mean):
    return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: mean))


def read_from(vae, context, count=1):
    source = RandomAccess(lambda module, variation, index, name: {name: clip_of(index)}, ("image",), "image_path")
    module = RobustTemporalVAE("image", "distribution", vae, context=context)
    return started(Collector([concept_of()] * count), source, module)


@pytest.mark.parametrize("mean", [torch.tensor([float("nan"), 1.0]), torch.tensor([float("inf")]), torch.zeros(0)])
def test_a_latent_that_is_not_finite_is_refused_with_a_hint(context, mean):
    with pytest.raises(SampleError, match="unusable latent") as caught:
        read_from(Vae(lambda picture: distribution(mean)), context).read("distribution", 0)
    assert "float32 [3, 5, 32, 32]" in caught.value.reason
    assert "float 32" in caught.value.fix


def test_a_latent_without_a_distribution_is_taken_as_it_is(context):
    vae = Vae(lambda picture: SimpleNamespace(latent=picture.mean(dim=(3, 4))))
    assert read_from(vae, context).read("distribution", 0).shape == (3, 5)


def out_of_memory(times):
    left = [times]

    def encode(picture):
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return distribution(torch.ones(2))

    return encode


def test_memory_that_others_hold_for_a_moment_is_waited_for(context):
    assert read_from(Vae(out_of_memory(2)), context).read("distribution", 0) is not None
    assert total(context.metrics.snapshot(), "vae_out_of_memory") == 2


def test_too_little_memory_ends_the_run_with_a_hint(context):
    with pytest.raises(CriticalError, match="more GPU memory than there is") as caught:
        read_from(Vae(out_of_memory(3)), context).read("distribution", 0)
    assert "resolution" in caught.value.fix


def test_a_picture_moves_to_the_vae_and_takes_its_type(context):
    seen = []
    vae = Vae(lambda picture: seen.append(picture) or distribution(torch.ones(1)))
    source = RandomAccess(lambda module, variation, index, name: {name: clip_of(0)}, ("image",), "image_path")
    module = RobustTemporalVAE("image", "distribution", vae, dtype=torch.bfloat16, context=context)
    started(Collector([concept_of()]), source, module).read("distribution", 0)
    assert (seen[0].dtype, seen[0].shape) == (torch.bfloat16, (1, 3, 5, 32, 32))


def test_a_foreign_error_of_the_vae_is_one_samples_in_a_cached_pipeline(context, tmp_path):
    for number in range(3):
        write_sample(tmp_path / "clips", number)

    def encode(picture):
        if torch.equal(picture[0], clip_of(1)):
            raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: picture.mean(dim=(2, 3, 4))))

    latents = cached_epoch(Vae(encode), context, tmp_path / "clips", tmp_path / "cache", threads=2)
    assert set(latents) == {0, 2}
    [record] = samples_of(context).values()
    assert record.path.endswith("clip1.num")
    assert "must match the size" in record.reason


def test_one_vae_has_one_lock_for_all_who_use_it():
    one, other = Vae(None), Vae(None)
    assert vae_lock(one) is vae_lock(one)
    assert vae_lock(one) is not vae_lock(other)


def test_never_do_two_threads_encode_with_one_vae(context):
    inside = threading.Semaphore(1)
    met = []

    def encode(picture):
        if not inside.acquire(blocking=False):
            met.append(threading.current_thread())
        threading.Event().wait(0.001)  # give another thread its chance to come in
        inside.release()
        return distribution(torch.ones(1))

    reader = read_from(Vae(encode), context, count=40)
    threads = [
        threading.Thread(target=lambda part=part: [reader.read("distribution", index) for index in range(part, 40, 4)])
        for part in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == []
