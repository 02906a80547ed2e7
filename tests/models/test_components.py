"""A model folder has the components of its model, or the one that it lacks is named (M8, M12, M19)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.models import ErrorCode, ModelError, ModelSpec, load_manifest
from wan_fixes.models.components import find_problems, require_components

SHARD = "diffusion_pytorch_model-0000{}-of-00002.safetensors"


def spec_of(name: str) -> ModelSpec:
    return load_manifest().find(name)[0]


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def released(folder: Path, spec: ModelSpec) -> Path:
    """The files of the released model by name, with content where this room reads any: what the manifest lists."""
    for file in spec.variants[spec.default_variant].files:
        path = folder / file.path
        write(path, {})
        if path.suffix != ".json":
            path.write_bytes(b"weights")
    index: dict[str, Any] = {name: ["a library", "a class"] for name in spec.components}
    index |= {"_class_name": spec.pipeline, "_diffusers_version": "0.33.0.dev0", "boundary_ratio": None}
    index |= {name: [None, None] for name in ("image_encoder", "transformer_2") if name not in spec.components}
    write(folder / "model_index.json", index)
    for path in folder.rglob("*.safetensors.index.json"):
        stem = path.name.removesuffix(".safetensors.index.json")
        shards = sorted(shard.name for shard in path.parent.glob(f"{stem}-*.safetensors"))
        write(path, {"weight_map": {f"layer{number}": shard for number, shard in enumerate(shards)}})
    return folder


def said(folder: Path, spec: ModelSpec, **options: Any) -> list[str]:
    return [str(problem) for problem in find_problems(folder, spec, **options)]


@pytest.mark.parametrize("name", sorted(spec.model_id for spec in load_manifest().models.values()))
def test_m19_a_released_model_is_whole(tmp_path: Path, name: str) -> None:
    spec = spec_of(name)
    assert said(released(tmp_path, spec), spec) == []
    require_components(tmp_path, spec)


@pytest.mark.parametrize(
    ("fixture", "name", "other"),
    [
        ("tiny_wan", "t2v-1.3B", "i2v-A14B"),
        ("tiny_wan_two_experts", "t2v-A14B", "t2v-14B"),
        ("tiny_wan_i2v", "i2v-14B", "i2v-A14B"),
        ("tiny_wan_i2v_two_experts", "i2v-A14B", "i2v-14B"),
        ("tiny_wan_ti2v", "ti2v-5B", "t2v-A14B"),
    ],
)
def test_m19_what_diffusers_saves_is_whole_for_its_model_and_not_for_another(
    request: pytest.FixtureRequest, fixture: str, name: str, other: str
) -> None:
    folder = request.getfixturevalue(fixture)
    assert said(folder, spec_of(name)) == []
    assert said(folder, spec_of(other))


def test_m19_text_to_video_asks_for_no_image_encoder_and_image_to_video_names_it(tmp_path: Path) -> None:
    text, image = spec_of("t2v-14B"), spec_of("i2v-14B")
    released(tmp_path, image)
    shutil.rmtree(tmp_path / "image_encoder")
    assert said(tmp_path, image) == [
        "image_encoder (makes embeddings of the first frame): the folder is missing",
    ]
    released(tmp_path / "text", text)
    assert not (tmp_path / "text" / "image_encoder").exists()
    assert said(tmp_path / "text", text) == []


@pytest.mark.parametrize("component", spec_of("i2v-14B").components)
def test_m8_a_component_that_is_gone_is_named_with_what_it_is_for(tmp_path: Path, component: str) -> None:
    spec = spec_of("i2v-14B")
    shutil.rmtree(released(tmp_path, spec) / component)
    (problem,) = find_problems(tmp_path, spec)
    assert (problem.component, problem.path) == (component, tmp_path / component)
    assert problem.purpose in str(problem) and problem.purpose
    assert said(tmp_path, spec, without=(component,)) == []
    with pytest.raises(ModelError, match=r"wan models ensure i2v-14B@2\.1\.0") as caught:
        require_components(tmp_path, spec)
    assert caught.value.code is ErrorCode.MISSING_FILES
    assert caught.value.context == {"components": [component]}


def test_m8_an_expert_that_can_be_done_without_stops_nothing(tmp_path: Path) -> None:
    spec = spec_of("t2v-A14B")
    shutil.rmtree(released(tmp_path, spec) / "transformer_2")
    assert [problem.is_optional for problem in find_problems(tmp_path, spec)] == [True]
    require_components(tmp_path, spec)


def test_m8_only_the_shards_that_the_index_names_are_asked_for(tmp_path: Path) -> None:
    spec = spec_of("t2v-1.3B")
    part = released(tmp_path, spec) / "transformer"
    (part / "diffusion_pytorch_model.fp16-00001-of-00009.safetensors").write_bytes(b"of another set")
    assert said(tmp_path, spec) == []
    (part / SHARD.format(2)).unlink()
    assert [problem.path for problem in find_problems(tmp_path, spec)] == [part / SHARD.format(2)]
    (part / SHARD.format(2)).write_bytes(b"")
    assert ["is empty" in text for text in said(tmp_path, spec)] == [True]


FAULTS = {
    "no index": ("model_index.json", None, "model_index.json is missing"),
    "an index that is cut": ("model_index.json", b'{"_class_name": ', "cannot be read as JSON"),
    "an index of no object": ("model_index.json", b"[1]", "holds no JSON object"),
    "an index of nested lists": ("model_index.json", b"[" * 200_000, "cannot be read as JSON"),
    "an index that has no end": ("model_index.json", b" " * ((16 << 20) + 1), "larger than 16 MiB"),
    "an index that is no text": ("model_index.json", b"\xff\xfe\x00{", "cannot be read as JSON"),
    "another pipeline": ("model_index.json", b'{"_class_name": "FluxPipeline"}', "describes 'FluxPipeline'"),
    "a class with control characters": ("model_index.json", b'{"_class_name": "\\u001b[31m"}', r"'\x1b[31m'"),
    "no configuration": ("vae/config.json", None, "config.json is missing"),
    "no weights": ("vae/diffusion_pytorch_model.safetensors", None, "nor diffusion_pytorch_model.safetensors is there"),
    "empty weights": ("vae/diffusion_pytorch_model.safetensors", b"", "the file is empty"),
    "no vocabulary": ("tokenizer/tokenizer_config.json", None, "tokenizer_config.json is missing"),
    "no map": ("transformer/diffusion_pytorch_model.safetensors.index.json", b"{}", "it has no weight_map"),
    "a shard that is pickled": (
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        b'{"weight_map": {"a": "pytorch_model.bin"}}',
        "no safetensors file beside it",
    ),
    "a shard elsewhere": (
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        b'{"weight_map": {"a": "../../secret.safetensors"}}',
        "no safetensors file beside it",
    ),
    "a shard that is no name": (
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        b'{"weight_map": {"a": [1]}}',
        "no safetensors file beside it",
    ),
}


@pytest.mark.parametrize(("path", "content", "reason"), FAULTS.values(), ids=FAULTS)
def test_m12_what_is_wrong_is_said(tmp_path: Path, path: str, content: bytes | None, reason: str) -> None:
    spec = spec_of("t2v-1.3B")
    file = released(tmp_path, spec) / path
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert any(reason in text for text in said(tmp_path, spec))


def test_m12_pickled_weights_are_named_and_never_enough(tmp_path: Path) -> None:
    spec = spec_of("t2v-1.3B")
    part = released(tmp_path, spec) / "vae"
    (part / "diffusion_pytorch_model.safetensors").rename(part / "diffusion_pytorch_model.bin")
    assert ["diffusion_pytorch_model.bin can run code" in text for text in said(tmp_path, spec)] == [True]


def test_m12_a_folder_of_two_experts_is_not_taken_for_one(tmp_path: Path) -> None:
    released(tmp_path, spec_of("t2v-A14B"))
    assert "transformer_2" in [problem.component for problem in find_problems(tmp_path, spec_of("t2v-14B"))]


def test_m12_a_folder_that_is_not_there_is_one_problem(tmp_path: Path) -> None:
    assert len(find_problems(tmp_path / "nowhere", spec_of("t2v-1.3B"))) == 1


def test_m1_a_component_of_another_manifest_must_have_a_folder_that_holds_something(tmp_path: Path) -> None:
    spec = replace(spec_of("t2v-1.3B"), components=("controlnet",))
    write(tmp_path / "model_index.json", {"_class_name": spec.pipeline, "controlnet": ["diffusers", "Controlled"]})
    (tmp_path / "controlnet").mkdir()
    assert said(tmp_path, spec) == ["controlnet: the folder is empty"]
    (tmp_path / "controlnet" / "weights.safetensors").write_bytes(b"weights")
    assert said(tmp_path, spec) == []
