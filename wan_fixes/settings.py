"""The plugin's settings: one dataclass, loaded from a JSON file, checked, saved.

JSON and not TOML, since Python 3.10 reads no TOML and OneTrainer keeps its own settings in JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import platformdirs

from wan_fixes.errors import UserError

SETTINGS_VARIABLE = "WAN_FIXES_SETTINGS"
_VALUE_SHOWN = 80  # characters of a wrong value that a message repeats

logger = logging.getLogger(__name__)


def _number(default: float, low: float, high: float) -> Any:
    """A field whose value must lie within `low` and `high`, both included."""
    return field(default=default, metadata={"low": low, "high": high})


def _choice(default: str, *choices: str) -> Any:
    """A field whose value must be one of `choices`, of which `default` is one."""
    return field(default=default, metadata={"choices": choices})


@dataclass(kw_only=True, slots=True)
class Settings:
    """What the user can choose. Every field has a default that works."""

    enabled: bool = True
    """Off: the host behaves as if the plugin were not installed."""
    validate_pipelines: bool = True
    """Off: OneTrainer's own data pipeline, in which one bad file ends a training."""
    ensure_models: bool = True
    """Off: a base model is a path or hub id, as the host has it, and nothing is fetched before it is loaded."""
    check_models: bool = True
    """Off: model files are not looked at before they are loaded."""
    check_configuration: bool = True
    """Off: a configuration is not looked over before training starts."""
    plugin_folders: list[str] = field(default_factory=list)
    """Folders whose `plugin.py` is loaded. Absolute paths, so that the working folder never decides what code runs."""
    decode_deadline_seconds: float = _number(10.0, 0.1, 3600.0)
    """How long one decoding may take before the clip counts as hanging."""
    max_pixels_per_frame: int = _number(8192 * 8192, 1, 2**31 - 1)
    """Larger frames are rejected before they are decoded (a "decompression bomb" takes all memory)."""
    decode_memory_mb: int = _number(4096, 256, 1_048_576)
    """Memory in MiB that reading one file may take in a worker process; one that takes more is rejected."""
    isolate_decoding: bool = True
    """Read clips and images in worker processes: a file that hangs or crashes its decoder takes only that with it."""
    missing_captions: Literal["empty", "skip"] = _choice("empty", "empty", "skip")
    """What a clip without a caption becomes: a sample with an empty prompt, or no sample."""
    short_clips: Literal["skip", "pad", "loop"] = _choice("skip", "skip", "pad", "loop")
    """What becomes of a clip with too few frames: no sample, its last frame held, or played again from its start."""
    frame_window: Literal["random", "start", "centre", "spread", "chunks"] = _choice(
        "random", "random", "start", "centre", "spread", "chunks"
    )
    """Which part of a clip a sample is: drawn for each variation, its start or middle, or frames from all of it.

    Or a clip gives several samples, the chunks that follow one another in it.
    """
    incomplete_batches: Literal["pad", "drop"] = _choice("pad", "pad", "drop")
    """What becomes of a bucket's last samples: padded with placeholders of loss weight 0, or dropped and reported."""
    full_disk: Literal["stop", "uncached"] = _choice("stop", "stop", "uncached")
    """When there is no room for the cache: end the run, or go on and encode what did not fit anew each time."""
    max_consecutive_failures: int = _number(10, 1, 100_000)
    """So many failures of one module in a row stop the run: the cause is then not the single sample."""
    retry_attempts: int = _number(3, 0, 20)
    """How often a transient failure (network, a file in use) is tried again before the sample is skipped."""
    retry_base_seconds: float = _number(0.5, 0.0, 60.0)
    """The longest wait before the first retry; it doubles with each further one."""
    breaker_threshold: float = _number(0.5, 0.01, 1.0)
    """A module whose share of failures exceeds this is switched off for a while."""
    breaker_min_calls: int = _number(10, 1, 100_000)
    """Fewer calls than this say nothing about a module's share of failures."""
    breaker_cooldown_seconds: float = _number(30.0, 0.0, 86_400.0)
    """How long a module stays switched off before it is tried again."""
    memory_limit_fraction: float = _number(0.95, 0.1, 1.0)
    """The share of the machine's memory in use above which an alert is raised."""
    alert_error_rate: float = _number(0.2, 0.0, 1.0)
    """The share of samples left out above which an alert is raised."""
    alert_stall_seconds: float = _number(600.0, 0.0, 86_400.0)
    """So long without a sample or step, while some are expected, raises an alert; 0 for never."""
    alert_corrupt_entries: int = _number(1, 1, 1_000_000)
    """So many damaged cache entries in one run raise an alert."""
    keep_runs_days: int = _number(90, 1, 36_500)
    """How long the record of a run is kept; of each workspace also at most the latest 50."""
    log_file: bool = True
    """Write each run's log into `logs/wan-fixes.jsonl` of its workspace too."""
    trace: bool = False
    """Log every item that passes between modules: name, type, shape, time. Slow, for finding faults."""

    unknown: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What else the file held: another version's settings, kept on saving. Not a setting."""

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> Settings:
        """Read and check the file at `path` (default: `settings_path()`); a missing file gives the defaults.

        Unknown keys are reported as warnings and kept for `save`. Raises `UserError` when the file cannot be
        read or a value is not allowed.
        """
        file = settings_path() if path is None else Path(path).expanduser()
        if not file.exists():
            if path is not None or SETTINGS_VARIABLE in os.environ:
                logger.warning("there is no settings file %a; the defaults hold", str(file))
            return cls()
        values = _read_object(file)
        names = {f.name for f in dataclasses.fields(cls)} - {"unknown"}
        unknown = {name: value for name, value in values.items() if name not in names}
        for name in unknown:
            logger.warning("unknown setting %a in %a is ignored", name, str(file))
        settings = cls(**{name: value for name, value in values.items() if name in names}, unknown=unknown)
        settings._check(file)
        return settings

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Check the values and write them all at once: a kill leaves the old file or the new one.

        Returns the path written to. Raises `UserError` when a value is not allowed or the file cannot be written.
        """
        file = settings_path() if path is None else Path(path).expanduser()
        self._check(file)
        text = json.dumps(self.unknown | self.as_dict(), indent=4)
        try:
            # The target of a link is replaced, not the link: people keep settings in a dotfiles folder.
            _replace(file.resolve(), text.encode("utf-8"))
        except OSError as error:
            raise UserError(
                "the settings cannot be saved",
                path=file,
                reason=error.strerror or str(error),
                fix=f"make the folder writable, or name another file in {SETTINGS_VARIABLE}",
            ) from error
        return file

    def validate(self) -> None:
        """Raise `UserError` naming every field whose value is not allowed, the value, and what is allowed."""
        self._check(None)

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON types, without unknown keys."""
        values = dataclasses.asdict(self)
        del values["unknown"]
        return values

    def _check(self, file: Path | None) -> None:
        problems = []
        for f in dataclasses.fields(self):
            if f.name == "unknown":
                continue
            value = getattr(self, f.name)
            expected = _expectation(f)
            if not _allowed(f, value):
                problems.append(f"{f.name} is {ascii(value)[:_VALUE_SHOWN]}, but must be {expected}")
        if problems:
            raise UserError(
                "the settings cannot be used",
                path=file,
                reason="; ".join(problems),
                fix="correct these values, or remove them to get the defaults",
            )


