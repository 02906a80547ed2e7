"""A smoke test runs every kind of WAN for a step or two, and finds those that do not work (M18)."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from jsonschema import Draft202012Validator
from models.named_model import served

from wan_fixes.cli.console import ExitCode
from wan_fixes.errors import CriticalError, UserError
from wan_fixes.hosts.standalone.smoke import smoke_test, variant_of
from wan_fixes.models import ModelEnsurer
from wan_fixes.models.sealing import new_key
from wan_fixes.schemas import load_schema
from wan_fixes.wan.variants import get_variant

T2V = "WAN_2_1_T2V_1_3B"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_wan: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be broken."""
    return Path(shutil.copytree(tiny_wan, tmp_path / "model"))


def change(path: Path, how: Callable[[torch.Tensor], object], name: str) -> None:
    state = safetensors.torch.load_file(path)
    how(state[name])
    safetensors.torch.save_file(state, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        ("tiny_wan", T2V),
        ("tiny_wan_two_experts", "WAN_2_2_T2V_A14B"),
        ("tiny_wan_i2v", "WAN_2_1_I2V_14B"),
        ("tiny_wan_i2v_two_experts", "WAN_2_2_I2V_A14B"),
        ("tiny_wan_ti2v", "WAN_2_2_TI2V_5B"),
    ],
)
def test_m18_every_kind_of_model_is_recognised_and_runs(
    request: pytest.FixtureRequest, fixture: str, name: str
) -> None:
    folder = request.getfixturevalue(fixture)
    result = smoke_test(folder, variant_of(folder), device="cpu")
    assert (result.model_type, result.device, result.peak_gpu_bytes) == (name, "cpu", None)
    assert list(result.seconds) == ["loading", "text encoding", "denoising", "decoding"]
    assert all(seconds > 0 for seconds in result.seconds.values())


@pytest.mark.parametrize("part", ["transformer", "transformer_2"])
def test_m18_an_expert_whose_numbers_overflow_is_found(tiny_wan_two_experts: Path, tmp_path: Path, part: str) -> None:
    folder = Path(shutil.copytree(tiny_wan_two_experts, tmp_path / "model"))
    change(folder / part / WEIGHTS, lambda weight: weight.fill_(3e38), "proj_out.weight")
    with pytest.raises(CriticalError, match="the latents hold") as caught:
        smoke_test(folder, variant_of(folder), device="cpu")
    assert "wan models verify" in caught.value.fix


def test_m18_a_vae_whose_numbers_overflow_is_found(folder: Path) -> None:
    change(folder / "vae" / WEIGHTS, lambda weight: weight.fill_(3e38), "decoder.conv_in.weight")
    with pytest.raises(CriticalError, match="the decoded clip"):
        smoke_test(folder, get_variant(T2V), device="cpu")


def test_m18_a_folder_that_lacks_a_shard_is_refused_before_anything_runs(folder: Path) -> None:
    (folder / "transformer" / WEIGHTS).unlink()
    with pytest.raises(UserError, match="transformer") as caught:
        smoke_test(folder, get_variant(T2V), device="cpu")
    assert caught.value.path == str(folder / "transformer" / WEIGHTS)


class Sabotage:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_m14_pickled_weights_are_refused_unread(folder: Path, tmp_path: Path) -> None:
    (folder / "vae" / WEIGHTS).unlink()
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Sabotage(tmp_path / "harmed")))
    with pytest.raises(UserError, match="pickled"):
        smoke_test(folder, get_variant(T2V), device="cpu")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("part", ["tokenizer", "transformer"])
