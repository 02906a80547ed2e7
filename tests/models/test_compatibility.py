"""What does not fit is said before anything is loaded, and so is what would (M12)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.cli.console import ExitCode
from wan_fixes.models import ModelEnsurer, ModelSpec, ModelState, ModelStatus, load_manifest
from wan_fixes.models.compatibility import CompatibilityCheck, ModelCompatibility, check_compatibility
from wan_fixes.models.fallbacks import FallbackKind, GenerationMode, WantedSettings, serves
from wan_fixes.models.hardware import Hardware
from wan_fixes.models.layout import ModelResolver

MANIFEST = load_manifest()
SPECS = tuple(MANIFEST.models.values())
GB = 10**9
LARGE = Hardware("a large one", 10**15, 10**15, 10**15, 10**15)

T2V, I2V, TI2V = GenerationMode
FULLY, PARTIALLY, INCOMPATIBLE = ModelCompatibility


def checked(
    name: str, hardware: Hardware = LARGE, status: ModelStatus | None = None, **wanted: Any
) -> CompatibilityCheck:
    spec, variant = MANIFEST.find(name)
    return check_compatibility(
        spec, variant, WantedSettings.of(spec, **wanted), hardware, manifest=MANIFEST, status=status
    )


def gpu(gigabytes: float) -> Hardware:
    return replace(LARGE, vram_free=round(gigabytes * GB))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.model_id)
def test_m12_every_model_does_on_a_machine_that_has_enough(spec: ModelSpec) -> None:
    found = checked(spec.model_id)
    assert (found.level, found.issues, found.unknown, found.recommendations) == (FULLY, (), (), ())
    assert found.chosen is not None and found.chosen.kind is FallbackKind.AS_ASKED


@pytest.mark.parametrize(
    ("name", "modes"),
    [("t2v-1.3B", {T2V}), ("t2v-A14B", {T2V}), ("i2v-14B", {I2V}), ("i2v-A14B", {I2V}), ("ti2v-5B", {T2V, I2V, TI2V})],
)
def test_m12_a_model_of_another_mode_is_incompatible_and_those_that_serve_are_named(
    name: str, modes: set[GenerationMode]
) -> None:
    for mode in GenerationMode:
        found = checked(name, mode=mode)
        assert (found.level is FULLY) == (mode in modes)
        if mode not in modes:
            assert found.level is INCOMPATIBLE and found.chosen is None
            named = {spec.model_id for spec in SPECS if spec.model_id in " ".join(found.recommendations)}
            assert named == {spec.model_id for spec in SPECS if serves(spec, mode)}


def test_m12_a_size_or_length_that_the_model_cannot_take_names_those_that_it_can() -> None:
    found = checked("t2v-1.3B", width=830, frames=80)
    assert found.level is INCOMPATIBLE
    assert set(found.recommendations) == {"take 832x480", "take 77 or 81 frames"}
    assert checked("t2v-1.3B", width=720, height=720).level is FULLY
    assert checked("ti2v-5B", width=720, height=720).recommendations == ("take 704x704",)


@given(st.sampled_from(SPECS), st.integers(1, 1500), st.integers(1, 1500), st.integers(1, 200))
def test_m12_what_is_recommended_for_a_size_is_one(spec: ModelSpec, width: int, height: int, frames: int) -> None:
    found = checked(spec.model_id, width=width, height=height, frames=frames)
    for advice in found.recommendations:
        words = advice.split()
        if "x" in words[1]:
            width, height = map(int, words[1].split("x"))
        else:
            frames = int(words[1])
    assert checked(spec.model_id, width=width, height=height, frames=max(1, frames)).level is FULLY


def test_m12_ways_to_make_do_are_tried_in_order_until_one_fits() -> None:
    asked: dict[str, Any] = {"frames": 49, "width": 832, "height": 480}
    kinds = {
        size: [way.kind.value for way in checked("t2v-14B", gpu(size), **asked).tried] for size in (80, 40, 16, 12.0)
    }
    assert kinds[80] == ["as asked"]
    assert kinds[40] == ["as asked", "quantised"]
    assert kinds[16] == ["as asked", "quantised", "smaller model"]
    assert kinds[12.0] == ["as asked", "quantised", "smaller model", *["CPU offload"] * 4]
    quantised = checked("t2v-14B", gpu(40), **asked)
    assert quantised.level is PARTIALLY and not quantised.fits_as_asked
    assert quantised.chosen is not None and quantised.chosen.wanted.precision == "fp8"
    assert "as fp8 in OneTrainer" in quantised.recommendations[0]
    smaller = checked("t2v-14B", gpu(16), **asked)
    assert smaller.chosen is not None and smaller.chosen.model == "t2v-1.3B@2.1.0"
    nothing = checked("t2v-14B", gpu(12), **asked)
    assert (nothing.level, nothing.chosen) == (INCOMPATIBLE, None)
    assert nothing.recommendations == ("take fewer frames, a smaller size or a smaller batch",)


def test_m12_offloading_is_what_fits_where_no_smaller_model_serves() -> None:
    found = checked("i2v-14B", gpu(16), frames=17, width=480, height=480)
    assert found.chosen is not None and found.chosen.kind is FallbackKind.CPU_OFFLOAD
    assert f"set offload_fraction to {found.chosen.wanted.offload} in OneTrainer" in found.recommendations[0]


def test_m12_a_smaller_model_that_cannot_take_the_size_is_no_way() -> None:
    ways = checked("i2v-A14B", gpu(4), width=720, height=720).tried
    assert FallbackKind.SMALLER_MODEL not in [way.kind for way in ways], "720 is no multiple of 32"


def test_m12_too_little_main_memory_is_told_from_a_gpu_that_is_too_small() -> None:
    found = checked("t2v-A14B", replace(LARGE, main_memory_free=8 * GB))
    assert found.level is INCOMPATIBLE
    assert [way.fits_gpu for way in found.tried] == [True] * len(found.tried)
    assert "of main memory" in found.issues[0]
    assert found.recommendations[0].startswith("have ")


def test_m12_the_vae_is_named_where_it_takes_most() -> None:
    found = checked("t2v-1.3B", gpu(16), frames=1, width=1920, height=1088)
    assert "vae_tiling" in found.recommendations[-1]


@given(
    st.sampled_from(SPECS), st.floats(1, 200), st.floats(1, 200), st.integers(0, 40), st.sampled_from(["bf16", "fp8"])
)
def test_m12_the_level_agrees_with_the_numbers(
    spec: ModelSpec, vram: float, main_memory: float, groups: int, precision: str
) -> None:
    hardware = replace(gpu(vram), main_memory_free=round(main_memory * GB))
    found = checked(spec.model_id, hardware, frames=4 * groups + 1, width=640, height=384, precision=precision)

    def is_enough(way: Any) -> bool:
        enough = way.estimate.total <= hardware.vram_free and way.estimate.main_memory <= hardware.main_memory_free
        return bool(enough)

    assert [way.fits for way in found.tried] == [is_enough(way) for way in found.tried]
    assert not any(way.fits for way in found.tried[:-1])
    assert found.chosen == (found.tried[-1] if found.tried[-1].fits else None)
    if found.tried[0].fits:
        assert (found.level, found.issues) == (FULLY, ())
    else:
        assert found.level is (INCOMPATIBLE if found.chosen is None else PARTIALLY)
        assert found.issues and found.recommendations
    assert json.loads(json.dumps(found.as_json()))["level"] == found.level.value


def test_m12_what_is_not_known_is_said_and_stands_against_nothing() -> None:
    found = checked("t2v-14B", Hardware())
    assert (found.level, found.issues) == (PARTIALLY, ())
    assert found.unknown == ("the GPU's free memory", "the free main memory")
    assert found.fits_as_asked and found.chosen is None


def test_m12_disk_space_for_what_is_to_be_fetched(tmp_path: Path) -> None:
    status = ModelEnsurer(MANIFEST, ModelResolver(tmp_path)).status("t2v-1.3B")
    assert status.state is ModelState.NOT_PRESENT and status.bytes_needed is not None
    hardware = replace(LARGE, disk_free=status.bytes_needed + 2 * GB)
    assert checked("t2v-1.3B", hardware, status).level is FULLY
    found = checked("t2v-1.3B", replace(hardware, disk_free=status.bytes_needed + 2 * GB - 1), status)
    assert found.level is PARTIALLY
    assert "28.9 GB are still to be fetched, 2.0 GB are to stay free" in found.issues[0]
    assert found.recommendations == ("`wan models gc` shows what can go",)


def test_m12_a_folder_that_lacks_a_component_is_not_compatible_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    found = checked("t2v-1.3B", LARGE, ModelStatus("t2v-1.3B", ModelState.PARTIAL, folder, bytes_needed=5))
    assert found.level is PARTIALLY and not found.fits_as_asked
    assert any("vae (turns clips into latents and back)" in issue for issue in found.issues)
    assert "`wan models ensure t2v-1.3B` fetches what is missing" in found.recommendations


# The machine


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, first on the path; what it does is written by the test."""
    if sys.platform == "win32":
        pytest.skip("a script with a first line that says what runs it")
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())  # as if it were not loaded, whoever loaded it
    return program


