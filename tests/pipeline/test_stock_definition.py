"""Stock MGDS modules over a messy folder, rewritten: good files are trained with their captions, bad ones named."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from clips import make_broken_files, make_good_clips, write_clip
from painted import paint_frame
from PIL import Image

from wan_fixes.errors import NothingUsableError
from wan_fixes.pipeline import rewrite_definition
from wan_fixes.pipeline.base import ENGINE

if ENGINE != "mgds":
    pytest.skip("stock modules come with mgds, which is not importable here", allow_module_level=True)
if importlib.util.find_spec("torchvision") is None:
    pytest.skip("stock modules need torchvision", allow_module_level=True)

from mgds.MGDS import MGDS, TrainDataLoader
from mgds.PipelineModule import PipelineState

from .stock_definition import SETTINGS, concept_over, stock_definition
from .toys import events_of, samples_of

pytestmark = pytest.mark.host
PRESENT_AND_ABSENT = pytest.mark.parametrize("caching", [True, False])


@pytest.fixture(scope="module")
def networks():
    from tiny_wan import make_text_encoder, make_tokenizer, make_vae

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    return SimpleNamespace(vae=make_vae(), text_encoder=make_text_encoder(len(tokenizer)), tokenizer=tokenizer)


def save_picture(path, number, size=(80, 60)):
    Image.fromarray(paint_frame(number, width=size[0], height=size[1])).save(path)
    path.with_suffix(".txt").write_text(f"picture {number}")


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    """`good`: file name -> caption. `broken`: file name -> part of the reason."""
    folder = tmp_path_factory.mktemp("messy")
    good, broken = {}, {}
    with_clips = make_good_clips(tmp_path_factory.mktemp("clips"))
    (folder / "sub").mkdir()
    for truth in with_clips[:4]:
        target = folder / "sub" / truth.path.name
        shutil.copyfile(truth.path, target)
        target.with_suffix(".txt").write_text(truth.caption)
        good[target.name] = truth.caption
    for number, name in enumerate(["a.png", "b.jpg", "c.webp"]):
        save_picture(folder / name, number)
        good[name] = f"picture {number}"
    save_picture(folder / "a-masklabel.png", 9)
    for truth in make_broken_files(folder):
        if truth.kind in ("caption_missing", "caption_empty"):
            good[truth.path.name] = ""
        else:
            broken[truth.path.name] = truth.reason
    for name, content, reason in [("empty.png", b"", "empty"), ("text.jpg", b"not found", "text file")]:
        (folder / name).write_bytes(content)
        (folder / name).with_suffix(".txt").write_text("a broken picture")
        broken[name] = reason
    save_picture(folder / "utf16.png", 7)
    (folder / "utf16.txt").write_bytes("picture sept".encode("utf-16"))
    good["utf16.png"] = "picture sept"
    save_picture(folder / "zeros.png", 8)
    (folder / "zeros.txt").write_bytes(b"pic\0ture")
    broken["zeros.png"] = "zero bytes"
    return SimpleNamespace(folder=folder, good=good, broken=broken)


class Trainer:
    """Reads batches as OneTrainer does."""

    def __init__(
        self, networks, context, concepts, cache_dir, *, batch_size=1, threads=2, sample=0, settings=SETTINGS, **options
    ):
        self.definition = stock_definition(networks, cache_dir, batch_size=batch_size, **options)
        self.report = rewrite_definition(self.definition, context) if context is not None else None
        self.data = MGDS(
            torch.device("cpu"),
            concepts,
            settings,
            self.definition,
            batch_size,
            PipelineState(threads),
            initial_epoch_sample=sample,
        )
        self.loader = TrainDataLoader(self.data, batch_size=batch_size)

    def epoch(self):
        self.data.start_next_epoch()
        return list(self.loader)


def by_file(batches, tokenizer):
    """File name -> prompt and latent of what was trained; every name once."""
    found = {}
    for batch in batches:
        for place, path in enumerate(batch["image_path"]):
            assert torch.isfinite(batch["latent_image"][place]).all()
            if batch["loss_weight"][place] == 0:
                continue
            prompt = batch["prompt"][place]
            tokens = tokenizer(prompt, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
            assert torch.equal(batch["tokens"][place], tokens.input_ids[0]), "tokens of another prompt"
            name = Path(path).name
            assert name not in found, f"{name} came twice"
            found[name] = (prompt, batch["latent_image"][place], batch["hidden_state"][place])
    return found


@PRESENT_AND_ABSENT
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_good_file_is_trained_once_an_epoch_with_its_caption_and_every_bad_one_named(
    networks, messy, contexts, tmp_path, caching, batch_size
):
    with contexts.new_files(tmp_path / "files") as context:
        trainer = Trainer(
            networks, context, [concept_over(messy.folder)], tmp_path / "cache", caching=caching, batch_size=batch_size
        )
        for _ in range(2):
            batches = trainer.epoch()
            found = by_file(batches, networks.tokenizer)
            assert {name: prompt for name, (prompt, _, _) in found.items()} == messy.good
            shapes = Counter(batch["latent_image"].shape for batch in batches)
            assert all(shape[0] == batch_size for shape in shapes)
            assert {shape[2] for shape in shapes} == {1, 3}, "pictures and clips of nine frames"
        named = {Path(path).name: record for path, record in samples_of(context).items()}
        assert set(named) == set(messy.broken)
        for name, reason in messy.broken.items():
            assert reason in named[name].reason, name
            assert named[name].module and named[name].fix
        warned = {Path(path).name for path in samples_of(context, "warning")}
        assert {"caption_missing.txt", "caption_empty.txt"} <= warned


def test_a_second_start_encodes_nothing_and_trains_the_same(networks, messy, contexts, tmp_path):
    epochs = []
    for _ in range(2):
        with contexts.new_files(tmp_path / "files") as context:
            trainer = Trainer(networks, context, [concept_over(messy.folder)], tmp_path / "cache")
            epochs.append(by_file(trainer.epoch(), networks.tokenizer))
            values = context.metrics.snapshot()
    assert values["cache_misses"] == 0
    assert values["cache_hits"] == 2 * len(messy.good) + 2, "two have a picture in the cache, and no usable caption"
    assert same(*epochs)


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name][0] == other[name][0], name
        assert all(torch.equal(*pair) for pair in zip(one[name][1:], other[name][1:], strict=True)), name
    return True


def test_with_and_without_a_cache_and_with_many_threads_the_latents_are_the_same(networks, messy, contexts, tmp_path):
    found = []
    for options in ({"caching": True}, {"caching": False}, {"caching": True, "threads": 4}):
        trainer = Trainer(
            networks, contexts.new(), [concept_over(messy.folder)], tmp_path / f"cache{options}", **options
        )
        found.append(by_file(trainer.epoch(), networks.tokenizer))
    assert same(found[0], found[1])
    assert same(found[0], found[2])


def test_files_that_come_and_go_cost_only_themselves(networks, messy, contexts, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(4):
        save_picture(folder / f"{number}.png", number)

    def encoded():
        context = contexts.new()
        trainer = Trainer(networks, context, [concept_over(folder)], tmp_path / "cache")
        prompts = sorted(prompt for prompt, _, _ in by_file(trainer.epoch(), networks.tokenizer).values())
        return prompts, context.metrics.snapshot()["cache_misses"]

    four = [f"picture {number}" for number in range(4)]
    assert encoded() == (four, 8)
    save_picture(folder / " first.png", 4)
    assert encoded() == ([*four, "picture 4"], 2)
    (folder / "0.png").rename(folder / "z.png")
    (folder / "0.txt").rename(folder / "z.txt")
    assert encoded() == ([*four, "picture 4"], 0)
    (folder / "1.txt").write_text("picture eleven")
    assert encoded()[1] == 1
    (folder / "2.png").unlink()
    assert encoded()[1] == 0
    save_picture(folder / "3.png", 33)
    assert encoded()[1] == 2


def other(make):
    torch.manual_seed(1)
    return make()


CHANGES = {
    "frames": ({"settings": {**SETTINGS, "target_frames": "5"}}, {}, (4, 0)),
    "resolution": ({"settings": {**SETTINGS, "target_resolution": "96"}}, {}, (4, 0)),
    "flips": ({}, {"image": {"enable_fixed_flip": True}}, (4, 0)),
    "tags": ({}, {"text": {"enable_tag_shuffling": True}}, (0, 0)),  # of one tag, shuffled: the prompts are the same
    "prompt source": ({}, {"text": {"prompt_source": "filename"}}, (0, 4)),
    "weights of the VAE": ({"vae": "other"}, {}, (4, 0)),
    "weights of the text encoder": ({"text_encoder": "other"}, {}, (0, 4)),
    "batch size": ({"batch_size": 2}, {}, (0, 0)),
    "seed of the concept": ({}, {"seed": 9}, (0, 0)),
    "loss weight": ({}, {"loss_weight": 0.5}, (0, 0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_costs_exactly_what_hangs_on_it(networks, contexts, tmp_path, change):
    """(pictures, texts) that are encoded anew."""
    from tiny_wan import make_text_encoder, make_vae

    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(4):
        save_picture(folder / f"{number}.png", number)
    before = concept_over(folder)
    Trainer(networks, contexts.new(), [before], tmp_path / "cache").epoch()

    options, changes, wanted = CHANGES[change]
    options = dict(options)
    changed = SimpleNamespace(**vars(networks))
    if options.pop("vae", None):
        changed.vae = other(make_vae)
    if options.pop("text_encoder", None):
        changed.text_encoder = other(lambda: make_text_encoder(len(networks.tokenizer)))
    after = {
        name: {**before[name], **changes[name]} if isinstance(before[name], dict) and name in changes else value
        for name, value in {**before, **changes}.items()
    }
    context = contexts.new()
    Trainer(changed, context, [after], tmp_path / "cache", **options).epoch()
    starts = [event.facts["missing"] for event in events_of(context, "caching_started")]
    assert starts == [count for count in wanted if count]
    assert context.metrics.snapshot()["cache_misses"] == sum(wanted)


def test_resuming_in_the_middle_of_an_epoch_goes_on_where_it_was(networks, messy, contexts, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(7):
        save_picture(folder / f"{number}.png", number, size=(80, 60) if number % 2 else (60, 80))
    for caching in (True, False):
        options = {"caching": caching, "batch_size": 2}
        whole = Trainer(networks, contexts.new(), [concept_over(folder)], tmp_path / "cache", **options).epoch()
        later = Trainer(
            networks, contexts.new(), [concept_over(folder)], tmp_path / "cache", sample=4, **options
        ).epoch()
        assert [batch["image_path"] for batch in later] == [batch["image_path"] for batch in whole[2:]]


def test_masks_are_loaded_where_there_are_some_and_made_where_not(networks, contexts, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(2):
        save_picture(folder / f"{number}.png", number, size=(64, 64))
    Image.fromarray((paint_frame(0, width=64, height=64)[..., 0] // 128) * 255).save(folder / "1-masklabel.png")
    context = contexts.new()
    trainer = Trainer(networks, context, [concept_over(folder)], tmp_path / "cache", masks=True)
    masks = {Path(batch["image_path"][0]).name: batch["latent_mask"] for batch in trainer.epoch()}
    assert masks["0.png"].min() == 1.0
    assert 0 <= masks["1.png"].min() < 1.0
    assert samples_of(context) == {}


@pytest.mark.parametrize("masks", [False, True])
def test_every_chunk_of_a_clip_is_trained_with_its_caption_and_the_caption_is_encoded_once(
    networks, contexts, tmp_path, masks
):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, numbers in (("long.mp4", range(40)), ("short.mp4", range(100, 120))):
        write_clip(folder / name, (paint_frame(number, width=96, height=64) for number in numbers), rate=24)
        (folder / name).with_suffix(".txt").write_text(f"a {name}")
    save_picture(folder / "still.png", 5)

    def run():
        context = contexts.new(frame_window="chunks")
        trainer = Trainer(networks, context, [concept_over(folder)], tmp_path / "cache", masks=masks)
        batches = trainer.epoch()
        for batch in batches:
            path = Path(batch["image_path"][0])
            assert batch["prompt"][0] == path.with_suffix(".txt").read_text()
        found = [(Path(batch["image_path"][0]).name, batch["latent_image"]) for batch in batches]
        return found, context.metrics.snapshot()

    found, values = run()
    assert Counter(name for name, _ in found) == {"long.mp4": 4, "short.mp4": 2, "still.png": 1}
    assert (values["cache_misses"], values.get("cache_hits", 0)) == (14, 0)
    latents = [latent for _, latent in found]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(latents, 2) if a.shape == b.shape)
    texts = list((tmp_path / "cache" / "text").glob("**/*.safetensors"))
    images = list((tmp_path / "cache" / "image").glob("**/*.safetensors"))
    assert (len(images), len(texts)) == (7, 3), "chunks share the entry of their clip's caption"
    assert run()[1]["cache_misses"] == 0


def test_a_folder_with_nothing_usable_is_an_error_with_the_reasons(networks, contexts, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"")
    (folder / "b.png").write_bytes(b"not found")
    for caching in (True, False):
        trainer = Trainer(networks, contexts.new(), [concept_over(folder)], tmp_path / "cache", caching=caching)
        with pytest.raises(NothingUsableError, match="empty"):
            trainer.epoch()


def test_every_stock_module_of_the_table_is_replaced(networks, contexts, tmp_path):
    trainer = Trainer(networks, contexts.new(), [], tmp_path, masks=True)
    assert dict(trainer.report.replaced) == {
        "CollectPaths": 1, "LoadImage": 2, "LoadVideo": 1, "LoadMultipleTexts": 2, "EncodeVAE": 1, "DiskCache": 2,
        "VariationSorting": 1, "AspectBatchSorting": 1,
    }  # fmt: skip
    assert dict(trainer.report.untouched)["OutputPipelineModule"] == 1
    inline = Trainer(networks, contexts.new(), [], tmp_path, caching=False)
    assert inline.report.replaced["InlineAspectBatchSorting"] == 1


def test_clips_are_decoded_at_their_buckets_size_unless_something_needs_them_whole(networks, contexts, tmp_path):
    fitted = {"CalcAspect", "ScaleCropImage"}
    plain, masked = (Trainer(networks, contexts.new(), [], tmp_path, masks=masks).report for masks in (False, True))
    assert fitted <= set(plain.replaced) and not fitted & set(plain.guarded)
    assert fitted <= set(masked.guarded) and not fitted & set(masked.replaced)


@PRESENT_AND_ABSENT
def test_unrewritten_the_same_folder_ends_the_run(networks, messy, tmp_path, caching):
    """What the rewriting is for: should stock modules learn to skip a broken clip, this test says so."""
    trainer = Trainer(networks, None, [concept_over(messy.folder)], tmp_path / "cache", caching=caching)
    with pytest.raises(Exception):  # noqa: B017 - whatever the decoder raised
        trainer.epoch()
