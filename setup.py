"""Computes the package list, and nothing else: everything static is in setup.cfg.

`find:` in setup.cfg would silently leave out `wan_fixes.ui`, which lives in `ui/` at the root.
"""

from setuptools import find_packages, setup

UI_PACKAGES = [f"wan_fixes.ui.{name}" for name in find_packages("ui")]

setup(packages=[*find_packages(include=["wan_fixes", "wan_fixes.*"]), "wan_fixes.ui", *UI_PACKAGES])