def answer(program: Path, text: str) -> None:
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def test_m12_the_gpu_that_has_most_free_is_taken(nvidia_smi: Path, tmp_path: Path) -> None:
    answer(
        nvidia_smi, "echo 'Card A, 24576, 1000'; echo 'Card, the large one, 81920, 80000'; echo 'Card C, 8192, 8000'"
    )
    found = Hardware.of_this_machine(tmp_path)
    assert (found.gpu, found.vram_total, found.vram_free) == ("Card, the large one", 81920 << 20, 80000 << 20)
    assert found.main_memory_free and found.disk_free


@pytest.mark.parametrize(
    "text",
    [
        "exit 9",
        "echo",
        "echo 'Card, [N/A], [N/A]'",
        "echo 'NVIDIA-SMI has failed'; exit 1",
        "printf '\\377,1'",
        "echo 1,2",
    ],
)
def test_m12_a_gpu_that_does_not_say_is_unknown(nvidia_smi: Path, tmp_path: Path, text: str) -> None:
    answer(nvidia_smi, text)
    found = Hardware.of_this_machine(tmp_path)
    assert (found.gpu, found.vram_total, found.vram_free) == ("", None, None)


def test_m12_no_nvidia_smi_is_unknown(nvidia_smi: Path, tmp_path: Path) -> None:
    assert not nvidia_smi.exists()
    assert Hardware.of_this_machine(tmp_path / "not" / "there" / "yet").vram_free is None


