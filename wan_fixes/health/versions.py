"""Which versions a run is made with: they belong to its record, since an environment moves on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

_PACKAGES: Final = ("wan-fixes", "torch", "diffusers", "transformers", "peft", "safetensors", "av", "mgds", "numpy")


def versions_here() -> dict[str, str]:
    """Of Python, the system, and each package that matters and is installed. Imports none of them."""
    found = {"Python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
