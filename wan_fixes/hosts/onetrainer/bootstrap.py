"""What the `.pth` line runs at every start of an enabled environment's Python: it lays a tripwire, and that is all.

Nothing but `sys` is imported here until a package `modules` is imported from inside an enabled checkout, so that pip,
tensorboard and every other program of that environment starts as fast as before.
"""

from __future__ import annotations

import sys
from typing import Any

PTH_NAME = "wan_fixes_onetrainer.pth"

# One ASCII line without a path: `site` reads it in the locale's encoding, and prints a traceback at every start for
# whatever it raises. SystemExit would end every start, so it is caught too; after an uninstall there is silence.
PTH_LINE = (
    "import sys; exec('try:\\n from wan_fixes.hosts.onetrainer import bootstrap\\n bootstrap.start()\\n"
    "except (Exception, SystemExit): pass')\n"
)

_ROOT_PACKAGE = "modules"


def start() -> None:
    """Lay the tripwire, once; spring it at once where the package is imported already."""
    if any(isinstance(finder, Tripwire) for finder in sys.meta_path):
        return
    tripwire = Tripwire()
    sys.meta_path.insert(0, tripwire)
    imported = sys.modules.get(_ROOT_PACKAGE)
    if imported is not None:
        tripwire.touch(list(getattr(imported, "__path__", [])))


class Tripwire:
    """A finder that finds nothing, and arms the patches when OneTrainer's package is looked for."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002 - a finder's signature
        if fullname == _ROOT_PACKAGE:
            from importlib.machinery import PathFinder

            spec = PathFinder.find_spec(fullname)
            self.touch(list(spec.submodule_search_locations or []) if spec is not None else [])

    def touch(self, locations: list[str]) -> None:
        """Arm, if the package at these folders is an enabled checkout's. Never raises."""
        try:
            from wan_fixes.hosts.onetrainer.arming import arm_checkout

            if arm_checkout(locations) and self in sys.meta_path:
                sys.meta_path.remove(self)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - OneTrainer's start must go on
            _say(f"wan-fixes is left out, OneTrainer goes on without it: {type(error).__name__}: {error}\n")


def _say(line: str) -> None:
    """A line on standard error, where there is one: under pythonw and after `2>&-` there is none."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(line)
    except (OSError, ValueError):  # closed, or a pipe that nobody reads
        return
