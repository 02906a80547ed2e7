"""Names and manifests: canonical, safe on every system, and with a word for whatever is wrong (M1, M2)."""

from __future__ import annotations

import pickle
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.models import ErrorCode, ModelError, ModelName, load_manifest, parse_name
from wan_fixes.models.layout import ModelResolver, problem_with_root, windows_path_of_wsl
from wan_fixes.models.manifest import version_key
from wan_fixes.models.names import check_paths, is_version, problem_with_path
from wan_fixes.wan.variants import VARIANTS

from .world import manifest_of


def test_m1_the_built_in_manifest_lists_the_released_models() -> None:
    manifest = load_manifest()
    assert {spec.model_type for spec in manifest.models.values()} == set(VARIANTS)
    for spec in manifest.models.values():
        known = VARIANTS[spec.model_type]
        variant = spec.variants[spec.default_variant]
        assert variant.hub is not None and variant.hub.repository == known.repository
        assert len(variant.hub.revision) == 40, "a commit, which never changes"
        assert spec.family == "wan" + known.family.replace(".", "")
        assert (spec.mode, spec.defaults["fps"], spec.defaults["frames"]) == (
            known.mode,
            known.fps,
            known.default_frames,
        )
        assert ("transformer_2" in spec.components) == (known.experts == 2)
        assert ("image_encoder" in spec.components) == known.has_image_encoder
        assert "unet" not in spec.components
        assert spec.pipeline == ("WanImageToVideoPipeline" if known.mode == "i2v" else "WanPipeline")
        assert {file.component for file in variant.files} == {"", *spec.components}
        assert spec.vram.layers == known.layers


def test_m1_names_are_canonical() -> None:
    manifest = load_manifest()
    for text in ("t2v-A14B", "T2V-a14b", "t2v-A14B@2.2.0", "t2v-A14B@2.2.0#original", " t2v-A14B "):
        spec, variant = manifest.find(text)
        assert spec.name(variant.name) == ModelName("t2v-A14B", "2.2.0", "original")
    assert str(spec.name()) == "t2v-A14B@2.2.0#original"
    assert parse_name(str(spec.name())) == spec.name()


@pytest.mark.parametrize("text", ["", "a/b", "../x", "a@", "a@1@2", "a#b#c", "con", "a b", "x" * 100, "a@../1"])
def test_m1_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_name(text)
    assert caught.value.code is ErrorCode.UNKNOWN_MODEL


@pytest.mark.parametrize("name", ["t2v-A15B", "t2v-A14B@9.0.0", "t2v-A14B@2.2.0#fp4"])
def test_m1_what_is_unknown_is_answered_with_what_is_known(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_manifest().find(name)
    assert caught.value.code is ErrorCode.UNKNOWN_MODEL
    assert caught.value.context["known"]


def test_m1_versions_are_numbers() -> None:
    versions = ["2.10.0", "2.9.0", "2.9.0-rc1", "2.0"]
    assert sorted(versions, key=version_key) == ["2.0", "2.9.0-rc1", "2.9.0", "2.10.0"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x.json",
        "a/../b.json",
        "a//b.json",
        "./a.json",
        "a\\b.json",
        "C:/a.json",
        "a/con",
        "a/CON.json",
        "lpt1.txt",
        "com¹.json",
        "a./b.json",
        "a /b.json",
        " a.json",
        "a\nb.json",
        "a\0.json",
        "a?.json",
        "x" * 256,
        "y/" * 600 + "z",
        "model.bin",
        "model.PTH",
        "run.py",
    ],
)
def test_m1_paths_that_some_system_cannot_take_are_refused(path: str) -> None:
    assert problem_with_path(path) is not None


@pytest.mark.parametrize(
    "paths", [("a.json", "a.json"), ("a/b.json", "A/c.json"), ("a/b.json", "a/B.json"), ("a", "a/b.json")]
)
def test_m1_paths_that_clash_on_some_system_are_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(ModelError) as caught:
        check_paths(paths, "a test")
    assert caught.value.code is ErrorCode.UNSAFE_PATH