@pytest.mark.gpu
def test_m12_torch_and_nvidia_smi_agree_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    torch.zeros(1, device="cuda")
    by_torch = Hardware.of_this_machine(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")
    by_program = Hardware.of_this_machine(tmp_path)
    assert by_torch.gpu == by_program.gpu != ""
    assert by_torch.vram_free == pytest.approx(by_program.vram_free, rel=0.05)


# The command


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("WAN_MODELS_MANIFEST", raising=False)
    monkeypatch.setenv("MODELS_ROOT", str(tmp_path / "models"))
    yield tmp_path / "models"


def run(*arguments: str) -> int:
    """The command as `wan models` will have it."""
    import typer
    from typer.main import get_command

    from wan_fixes.cli.main import ReportingGroup
    from wan_fixes.cli.models_check import check

    app = typer.Typer(cls=ReportingGroup, rich_markup_mode=None)
    app.command("check")(check)
    app.callback()(lambda: None)
    try:
        get_command(app)(["check", *arguments], standalone_mode=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_m17_check_says_what_takes_how_much_and_what_would_fit(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run("t2v-14B", "--vram", "16", "--frames", "49", "--width", "832", "--height", "480")
    out = capsys.readouterr().out
    assert code == ExitCode.INCOMPLETE
    assert all(phase in out for phase in ("text encoding", "VAE encoding", "training step"))
    assert "█" in out and "t2v-1.3B@2.1.0" in out and "t2v-14B@2.1.0: " in out
    assert not root.exists(), "nothing is made or changed"


def test_m17_check_tells_programs_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run("t2v-1.3B", "--vram", "1000", "--frames", "17", "--offload", "0.5", "--json")
    found = json.loads(capsys.readouterr().out)
    assert code in (ExitCode.OK, ExitCode.INCOMPLETE), "this machine may have too little main memory or disk"
    assert code == (ExitCode.INCOMPLETE if found["issues"] else ExitCode.OK)
    assert (found["wanted"]["frames"], found["wanted"]["offload"]) == (17, 0.5)
    assert found["hardware"]["vram_free"] == 1000 * GB
    assert found["estimate"]["total"] == max(phase["total"] for phase in found["estimate"]["phases"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["t2v-1.3B", "--mode", "v2v"], "v2v"),
        (["t2v-1.3B", "--precision", "int3"], "no precision"),
        (["t2v-9B"], "the manifest has"),
        (["t2v-1.3B", "--offload", "2"], "offload"),
        (["t2v-1.3B", "--frames", "0"], "frames"),
    ],
)
def test_m17_check_says_what_cannot_be_asked(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run(*arguments) == ExitCode.USAGE
    assert says in capsys.readouterr().err


def test_m12_what_is_complete_needs_no_space(tmp_path: Path) -> None:
    status = ModelStatus("t2v-1.3B@2.1.0#original", ModelState.COMPLETE, tmp_path / "model", bytes_needed=0)
    assert checked("t2v-1.3B", replace(LARGE, disk_free=0), status).issues == ()


def test_m14_no_component_of_an_encrypted_model_is_missed(tmp_path: Path) -> None:
    status = ModelStatus("t2v-1.3B@2.1.0#original", ModelState.COMPLETE, tmp_path, bytes_needed=0)
    spec, variant = MANIFEST.find("t2v-1.3B")
    wanted = WantedSettings.of(spec)
    for sensitive in (False, True):
        found = check_compatibility(
            spec, replace(variant, sensitive=sensitive), wanted, LARGE, manifest=MANIFEST, status=status
        )
        assert bool(found.issues) is not sensitive
