"""What goes into an entry comes out bit for bit, or an EntryError does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wan_fixes.errors import EntryError
from wan_fixes.store import payload
from wan_fixes.store.payload import encode, open_entry, read_header, read_item, verify_data
from wan_fixes.store.tensors import DTYPES

KEY = "0123456789abcdef"
TORCH_DTYPES = [getattr(torch, dtype.torch_name) for dtype in DTYPES.values() if hasattr(torch, dtype.torch_name)]

names = st.text(min_size=1, max_size=10).filter(lambda name: name != "__metadata__")
plain = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(st.none() | inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), st.none() | inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A finite tensor of any dtype, of 0 to 4 dimensions, contiguous or not."""
    dtype = draw(st.sampled_from(TORCH_DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = math.prod(shape)
    raw = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, 256, count * dtype.itemsize, np.uint8)
    if dtype == torch.bool:
        raw &= 1
    flat = torch.from_numpy(raw).view(dtype) if count else torch.empty(0, dtype=dtype)
    if count and (dtype.is_floating_point or dtype.is_complex):
        wide = torch.view_as_real(flat) if dtype.is_complex else flat.to(torch.float64)
        finite = torch.isfinite(wide).all(dim=-1) if dtype.is_complex else torch.isfinite(wide)
        flat.view(torch.uint8).reshape(count, -1)[~finite] = 1
    tensor = flat.reshape(shape)
    if draw(st.booleans()) and tensor.dim() >= 2:
        tensor = tensor.transpose(0, -1)
    if draw(st.booleans()) and tensor.dim() >= 1:
        tensor = tensor[::2]
    return tensor


items = st.dictionaries(names, tensors() | plain, max_size=6)


def same(one: Any, other: Any) -> bool:
    """Equal in kind, dtype, shape and every bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return one.numel() == 0 or torch.equal(
            *(part.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8) for part in (one, other))
        )
    return repr(one) == repr(other)


def write(path: Path, item: dict[str, Any], key: str = KEY) -> bytes:
    content = b"".join(encode(key, item).parts)
    path.write_bytes(content)
    return content


def read(path: Path, wanted: list[str] | None = None, *, verify: bool = True, key: str = KEY) -> dict[str, Any]:
    with open_entry(path) as file:
        return read_item(file, path, read_header(file, path, key), wanted, verify=verify)


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    return tmp_path / f"{KEY}.safetensors"


SAMPLE = {
    "latent": torch.arange(24, dtype=torch.bfloat16).reshape(2, 3, 4),
    "mask": torch.tensor(True),
    "prompt": "a film of a cat",
    "crop": (480, 832),
}

quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(item=items, verify=st.booleans())
def test_an_item_comes_back_bit_for_bit(entry: Path, item: dict[str, Any], verify: bool) -> None:
    write(entry, item)
    found = read(entry, verify=verify)
    assert list(found) == list(item)
    assert all(same(found[name], item[name]) for name in item)


@quick
@given(item=items, data=st.data())
def test_part_of_an_item_can_be_read(entry: Path, item: dict[str, Any], data: st.DataObject) -> None:
    write(entry, item)
    wanted = data.draw(st.lists(st.sampled_from(list(item)), unique=True) if item else st.just([]))
    for verify in (True, False):
        found = read(entry, wanted, verify=verify)
        assert list(found) == wanted
        assert all(same(found[name], item[name]) for name in wanted)


@quick
@given(item=items)
def test_any_safetensors_reader_opens_an_entry(entry: Path, item: dict[str, Any]) -> None:
    item = {name: value for name, value in item.items() if getattr(value, "dtype", None) != torch.float8_e8m0fnu}
    write(entry, item)
    found = safetensors.torch.load_file(entry)
    assert found.keys() == {name for name in item if isinstance(item[name], torch.Tensor)}
    assert all(same(found[name], item[name]) for name in found)


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_every_dtype_is_tried(entry: Path, dtype: torch.dtype) -> None:
    value = torch.ones(3).to(dtype)
    write(entry, {"x": value, "scalar": value[0]})
    found = read(entry)
    assert same(found["x"], value) and found["x"].dtype == dtype
    assert found["scalar"].shape == ()


def test_tensors_of_one_entry_do_not_share_memory(entry: Path) -> None:
    write(entry, SAMPLE)
    found = read(entry)
    assert found["latent"].untyped_storage().nbytes() == found["latent"].nbytes


def test_arrays_are_stored_like_tensors(entry: Path) -> None:
    write(
        entry,
        {
            "big": np.arange(6, dtype=">f4").reshape(2, 3).T,
            "none": np.zeros((0, 2)),
            "one": np.array(7),
            "odd": np.arange(4)[::4],
        },
    )
    found = read(entry)
    assert same(found["big"], torch.arange(6, dtype=torch.float32).reshape(2, 3).T.contiguous())
    assert found["none"].shape == (0, 2) and found["one"].item() == 7 and found["odd"].tolist() == [0]


def test_special_views_are_stored_as_what_they_show(entry: Path) -> None:
    value = torch.tensor([1 + 2j, 3 - 4j])
    parameter = torch.nn.Parameter(torch.ones(2))
    write(entry, {"conj": value.conj(), "imag": value.conj().imag, "expanded": torch.ones(1).expand(5), "p": parameter})
    found = read(entry)
    assert found["conj"].tolist() == [1 - 2j, 3 + 4j]
    assert found["imag"].tolist() == [-2.0, 4.0]
    assert found["expanded"].tolist() == [1.0] * 5
    assert type(found["p"]) is torch.Tensor and not found["p"].requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_tensor_on_the_gpu_is_stored_from_the_cpu(entry: Path) -> None:
    write(entry, {"x": SAMPLE["latent"].cuda()})
    assert same(read(entry)["x"], SAMPLE["latent"])


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        math.nan,
        math.inf,
        [1.0, {"a": math.nan}],
        torch.tensor([1.0, math.nan]),
        torch.tensor(-math.inf),
        torch.tensor([0.0] * 1000 + [math.nan], dtype=torch.bfloat16),
        torch.tensor([1.0, math.nan]).to(torch.float8_e5m2),
        torch.tensor([complex(0, math.inf)]),
        np.array([math.nan]),
    ],
    ids=repr,
)
def test_none_nan_and_infinity_are_refused_by_name(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^latent"):
        encode(KEY, {"good": 1, "latent": wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        b"bytes",
        {1, 2},
        Path("x"),
        np.float64(1),
        {1: 2},
        (object(),),
        torch.ones(2).to_sparse(),
        torch.empty(2, device="meta"),
        torch.ones(2, dtype=torch.complex128),
        np.array(["text"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_entry_can_hold_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^latent"):
        encode(KEY, {"good": 1, "latent": wrong})


@pytest.mark.parametrize("name", ["__metadata__", 1, None])
def test_a_name_that_would_break_the_format_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match="name"):
        encode(KEY, {name: 1})


def test_values_too_long_for_a_header_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MAX_HEADER_BYTES", 1000)
    with pytest.raises(ValueError, match="more than the 1000"):
        encode(KEY, {"prompt": "x" * 1000})


def test_a_name_that_an_entry_lacks_is_an_error_that_names_it(entry: Path) -> None:
    write(entry, SAMPLE)
    with pytest.raises(EntryError, match="'image'"):
        read(entry, ["latent", "image"])


# Damage


@quick
@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
@example(position=8 + 29, flip=0x20)  # a checksum's letter becomes its capital
def test_no_flipped_byte_goes_unnoticed(entry: Path, position: int, flip: int) -> None:
    content = bytearray(write(entry, SAMPLE))
    content[position % len(content)] ^= flip
    entry.write_bytes(content)
    with pytest.raises(EntryError) as caught:
        read(entry)
    assert caught.value.path == str(entry) and caught.value.reason and caught.value.fix


def test_no_byte_can_change(entry: Path) -> None:
    content = write(entry, SAMPLE)
    for position in range(len(content)):
        for flip in (0x01, 0x20, 0xFF):
            entry.write_bytes(content[:position] + bytes([content[position] ^ flip]) + content[position + 1 :])
            with pytest.raises(EntryError):
                read(entry)


def test_no_truncation_goes_unnoticed_even_without_the_checksum(entry: Path) -> None:
    content = write(entry, SAMPLE)
    for length in range(len(content)):
        entry.write_bytes(content[:length])
        with pytest.raises(EntryError):
            read(entry, verify=False)


@quick
@given(extra=st.binary(min_size=1, max_size=50))
def test_no_appended_byte_goes_unnoticed(entry: Path, extra: bytes) -> None:
    entry.write_bytes(write(entry, SAMPLE) + extra)
    with pytest.raises(EntryError):
        read(entry, verify=False)


@quick
@given(content=st.binary(max_size=200), length=st.integers(0, 2**64 - 1) | st.integers(0, 200))
def test_foreign_bytes_are_never_an_entry(entry: Path, content: bytes, length: int) -> None:
    for foreign in (content, length.to_bytes(8, "little") + content):
        entry.write_bytes(foreign)
        with pytest.raises(EntryError):
            read(entry)


def test_the_entry_of_another_sample_is_refused(entry: Path) -> None:
    write(entry, SAMPLE, key="fedcba9876543210")
    with pytest.raises(EntryError, match="another sample"):
        read(entry)


def test_a_plain_safetensors_file_is_refused(entry: Path) -> None:
    safetensors.torch.save_file({"latent": SAMPLE["latent"]}, entry, metadata={"format": "pt"})
    with pytest.raises(EntryError, match="not written by this program"):
        read(entry)


def test_an_entry_of_another_version_is_named_as_such(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "FORMAT_VERSION", 2)
    write(entry, SAMPLE)
    monkeypatch.undo()
    with pytest.raises(EntryError, match="entry format '2', and this program reads 1"):
        read(entry)


def test_an_oversized_header_is_refused_before_it_is_read(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with entry.open("wb") as file:
        file.write((1 << 40).to_bytes(8, "little"))
        file.truncate(1 << 30)  # sparse: takes no space
    with pytest.raises(EntryError, match="header"):
        read(entry)
    write(entry, SAMPLE)
    monkeypatch.setattr(payload, "MAX_HEADER_BYTES", 100)
    with pytest.raises(EntryError, match="header"):
        read(entry)


def forge(entry: Path, change: Any) -> None:
    """An entry with a changed header whose checksum is right: made on purpose, not by accident."""
    content = write(entry, SAMPLE)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    if isinstance(header["__metadata__"], dict):
        header["__metadata__"]["checksum"] = "0" * 32
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw = raw.replace(b"0" * 32, payload._header_checksum(raw).encode(), 1)
    entry.write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])


def set_at(*path: str, to: Any) -> Any:
    def change(header: dict[str, Any]) -> None:
        for name in path[:-1]:
            header = header[name]
        header[path[-1]] = to

    return change


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "change",
    [
        set_at("latent", "data_offsets", to=[0, 2**62]),
        set_at("latent", "data_offsets", to=[-48, 0]),
        set_at("latent", "data_offsets", to=[0.0, 48.0]),
        set_at("latent", "data_offsets", to=[0]),
        set_at("latent", "shape", to=[2**31, 2**31, 2**31]),
        set_at("latent", "shape", to=[-2, -3, 4]),
        set_at("latent", "shape", to=[True, 24]),
        set_at("latent", "shape", to="24"),
        set_at("latent", "dtype", to="PICKLE"),
        set_at("latent", "dtype", to=[]),
        set_at("latent", to=None),
        set_at("mask", "data_offsets", to=[0, 1]),
        set_at("extra", to={"dtype": "U8", "shape": [0], "data_offsets": [49, 49]}),
        set_at("__metadata__", "names", to='["latent"]'),
        set_at("__metadata__", "names", to="7"),
        set_at("__metadata__", "names", to=DEEP),
        set_at("__metadata__", "values", to=DEEP),
        set_at("__metadata__", "values", to="[]"),
        set_at("__metadata__", "values", to='{"prompt":{"set":[]},"crop":1}'),
        set_at("__metadata__", "values", to=7),
        set_at("__metadata__", "data_checksum", to=None),
        set_at("__metadata__", "version", to=1),
        set_at("__metadata__", to=[]),
        set_at("__metadata__", to={}),
        set_at("__metadata__", to=None),
    ],
)
def test_a_forged_header_is_refused(entry: Path, change: Any) -> None:
    forge(entry, change)
    with pytest.raises(EntryError):
        read(entry)


def test_forging_without_a_change_gives_a_sound_entry(entry: Path) -> None:
    forge(entry, lambda header: None)
    assert same(read(entry)["latent"], SAMPLE["latent"])


def test_data_can_be_verified_without_making_tensors(entry: Path) -> None:
    content = write(entry, SAMPLE)
    with open_entry(entry) as file:
        verify_data(file, entry, read_header(file, entry, KEY))
    entry.write_bytes(content[:-1] + b"\x07")
    with open_entry(entry) as file, pytest.raises(EntryError, match="tensors do not match"):
        verify_data(file, entry, read_header(file, entry, KEY))
