"""The door for hosts that load a plugin from a folder: the same object that the entry point names."""

from __future__ import annotations

from wan_fixes.plugin import plugin

__all__ = ["plugin"]
