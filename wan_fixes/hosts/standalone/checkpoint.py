"""Checkpoints: the whole state of a training run in one safetensors file, from which it goes on bit for bit.

A file holds the adapter's raw weights and the optimizer's tensors; its header holds all else as JSON, and a checksum
that reading verifies. It takes its name only when its bytes are on the disk. Files are numbered, so that the newest is
the newest whatever step it is at: a run that starts anew writes lower steps beside those of the last one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import xxhash

from wan_fixes.errors import CriticalError, EntryError
from wan_fixes.store.atomic import clean_temporary, write_atomic

FORMAT_VERSION = 1
KEPT = 2

_NAME = re.compile(r"(?P<number>\d{6,})-step-(?P<step>\d{6,})\.safetensors")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    epoch:
        The epoch that is being trained, from 0.
    epoch_batch:
        Batches of that epoch that are done.
    micro_step:
        Batches done since the start: what noise and timesteps hang on.
    global_step:
        Updates of the weights.
    """

    epoch: int = 0
    epoch_batch: int = 0
    micro_step: int = 0
    global_step: int = 0


@dataclass(slots=True)
class TrainingState:
    """What a checkpoint holds.

    Attributes
    ----------
    adapter:
        Raw weights (``wan.lora.adapter_state``).
    optimizer:
        The optimizer's ``state_dict()``.
    fingerprint:
        The settings that shape the training: a checkpoint of other settings is not resumed.
    finished:
        The run came to its end: the next one starts anew.
    samples:
        A digest of which samples there were. Another one changes the order from here on, which is said, not refused.
    """

    adapter: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    progress: Progress
    fingerprint: dict[str, Any]
    finished: bool = False
    samples: str = ""


@dataclass(slots=True)
class Checkpoints:
    """The checkpoints in one folder. Only the newest two are kept."""

    folder: Path
    damaged: list[EntryError] = field(default_factory=list)
    """What `newest` passed over."""

    def save(self, state: TrainingState) -> Path:
        """Write a checkpoint and delete those before the last two. Raises ``CriticalError`` when the disk refuses."""
        files = self._files()
        number = int(_name(files[-1])["number"]) + 1 if files else 1
        path = self.folder / f"{number:06d}-step-{state.progress.global_step:06d}.safetensors"
        try:
            clean_temporary(self.folder)
            write_atomic(path, [_to_bytes(state)], temporary_folder=self.folder)
        except CriticalError as error:
            raise CriticalError(
                "checkpoint cannot be written",
                path=path,
                reason=error.reason,
                fix="free some space, or choose another workspace_dir; the checkpoints before this one are kept",
                context=error.context,
            ) from error
        for old in [*files, path][:-KEPT]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[Path, TrainingState] | None:
        """The newest checkpoint that is whole, or None. Damaged ones are named in `damaged` and left where they are."""
        self.damaged.clear()
        for path in reversed(self._files()):
            try:
                return path, read_checkpoint(path)
            except EntryError as error:
                self.damaged.append(error)
                logger.warning("%s", error)
        return None

    def _files(self) -> list[Path]:
        """Oldest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(_name(path)["number"]))


def read_checkpoint(path: Path) -> TrainingState:
    """Read and verify a checkpoint. Raises ``EntryError`` saying what is wrong with it."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        version = header.get("format_version")
        if version != str(FORMAT_VERSION):
            raise _damage(path, f"its format version is {version}, and this program writes {FORMAT_VERSION}")
        if _checksum(tensors, header["state"]) != header["checksum"]:
            raise _damage(path, "its checksum does not fit: bytes changed after it was written")
        state = json.loads(header["state"])
        return TrainingState(
            adapter={name.removeprefix("adapter/"): t for name, t in tensors.items() if name.startswith("adapter/")},
            optimizer=_join_optimizer(state["optimizer"], tensors),
            progress=Progress(**state["progress"]),
            fingerprint=state["fingerprint"],
            finished=state["finished"],
            samples=state["samples"],
        )
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damage(path, f"it cannot be read: {error}") from error


def _damage(path: Path, reason: str) -> EntryError:
    return EntryError(
        "checkpoint cannot be used", path=path, reason=reason, fix="the one before it is used, where there is one"
    )


def _name(path: Path) -> re.Match[str]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return match


def _to_bytes(state: TrainingState) -> bytes:
    plain, tensors = _split_optimizer(state.optimizer)
    tensors |= {f"adapter/{name}": tensor for name, tensor in state.adapter.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(
        {
            "optimizer": plain,
            "progress": asdict(state.progress),
            "fingerprint": state.fingerprint,
            "finished": state.finished,
            "samples": state.samples,
        }
    )
    header = {"format_version": str(FORMAT_VERSION), "state": text, "checksum": _checksum(tensors, text)}
    return safetensors.torch.save(tensors, metadata=header)


def _split_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """An optimizer's state as JSON values and tensors apart."""
    values: dict[str, dict[str, Any]] = {}
    tensors: dict[str, torch.Tensor] = {}
    for index, entry in state["state"].items():
        values[str(index)] = {name: value for name, value in entry.items() if not torch.is_tensor(value)}
        tensors |= {f"optimizer/{index}/{name}": value for name, value in entry.items() if torch.is_tensor(value)}
    return {"state": values, "param_groups": state["param_groups"]}, tensors


def _join_optimizer(plain: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in plain["state"].items()}
    for full_name, tensor in tensors.items():
        kind, _, rest = full_name.partition("/")
        if kind == "optimizer":
            index, _, name = rest.partition("/")
            state.setdefault(int(index), {})[name] = tensor
    return {"state": state, "param_groups": plain["param_groups"]}


def _checksum(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    """xxh3_128 over the state and the tensors' names, types, shapes and bytes, by name."""
    digest = xxhash.xxh3_128(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        data: Any = tensor.reshape(-1).view(torch.uint8).numpy()  # a buffer, which its type does not say
        digest.update(data)
    return digest.hexdigest()
