"""Tensors as bytes and back: the dtypes of the safetensors format. Imports torch and numpy only where it needs them."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch


class DType(NamedTuple):
    """A dtype's name in safetensors, in torch and in numpy (None: numpy has no such type), and its size in bytes."""

    name: str
    torch_name: str
    numpy_name: str | None
    size: int


# https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs, `Dtype`; without the packed
# four- and six-bit types, which the library cannot read back into torch either.
DTYPES = {
    dtype.name: dtype
    for dtype in (
        DType("BOOL", "bool", "bool", 1),
        DType("U8", "uint8", "uint8", 1),
        DType("I8", "int8", "int8", 1),
        DType("U16", "uint16", "uint16", 2),
        DType("I16", "int16", "int16", 2),
        DType("U32", "uint32", "uint32", 4),
        DType("I32", "int32", "int32", 4),
        DType("U64", "uint64", "uint64", 8),
        DType("I64", "int64", "int64", 8),
        DType("F8_E4M3", "float8_e4m3fn", None, 1),
        DType("F8_E4M3FNUZ", "float8_e4m3fnuz", None, 1),
        DType("F8_E5M2", "float8_e5m2", None, 1),
        DType("F8_E5M2FNUZ", "float8_e5m2fnuz", None, 1),
        DType("F8_E8M0", "float8_e8m0fnu", None, 1),
        DType("BF16", "bfloat16", None, 2),
        DType("F16", "float16", "float16", 2),
        DType("F32", "float32", "float32", 4),
        DType("F64", "float64", "float64", 8),
        DType("C64", "complex64", "complex64", 8),
    )
}
_BY_TORCH = {dtype.torch_name: dtype for dtype in DTYPES.values()}
_BY_NUMPY = {dtype.numpy_name: dtype for dtype in DTYPES.values() if dtype.numpy_name is not None}


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor or a numpy array (of any shape, `[]` included)."""
    return _is_of("torch", "Tensor", value) or _is_of("numpy", "ndarray", value)


def tensor_to_bytes(value: Any, name: str) -> tuple[DType, tuple[int, ...], memoryview]:
    """The dtype, shape and little-endian bytes of a tensor on any device, contiguous or not.

    Raises TypeError for a dtype or layout that safetensors cannot hold, ValueError for NaN and infinity; both name it.
    """
    if _is_of("numpy", "ndarray", value):
        return _numpy_to_bytes(value, name)
    import torch

    dtype = _BY_TORCH.get(str(value.dtype).removeprefix("torch."))
    if dtype is None or value.layout != torch.strided or value.is_meta:
        raise TypeError(
            f"{name} is a tensor with {value.dtype}, {value.layout}, on {value.device}: no entry can hold it"
        )
    value = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if not is_finite(value):
        raise ValueError(f"{name} has NaN or infinite elements ({tuple(value.shape)}, {value.dtype})")
    if value.numel() == 0:
        return dtype, tuple(value.shape), memoryview(b"")
    # not reshape(-1): it keeps the stride of a single element, which may be any, and then there is no view as bytes
    flat = value.as_strided((value.numel(),), (1,))
    return dtype, tuple(value.shape), flat.view(torch.uint8).numpy().data


def empty_tensor(dtype: DType, shape: tuple[int, ...]) -> tuple[torch.Tensor, memoryview]:
    """An unfilled tensor and its memory as writable bytes. Raises TypeError when this torch lacks the dtype."""
    import torch

    torch_dtype = getattr(torch, dtype.torch_name, None)
    if torch_dtype is None:
        raise TypeError(f"torch {torch.__version__} has no {dtype.torch_name}")
    tensor = torch.empty(shape, dtype=torch_dtype)
    if tensor.numel() == 0:
        return tensor, memoryview(bytearray())
    return tensor, tensor.reshape(-1).view(torch.uint8).numpy().data


def byte_size(dtype: DType, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor of this shape takes."""
    return dtype.size * math.prod(shape)


def _is_of(module: str, name: str, value: Any) -> bool:
    loaded = sys.modules.get(module)  # where it is not loaded, nothing can be of its types
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _numpy_to_bytes(value: np.ndarray, name: str) -> tuple[DType, tuple[int, ...], memoryview]:
    import numpy as np

    dtype = _BY_NUMPY.get(value.dtype.name)
    if dtype is None:
        raise TypeError(f"{name} is an array of {value.dtype}: no entry can hold it")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has NaN or infinite elements ({value.shape}, {value.dtype})")
    little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    return dtype, value.shape, little.reshape(-1).view(np.uint8).data if value.size else memoryview(b"")


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite; one pass, no copy for the usual dtypes."""
    import torch

    if tensor.numel() == 0 or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    elif tensor.element_size() == 1:  # eight-bit floats have no arithmetic
        tensor = tensor.float()
    low, high = torch.aminmax(tensor)  # NaN wins over every number
    return math.isfinite(low.item()) and math.isfinite(high.item())
