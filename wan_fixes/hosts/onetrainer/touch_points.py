"""The table of touch points: every place where the plugin reaches into OneTrainer, what it needs there, and why."""

from __future__ import annotations

from wan_fixes.hosts.onetrainer.patching import Patch

PATCHES: tuple[Patch, ...] = ()
"""In the order in which patches of one module are applied."""