@given(st.text(max_size=40))
def test_m1_a_path_that_is_taken_stays_in_its_folder(path: str) -> None:
    if problem_with_path(path) is None:
        for system in (PurePosixPath("/models"), PureWindowsPath("C:\\models")):
            joined = system / path
            assert joined.is_relative_to(system) and ".." not in joined.parts
            assert joined.parts[: len(system.parts)] == system.parts


CHANGES = {
    "label": ('label = "Tiny"', "label = 3"),
    "family": ('"wan21"', '"wan3"'),
    "mode": ('"t2v"', '"v2v"'),
    "components": ('["scheduler", "text_encoder", "tokenizer", "transformer", "vae"]', "[]"),
    "layers": ("layers = 30", 'layers = "many"'),
    "hidden_size": ("hidden_size = 1536", "hidden_size = -1"),
    "no layers": ("layers = 30", "layers = 0"),
    "no hidden size": ("hidden_size = 1536", "hidden_size = 0"),
    "a default that is unknown": ("fps = 16", "speed = 16"),
    "fps of a default": ("fps = 16", "fps = 0"),
    "frames of a default": ("fps = 16", 'frames = "many"'),
    "width of a default": ("fps = 16", "width = 832.5"),
    "height of a default": ("fps = 16", "height = true"),
    "scheduler of a default": ("fps = 16", "scheduler = 3"),
    "precision of a default": ("fps = 16", "precision = 16"),
    "guidance of a default": ("fps = 16", "guidance = [3.0]"),
    "fallback of no version": ('label = "Tiny"', 'label = "Tiny"\nfallbacks = ["tiny@9.9"]'),
    "fallback of no variant": ('label = "Tiny"', 'label = "Tiny"\nfallbacks = ["tiny#fp8"]'),
    "fallback of no repository": ('label = "Tiny"', 'label = "Tiny"\nfallbacks = ["Wan-AI/x"]'),
    "precision": ('"fp32"', '"fp4"'),
    "repository": ("Wan-AI/Tiny-Diffusers", "https://evil.example"),
    "revision": ('"main"', '"../main"'),
    "colour": ('label = "Tiny"', 'label = "Tiny"\ncolour = "red"'),
    "source": ("hub = {", "house = {"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_m1_what_is_wrong_with_a_manifest_is_named(change: tuple[str, str]) -> None:
    text = manifest_of().text.decode()
    assert change[0] in text
    with pytest.raises(ModelError) as caught:
        manifest_of(text.replace(*change))
    assert caught.value.code is ErrorCode.INVALID_MANIFEST
    assert "tiny@1.0.0" in caught.value.reason


def two_models(first: tuple[str, str], second: tuple[str, str]) -> str:
    """A manifest of two models, of each the name and the variant."""
    text = manifest_of().text.decode()
    head, models = text.partition("[models")[0], text[text.index("[models") :]
    texts = (models.replace("tiny@1.0.0", name).replace("original", variant) for name, variant in (first, second))
    return head + "\n".join(texts)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a@1.0-rc", "fp8"), ("a@1.0", "rc-fp8")),
        (("a@1.0-RC", "fp8"), ("a@1.0-rc", "fp8")),
        (("a@1.0-rc", "fp8"), ("A@1.0", "RC-FP8")),
    ],
)
def test_m2_two_models_never_have_one_folder(first: tuple[str, str], second: tuple[str, str]) -> None:
    with pytest.raises(ModelError) as caught:
        manifest_of(two_models(first, second))
    assert caught.value.code is ErrorCode.INVALID_MANIFEST
    assert "#".join(first) in caught.value.reason and "#".join(second) in caught.value.reason


def test_m2_two_variants_never_have_one_folder() -> None:
    other = '[models."tiny@1.0.0".variants.Original]\nprecision = "fp8"\nhub = { repository = "Wan-AI/Tiny-Diffusers" }'
    with pytest.raises(ModelError, match="folder") as caught:
        manifest_of(files=other)
    assert "tiny@1.0.0#original" in caught.value.reason and "tiny@1.0.0#Original" in caught.value.reason


