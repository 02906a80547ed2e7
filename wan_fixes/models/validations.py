"""`.state/validations.json`: when each model was last read in full by the background check, and what was found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.locks import LockManager

#: The outcome where the disk refused to give the files.
UNREADABLE: Final = "UNREADABLE"
_FORMAT: Final = 1
_LOCK_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Validation:
    """One reading of all files of a model.

    Attributes
    ----------
    finished_at:
        When it ended (seconds since 1970).
    seconds:
        How long it took.
    outcome:
        The state that the model was found in (a `ModelState`), or the `ErrorCode` with which the reading
        failed, or UNREADABLE.
    wrong:
        Files that are missing, or not what they should be.
    """

    finished_at: float
    seconds: float
    outcome: str
    wrong: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, content: Any) -> Validation:
        """What `asdict` made of one. Raises ValueError, KeyError or TypeError for anything else."""
        wrong = content["wrong"]
        if not isinstance(wrong, list) or not all(isinstance(path, str) for path in wrong):
            raise ValueError("it is no list of files")
        return cls(float(content["finished_at"]), float(content["seconds"]), str(content["outcome"]), tuple(wrong))


class Validations:
    """The last validation of each model below a root; processes may write at once."""

    def __init__(self, resolver: ModelResolver, locks: LockManager) -> None:
        self.path: Path = resolver.state / "validations.json"
        self._locks = locks

    def all(self) -> dict[str, Validation]:
        """By a model's canonical name. What is not sound is left out."""
        found = {}
        for name, entry in self._entries().items():
            try:
                found[name] = Validation.from_json(entry)
            except (KeyError, TypeError, ValueError):
                continue
        return found

    def put(self, name: str, validation: Validation) -> None:
        """Remember it in place of the model's last one. Raises ModelError where it cannot be written."""
        with self._locks.hold("validations", timeout=_LOCK_SECONDS):
            entries = self._entries() | {name: asdict(validation)}
            write_json(self.path, {"format": _FORMAT, "models": entries})

    def _entries(self) -> dict[str, Any]:
        content = read_json(self.path)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            return {}
        entries = content.get("models")
        return entries if isinstance(entries, dict) else {}
