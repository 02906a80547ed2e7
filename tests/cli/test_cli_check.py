"""`wan check`: every file has a verdict with a reason, the exit code says whether training makes sense."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.health.html_page import POLICY
from wan_fixes.hosts.standalone import read_preset
from wan_fixes.hosts.standalone.check import check_files, inspect_file
from wan_fixes.settings import SETTINGS_VARIABLE, Settings

WritePreset = Callable[..., Path]


def verdicts(result: Any) -> dict[str, dict[str, Any]]:
    return {file["name"]: file for file in json.loads(result.stdout)["files"]}


def test_good_and_bad_are_told_apart_and_named(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    (clips / "empty.mp4").write_bytes(b"")
    (clips / "text.mp4").write_text("not a video at all", encoding="utf-8")
    result = wan("check", write_preset(clips))
    assert result.exit_code == 0
    for text in ("good.mp4", "64x48, 16 fps, 1.5 s, h264", "empty.mp4", "the file is empty", "text.mp4", "a text file"):
        assert text in result.stdout
    assert "1 good, 0 warning, 2 rejected" in result.stdout


def test_nothing_usable_exits_with_3(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    (clips / "good.mp4").write_bytes(b"")
    result = wan("check", write_preset(clips))
    assert result.exit_code == 3
    assert "nothing can be trained on" in result.stderr
    assert "concept clips has no clip that can be used" in result.stdout


def test_a_concept_without_files_is_named(wan: Any, clips: Path, tmp_path: Path, write_preset: WritePreset) -> None:
    empty = tmp_path / "nothing here"
    empty.mkdir()
    result = wan("check", write_preset(clips, empty))
    assert result.exit_code == 0
    assert f"concept nothing here has no clips: {empty}" in result.stdout
    assert "clips: good.mp4" in result.stdout
    assert wan("check", write_preset(empty)).exit_code == 3


def test_json_is_all_there_is_on_stdout(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    (clips / "empty.mp4").write_bytes(b"")
    preset = write_preset(clips, compile=True, no_such_field=1)
    result = wan("check", preset, "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    names = ["preset", "model_type", "frames", "fps", "files", "totals", "spread", "fields", "configuration"]
    assert list(answer) == names
    assert answer["preset"] == str(preset)
    assert (answer["model_type"], answer["frames"], answer["fps"]) == ("WAN_2_1_T2V_1_3B", 9, 16)
    assert answer["totals"] == {"good": 1, "warning": 0, "rejected": 1}
    assert {note["field"] for note in answer["fields"]} == {"compile", "no_such_field"}
    (empty, good) = answer["files"]
    names = ["path", "name", "concept", "status", "reason", "fix", "facts", "width", "height", "fps", "duration"]
    assert list(good) == [*names, "video", "trained_at", "samples", "findings"]
    assert (good["trained_at"], good["findings"]) == ([[64, 48]], [])
    assert (empty["trained_at"], empty["findings"]) == ([], [])
    measured = {
        "is_variable_rate": False,
        "codec": "h264",
        "bit_depth": 8,
        "colour_matrix": "bt601",
        "colour_assumed": True,
    }
    assert measured.items() <= good["video"].items() and empty["video"] is None
    assert (good["path"], good["concept"], good["status"]) == (str(clips / "good.mp4"), "clips", "good")
    assert (empty["status"], empty["reason"]) == ("rejected", "the file is empty")
    assert empty["fix"]


def test_fields_that_are_not_used_are_named(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    result = wan("check", write_preset(clips, no_such_field=1))
    assert "no_such_field" in result.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows allows none of these characters in names")
def test_a_file_name_is_text_and_never_markup(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    (clips / "[red]x[green]\x1b[2J.mp4").write_bytes(b"")
    result = wan("check", write_preset(clips))
    assert result.exit_code == 0
    assert "[red]x[green]\\x1b[2J.mp4" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.skipif(os.name != "posix", reason="needs a file system that takes any bytes")
def test_a_file_name_that_is_no_utf8_is_shown_and_checked(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    try:
        (clips / name).write_bytes((clips / "good.mp4").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    preset = write_preset(clips)
    assert "caf\\udce9.mp4" in wan("check", preset).stdout
    assert verdicts(wan("check", preset, "--json"))[name]["status"] == "warning"


def test_no_line_is_wider_than_80_columns(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    (clips / f"{'a name without a space '.replace(' ', '_') * 5}.mp4").write_bytes(b"")
    result = wan("check", write_preset(clips))
    table = result.stdout[: result.stdout.index("files for samples")]
    assert max(map(len, table.splitlines())) <= 80
    assert "".join(line.split("│")[0].strip() for line in table.splitlines()).count("a_name_without_a_space_") == 5


def test_a_model_folder_that_lacks_a_part_is_a_usage_error_after_the_verdicts(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    result = wan("check", write_preset(clips, base_model_name=str(model)))
    assert result.exit_code == 2
    assert "good.mp4" in result.stdout
    assert str(model) in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (None, "warning", "good.txt does not exist"),
        (b"", "warning", "good.txt is empty"),
        (b" \n\t\n", "warning", "good.txt is empty"),
        ("Vögelchen".encode("latin-1"), "rejected", "not UTF-8"),
        ("Vögelchen".encode("utf-8-sig"), "good", ""),
    ],
)
def test_captions_are_checked_too(
    wan: Any, clips: Path, write_preset: WritePreset, content: bytes | None, status: str, reason: str
) -> None:
    caption = clips / "good.txt"
    caption.unlink()
    if content is not None:
        caption.write_bytes(content)
    verdict = verdicts(wan("check", write_preset(clips), "--json"))["good.mp4"]
    assert verdict["status"] == status
    assert reason in verdict["reason"]


def test_a_missing_caption_rejects_where_the_settings_say_skip(
    wan: Any, clips: Path, write_preset: WritePreset
) -> None:
    Path(os.environ[SETTINGS_VARIABLE]).write_text('{"missing_captions": "skip"}', encoding="utf-8")
    (clips / "good.txt").unlink()
    assert wan("check", write_preset(clips)).exit_code == 3


def test_prompts_from_file_names_need_no_caption(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    (clips / "good.txt").unlink()
    concept = {"path": str(clips), "text": {"prompt_source": "filename"}}
    assert verdicts(wan("check", write_preset(concepts=[concept]), "--json"))["good.mp4"]["status"] == "good"


def test_the_files_are_those_that_training_collects(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    for name in ("good-masklabel.mp4", ".hidden.mp4", "notes.md", "sub/inner.mp4"):
        (clips / name).parent.mkdir(exist_ok=True)
        (clips / name).write_bytes(b"")
    assert set(verdicts(wan("check", write_preset(clips), "--json"))) == {"good.mp4"}
    deep = {"path": str(clips), "include_subdirectories": True}
    found = verdicts(wan("check", write_preset(concepts=[deep]), "--json"))
    assert set(found) == {"good.mp4", str(Path("sub", "inner.mp4"))}


def test_a_clip_that_vanishes_after_the_scan_is_a_verdict(clips: Path, write_preset: WritePreset) -> None:
    preset = read_preset(write_preset(clips))
    verdict = inspect_file(preset.concepts[0], clips / "gone.mp4", preset, Settings())
    assert verdict.status == "rejected"
    assert "does not exist" in verdict.reason


def test_it_says_how_many_samples_a_clip_gives_that_is_cut_into_chunks(
    wan: Any, clips: Path, write_preset: WritePreset
) -> None:
    preset = write_preset(clips)
    assert "sample" not in verdicts(wan("check", preset, "--json"))["good.mp4"]["facts"]
    Path(os.environ[SETTINGS_VARIABLE]).write_text('{"frame_window": "chunks"}', encoding="utf-8")
    result = wan("check", preset, "--json")
    good = verdicts(result)["good.mp4"]
    assert good["facts"].endswith("1.5 s, h264, 2 samples") and good["samples"] == 2
    in_buckets = sum(count for _, count in json.loads(result.stdout)["spread"]["buckets"])
    assert in_buckets == sum(file["samples"] for file in verdicts(result).values())


def test_verdicts_come_in_the_order_of_the_files_and_progress_reaches_the_end(
    clips: Path, write_preset: WritePreset
) -> None:
    for number in range(12):
        (clips / f"{number:02}.mp4").write_bytes(b"")
    seen: list[tuple[int, int]] = []
    found = check_files(read_preset(write_preset(clips)), Settings(), lambda done, total: seen.append((done, total)))
    assert [verdict.name for verdict in found] == [f"{number:02}.mp4" for number in range(12)] + ["good.mp4"]
    assert seen == [(done, 13) for done in range(14)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not JSON"), ("[]", "not an object"), ('{"model_type": "FLUX_DEV_1"}', "not a WAN model type")],
)
def test_a_preset_that_cannot_be_used_exits_with_2(wan: Any, tmp_path: Path, text: str, reason: str) -> None:
    preset = tmp_path / "preset.json"
    preset.write_text(text, encoding="utf-8")
    result = wan("check", preset)
    assert result.exit_code == 2
    assert str(preset) in result.stderr
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_histograms_show_how_long_and_fast_the_clips_are_and_what_they_are_trained_at(
    wan: Any, clips: Path, write_preset: WritePreset
) -> None:
    from clips import write_clip
    from painted import paint_frame
    from PIL import Image

    wide = [paint_frame(number, width=96, height=48) for number in range(60)]
    write_clip(clips / "wide.mp4", wide, rate=30)
    write_clip(clips / "short.mp4", wide[:4])
    (clips / "broken.mp4").write_bytes(b"")
    Image.new("RGB", (64, 64)).save(clips / "still.png")
    preset = write_preset(clips, resolution="64")

    spread = json.loads(wan("check", preset, "--json").stdout)["spread"]
    assert spread["lengths"] == [["2 to 4", 1], ["17 to 32", 2]]  # 24 frames at 16 fps, and 2 seconds
    assert spread["rates"] == [["16", 2], ["30", 1]]
    assert spread["buckets"] == [["80x48", 1], ["96x48", 1], ["64x64", 1]]

    shown = wan("check", preset).stdout
    assert "17 to 32" in shown and "trained at" in shown and "█" in shown


def test_a_picture_that_is_enlarged_or_much_cropped_is_told_with_what_helps(
    wan: Any, clips: Path, write_preset: WritePreset
) -> None:
    from PIL import Image

    Image.new("RGB", (192, 48)).save(clips / "wide.png")
    preset = write_preset(clips, resolution="128x96")
    found = verdicts(wan("check", preset, "--json"))
    small = {
        "rule": "too_small",
        "reason": "64x48 is enlarged 2 times to 128x96",
        "fix": "lower the resolution, or use a larger source",
    }
    assert found["good.mp4"]["status"] == "warning" and found["good.mp4"]["findings"] == [small]
    assert (found["good.mp4"]["reason"], found["good.mp4"]["fix"]) == (small["reason"], small["fix"])
    wide = found["wide.png"]
    assert [finding["rule"] for finding in wide["findings"]] == ["too_small", "wrong_aspect"]
    for text in ("192x48 is enlarged 2 times to 384x96, of which 128x96 is used", "67 % of its picture is cut off"):
        assert text in wide["reason"]
    shown = " ".join(wan("check", preset).stdout.split())
    assert "0 good, 2 warning, 0 rejected" in shown and "lower the resolution" in shown


def test_a_concepts_own_resolution_is_the_one_that_its_pictures_are_held_to(
    wan: Any, clips: Path, write_preset: WritePreset
) -> None:
    image = {"enable_resolution_override": True, "resolution_override": "128x96"}
    concept = {"path": str(clips), "image": image}
    found = verdicts(wan("check", write_preset(concepts=[concept]), "--json"))["good.mp4"]
    assert found["trained_at"] == [[128, 96]] and found["findings"][0]["rule"] == "too_small"


def test_nothing_is_said_of_the_size_of_what_is_not_trained(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    found = verdicts(wan("check", write_preset(clips, frames=81, resolution="128x96"), "--json"))["good.mp4"]
    assert found["status"] == "rejected" and (found["trained_at"], found["findings"]) == ([], [])
    assert "enlarged" not in found["reason"]


def test_a_page_shows_verdicts_and_pictures_and_no_text_is_markup(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    import shutil
    from html.parser import HTMLParser

    shutil.copyfile(clips / "good.mp4", clips / "too <b>short<script>.mp4" if os.name != "nt" else clips / "short.mp4")
    (clips / "empty.mp4").write_bytes(b"")
    page = tmp_path / "page.html"
    result = wan("check", write_preset(clips, frames=81), "--html", page)
    assert result.exit_code == 3  # all of them are too short
    text = page.read_text(encoding="utf-8")

    class Tags(HTMLParser):
        found: list[tuple[str, dict[str, str | None]]] = []

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.found.append((tag, dict(attributes)))

    Tags().feed(text)
    tags = [tag for tag, _ in Tags.found]
    assert not {"script", "b", "link", "iframe"} & set(tags)
    pictures = [attributes["src"] for tag, attributes in Tags.found if tag == "img"]
    assert len(pictures) == 2 and all(src.startswith("data:image/jpeg;base64,") for src in pictures)
    assert "24 frames at 16 fps, 81 needed" in text and "the file is empty" in text
    assert f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">' in text

    assert wan("check", write_preset(clips, frames=81), "--html", page).exit_code == 3  # its own page is replaced


def test_a_file_that_is_no_page_is_never_replaced(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text("mine", encoding="utf-8")
    result = wan("check", write_preset(clips), "--html", mine)
    assert result.exit_code == 2 and "no page of this program" in result.stderr
    assert mine.read_text(encoding="utf-8") == "mine"


def test_the_preset_is_looked_over_before_its_first_fault_ends_the_reading(
    wan: Any, clips: Path, write_preset: WritePreset
) -> None:
    preset = write_preset(clips, frames=32, epochs=0)
    result = wan("check", preset)
    assert result.exit_code == 2
    for text in ("frames is 32", "set it to 29 or 33", "epochs is 0"):  # also what reading would not get to
        assert text in " ".join(result.stdout.split())
    assert "frames" in result.stderr
    answer = json.loads(wan("check", preset, "--json").stdout)
    assert list(answer) == ["preset", "configuration"]
    first = answer["configuration"][0]
    assert (first["severity"], first["field"], first["rule"]) == ("error", "frames", "frames")
    assert first["correction"] == {"field": "frames", "value": 29}


def test_a_fault_that_reading_does_not_mind_exits_with_2_after_the_verdicts(
    wan: Any, clips: Path, write_preset: WritePreset
) -> None:
    result = wan("check", write_preset(clips, learning_rate=1.0))
    assert result.exit_code == 2
    assert "far too high" in result.stdout and "good.mp4" in result.stdout


def test_a_warning_changes_no_exit_code(wan: Any, clips: Path, write_preset: WritePreset) -> None:
    result = wan("check", write_preset(clips, learning_rate=0.05), "--json")
    assert result.exit_code == 0
    assert "learning_rates" in [found["rule"] for found in json.loads(result.stdout)["configuration"]]


def test_a_corrected_copy_is_written_and_said_and_means_the_same_elsewhere(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    concepts = [{"path": f'"{clips.name}"'}]
    preset = write_preset(frames=10, concepts=concepts, learning_rate_warmup_steps=0)
    before = preset.read_bytes()
    better = tmp_path / "better" / "preset.json"
    better.parent.mkdir()
    result = wan("check", preset, "--fix", better)
    assert result.exit_code == 2  # the preset is what it was
    assert f"written: {better}" in result.stderr and "frames is 9" in result.stderr
    assert preset.read_bytes() == before
    content = json.loads(better.read_text(encoding="utf-8"))
    assert (content["frames"], content["concepts"][0]["path"]) == (9, str(clips))
    assert wan("check", better).exit_code == 0
    assert wan("check", better, "--fix", tmp_path / "none.json").exit_code == 0
    assert not (tmp_path / "none.json").exists()  # there is nothing to correct


def test_a_copy_replaces_nothing(wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path) -> None:
    preset = write_preset(clips, frames=10)
    before = preset.read_bytes()
    for file, why in (
        (preset, "nothing of yours is replaced"),
        (tmp_path / "no folder" / "x.json", "cannot be written"),
    ):
        result = wan("check", preset, "--fix", file)
        assert result.exit_code == 2 and why in result.stderr
    assert preset.read_bytes() == before


def test_all_is_said_and_what_matters_most_decides_the_exit_code(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS_ROOT", str(tmp_path / "models"))
    named = {"base_model_name": "t2v-1.3B"}  # which is not fetched
    result = wan("check", write_preset(clips, **named))
    assert result.exit_code == 1 and "the model is not complete" in result.stderr
    result = wan("check", write_preset(clips, **named, learning_rate=1.0))
    assert result.exit_code == 2 and "the model is not complete" in result.stderr
    (clips / "good.mp4").write_bytes(b"")
    result = wan("check", write_preset(clips, **named, learning_rate=1.0))
    assert result.exit_code == 3
    for text in ("the model is not complete", "nothing can be trained on"):
        assert text in result.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"training_method": "FINE_TUNE", "learning_rate": 1e-5},
        {"optimizer": {"optimizer": "PRODIGY"}, "learning_rate": 1.0},
        {"transformer": {"weight_dtype": "FLOAT_8"}},
    ],
)
def test_what_only_onetrainer_does_is_told_to_be_a_limit_of_this_trainer(
    wan: Any, clips: Path, write_preset: WritePreset, changes: dict[str, Any]
) -> None:
    result = wan("check", write_preset(clips, **changes))
    assert result.exit_code == 2 and "OneTrainer trains this preset" in result.stderr
    result = wan("check", write_preset(clips, **changes, epochs=0))
    assert result.exit_code == 2 and "OneTrainer trains" not in result.stderr  # not with that


def test_the_page_has_what_was_found_of_the_preset(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    concepts = [{"name": "<b>both", "path": str(clips)}, {"name": "twice", "path": str(clips)}]
    wan("check", write_preset(concepts=concepts), "--html", page)
    text = page.read_text(encoding="utf-8")
    assert "take the same clips" in text and "&lt;b&gt;both" in text and "<b>" not in text


def test_no_correction_is_written_that_an_old_name_would_undo(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    preset = write_preset(clips, lora_layers="attn1", lora_layer_preset="full")
    better = tmp_path / "better.json"
    assert "layer_filter_preset" in wan("check", preset, "--fix", better).stdout
    assert "lora_layer" not in (better.read_text(encoding="utf-8") if better.exists() else "")
    preset = write_preset(clips, layer_filter="attn1", layer_filter_preset="full")
    wan("check", preset, "--fix", better)
    assert json.loads(better.read_text(encoding="utf-8"))["layer_filter_preset"] == "custom"


def test_a_lora_of_an_earlier_run_is_no_folder_whatever_the_format_says(
    wan: Any, clips: Path, write_preset: WritePreset, tmp_path: Path
) -> None:
    from safetensors.numpy import save_file

    preset = write_preset(clips, output_model_format="INTERNAL")
    save_file({}, tmp_path / "lora.safetensors")
    assert wan("check", preset).exit_code == 0