def test_m1_ids_that_differ_in_case_alone_are_refused() -> None:
    with pytest.raises(ModelError, match="only the case") as caught:
        manifest_of(two_models(("tiny@1.0", "original"), ("TINY@2.0", "original")))
    assert "'tiny'" in caught.value.reason and "TINY@2.0" in caught.value.reason


def test_m1_a_fallback_is_whatever_finds_a_model() -> None:
    text = two_models(("a@1.0", "original"), ("b@1.0", "original"))
    for fallback in ("b", "B@1.0", "b@1.0#original", "Wan-AI/Tiny-Diffusers"):
        manifest = manifest_of(text.replace("label", f'fallbacks = ["{fallback}"]\nlabel', 1))
        assert manifest.models["a", "1.0"].fallbacks == (fallback,)


@pytest.mark.parametrize("text", ["1.٢", "२.0", "2.0.²"])
def test_m1_versions_have_ascii_digits(text: str) -> None:
    assert not is_version(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ErrorCode.SCHEMA_VERSION),
        ("schema_version = 99", ErrorCode.SCHEMA_VERSION),
        ('schema_version = "1"', ErrorCode.SCHEMA_VERSION),
        ("schema_version = true", ErrorCode.SCHEMA_VERSION),
        ("schema_version = 1", ErrorCode.INVALID_MANIFEST),
        ("schema_version = 1\nmodels = 3", ErrorCode.INVALID_MANIFEST),
        ("not toml at all [", ErrorCode.INVALID_MANIFEST),
    ],
)
def test_m1_an_incompatible_manifest_says_what_to_do(tmp_path: Path, text: str, code: ErrorCode) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(ModelError) as caught:
        load_manifest(path)
    assert caught.value.code is code
    assert caught.value.fix and str(path) in str(caught.value)


def test_m1_files_of_a_manifest_are_checked() -> None:
    for entry in ('path = "../x.json"', 'path = "a.json", size = -1', 'path = "a.json", sha256 = "00"', "size = 1"):
        with pytest.raises(ModelError) as caught:
            manifest_of(files=f"files = [{{ {entry} }}]")
        assert caught.value.code is ErrorCode.INVALID_MANIFEST


def test_m2_paths_follow_from_the_root_and_the_name(tmp_path: Path) -> None:
    spec, _ = load_manifest().find("t2v-A14B")
    resolver, name = ModelResolver(tmp_path), spec.name()
    assert resolver.model_folder(spec, name) == tmp_path / "wan22" / "t2v-A14B@2.2.0-original"
    assert resolver.partial_folder(name) == tmp_path / ".tmp" / "t2v-A14B@2.2.0-original.partial"
    assert {resolver.locks.name, resolver.state.name} == {".locks", ".state"}


@pytest.mark.parametrize(
    ("root", "is_fine"),
    [
        ("C:\\models", True),
        ("\\\\server\\share\\models", True),
        ("\\\\wsl.localhost\\Ubuntu\\home\\me\\models", True),
        ("C:models", False),
        ("\\models", False),
        ("C:\\" + "long\\" * 40, False),
        ("\\\\?\\C:\\" + "long\\" * 40, True),
    ],
)
def test_m2_where_models_can_lie_on_windows(root: str, is_fine: bool) -> None:
    assert (problem_with_root(PureWindowsPath(root), windows=True) is None) == is_fine


def test_m2_where_windows_sees_a_folder_of_wsl() -> None:
    assert windows_path_of_wsl("/mnt/d/models/wan") == "D:\\models\\wan"
    assert windows_path_of_wsl("/home/me/models") is None
    assert windows_path_of_wsl("/mnt/data/models") is None


def test_m7_errors_cross_processes() -> None:
    error = ModelError(ErrorCode.RATE_LIMIT, "no", path="/x", reason="r", fix="f", retry_after=3.0, context={"a": 1})
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.retry_after, str(copy), copy.context) == (error.code, 3.0, str(error), {"a": 1})