def test_m14_code_that_an_index_names_is_not_run(folder: Path, tmp_path: Path, part: str) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index[part][0] = "evil"
    (folder / "model_index.json").write_text(json.dumps(index))
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'harmed')!r}).touch()\n"
    for place in (folder, folder / part):
        (place / "evil.py").write_text(code)
    smoke_test(folder, get_variant(T2V), steps=1, device="cpu")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("device", "says"),
    [("cuda:99", "there is no device cuda:99"), ("toaster", "is no device"), ("meta", "meta is no device for this")],
)
def test_m18_a_device_that_is_not_there_is_said(tiny_wan: Path, device: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        smoke_test(tiny_wan, get_variant(T2V), device=device)
    assert caught.value.fix


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000])
def test_m18_a_folder_that_is_no_model_is_said(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="no model in diffusers' layout"):
        variant_of(tmp_path)
    (tmp_path / "model_index.json").write_bytes(content)
    with pytest.raises(UserError, match="no model in diffusers' layout"):
        variant_of(tmp_path)


def test_m18_a_model_of_something_else_is_no_wan(folder: Path) -> None:
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps(config | {"in_channels": 64}))
    with pytest.raises(UserError, match="no WAN has 1 transformers of 64 channels"):
        variant_of(folder)


@pytest.mark.parametrize(("heads", "layers", "name"), [(12, 30, T2V), (40, 40, "WAN_2_1_T2V_14B"), (4, 2, T2V)])
def test_m18_models_that_differ_in_size_are_told_apart(folder: Path, heads: int, layers: int, name: str) -> None:
    path = folder / "transformer" / "config.json"
    sizes = {"num_attention_heads": heads, "num_layers": layers}
    path.write_text(json.dumps(json.loads(path.read_text()) | sizes))
    assert variant_of(folder).name == name


@pytest.mark.gpu
def test_m18_a_model_runs_on_the_gpu(tiny_wan_two_experts: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    result = smoke_test(tiny_wan_two_experts, variant_of(tiny_wan_two_experts))
    assert result.peak_gpu_bytes is not None and result.peak_gpu_bytes > 0


# The command


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command as `wan models` will have it: exit code, output, errors."""
    import typer
    from typer.main import get_command

    from wan_fixes.cli.main import ReportingGroup
    from wan_fixes.cli.models_smoke import smoke

    app = typer.Typer(cls=ReportingGroup, rich_markup_mode=None)
    app.command("smoke")(smoke)
    app.callback()(lambda: None)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            get_command(app)(["smoke", *arguments])
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return call


def test_m17_smoke_tells_people_and_programs(tiny_wan: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run(str(tiny_wan), "--device", "cpu", "--steps", "1")
    assert code == ExitCode.OK and "works" in out and "denoising" in out
    code, out, _ = run(str(tiny_wan), "--device", "cpu", "--steps", "1", "--json")
    found = json.loads(out)
    assert (code, found["model_type"], found["steps"]) == (ExitCode.OK, T2V, 1)
    Draft202012Validator(load_schema("smoke")).validate(found)


def test_m17_smoke_of_a_model_by_name(
    tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
) -> None:
    with served(tiny_wan, T2V, tmp_path, monkeypatch):
        code, _, said = run("tiny", "--device", "cpu")
        assert code == ExitCode.FAILED and "wan models ensure tiny" in said
        folder = ModelEnsurer().ensure("tiny")
        code, out, _ = run("tiny", "--device", "cpu", "--json")
        assert (code, json.loads(out)["folder"]) == (ExitCode.OK, str(folder))


def test_m17_smoke_of_what_is_no_model_fails(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, said = run(str(tmp_path))
    assert code == ExitCode.USAGE and "no model in diffusers' layout" in said


def test_m14_smoke_opens_an_encrypted_model(
    tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.setenv("WAN_MODELS_KEYRING", "0")
    monkeypatch.setenv("WAN_MODELS_ENCRYPTION_KEY", new_key())
    with served(tiny_wan, T2V, tmp_path, monkeypatch) as hub:
        manifest = tmp_path / "tiny.toml"
        manifest.write_text(f"{manifest.read_text()}\nsensitive = true\n")
        sealed = ModelEnsurer().ensure("tiny", is_opened=False)
        hub.requests.clear()
        code, out, said = run("tiny", "--device", "cpu", "--steps", "1", "--json")
    assert code == ExitCode.OK, said
    assert json.loads(out)["folder"] != str(sealed) and hub.requests == []
