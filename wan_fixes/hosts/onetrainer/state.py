"""Which checkouts the plugin is enabled for: a small file in the user's state folder, outside every checkout."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import platformdirs

from wan_fixes.errors import UserError

STATE_VARIABLE = "WAN_FIXES_STATE"


@dataclass(frozen=True, slots=True)
class EnabledCheckout:
    """A checkout that `wan enable` was run for, and what it takes to undo that."""

    path: str
    """The checkout, absolute and resolved."""
    python: str
    """The interpreter of its environment."""
    pth: str
    """The `.pth` file that was written into its site-packages."""
    installed: dict[str, str] = field(default_factory=dict)
    """Packages that enabling brought into the environment: name and version."""

    def as_moved_to(self, checkout: Path) -> EnabledCheckout | None:
        """What this entry would be if its folder were `checkout` by now; None while the folder is where it was.

        An environment inside the folder has moved along with it.
        """
        if Path(self.path).exists():
            return None
        return replace(
            self,
            path=str(checkout),
            python=_moved(self.python, self.path, checkout),
            pth=_moved(self.pth, self.path, checkout),
        )


def _moved(file: str, folder: str, to: Path) -> str:
    return str(to / Path(file).relative_to(folder)) if Path(file).is_relative_to(folder) else file


def state_path() -> Path:
    """The state file: what the variable WAN_FIXES_STATE names, else one in the user's state folder."""
    named = os.environ.get(STATE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(platformdirs.user_state_dir("wan-fixes", appauthor=False)) / "hosts.json"


def enabled_checkouts() -> list[EnabledCheckout]:
    """All enabled checkouts. Raises ``UserError`` when the file is there and cannot be understood."""
    path = state_path()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["checkouts"]
        return [EnabledCheckout(**entry) for entry in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            "the list of enabled checkouts cannot be read",
            path=path,
            reason=f"{type(error).__name__}: {error}",
            fix="remove the file, and run `wan enable` for each checkout again",
        ) from error


def find_enabled(checkout: Path) -> EnabledCheckout | None:
    """The entry of a checkout, or None."""
    resolved = checkout.expanduser().resolve()
    # An entry may have become a link: the folder was moved, and a link left in its place.
    return next((entry for entry in enabled_checkouts() if Path(entry.path).resolve() == resolved), None)


def remember(entry: EnabledCheckout) -> None:
    """Add a checkout, in the place of an earlier entry for it."""
    _write([*(other for other in enabled_checkouts() if other.path != entry.path), entry])


def forget(entry: EnabledCheckout) -> None:
    """Take a checkout off the list; the last one takes the file along."""
    _write([other for other in enabled_checkouts() if other.path != entry.path])


def _write(entries: list[EnabledCheckout]) -> None:
    path = state_path()
    try:
        if not entries:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        text = json.dumps({"version": 1, "checkouts": [asdict(entry) for entry in entries]}, indent=4)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            "the list of enabled checkouts cannot be written",
            path=path,
            reason=error.strerror or str(error),
            fix=f"make the folder writable, or name another file in {STATE_VARIABLE}",
        ) from error