def settings_path() -> Path:
    """The settings file: what the variable WAN_FIXES_SETTINGS names, else one in the user's config folder."""
    named = os.environ.get(SETTINGS_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(platformdirs.user_config_dir("wan-fixes", appauthor=False)) / "settings.json"


def _expectation(f: dataclasses.Field[Any]) -> str:
    if f.type == "bool":
        return "true or false"
    if "choices" in f.metadata:
        return "one of " + ", ".join(f'"{choice}"' for choice in f.metadata["choices"])
    if "low" in f.metadata:
        kind = "a whole number" if f.type == "int" else "a number"
        return f"{kind} from {f.metadata['low']:g} to {f.metadata['high']:.12g}"
    return "a list of absolute folder paths"


def _allowed(f: dataclasses.Field[Any], value: Any) -> bool:
    if f.type == "bool":
        return isinstance(value, bool)
    if "choices" in f.metadata:
        return value in f.metadata["choices"]
    if "low" in f.metadata:
        kinds = int if f.type == "int" else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
        return is_number and f.metadata["low"] <= value <= f.metadata["high"]
    return isinstance(value, list) and all(isinstance(item, str) and Path(item).is_absolute() for item in value)


def _read_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. Raises `UserError`."""
    fix = "correct the file, or remove it to get the defaults"
    try:
        # utf-8-sig: Windows editors begin a file with a byte order mark.
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError("the settings cannot be read", path=file, reason=reason, fix=fix) from error
    except UnicodeDecodeError as error:
        raise UserError("the settings cannot be read", path=file, reason="it is not UTF-8 text", fix=fix) from error
    except (ValueError, RecursionError) as error:
        raise UserError("the settings cannot be read", path=file, reason=f"not JSON: {error}", fix=fix) from error
    if not isinstance(values, dict):
        reason = f"it holds a {type(values).__name__}, not an object of names and values"
        raise UserError("the settings cannot be read", path=file, reason=reason, fix=fix)
    return values


def _replace(file: Path, data: bytes) -> None:
    """Put `data` into `file` through a temporary file beside it, so that no reader ever sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
