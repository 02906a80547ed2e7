"""Symbols are found in sources without importing them, wherever Python itself would find them."""

from __future__ import annotations

import pytest

from wan_fixes.hosts.onetrainer.patching import Patch
from wan_fixes.hosts.onetrainer.symbols import SourceSymbols

SOURCES = {
    "modules/a.py": "import os.path\nfrom modules.b import Base, helper as renamed\n"
    "class Own(Base):\n    here = 1\n    declared: int\n    given: int = 2\n    def method(self): ...\n"
    "try:\n    import fast\nexcept ImportError:\n    fast = None\n"
    "if True:\n    def conditional(): ...\n",
    "modules/b/__init__.py": "from modules.c import Base\ndef helper(): ...\nclass Loop(Loop): ...\n",
    "modules/c.py": "class Root:\n    async def deep(self): ...\n"
    "class Base(Root):\n    @staticmethod\n    def inherited(): ...\n",
    "modules/broken.py": "<<<<<<< HEAD\n",
}


@pytest.mark.parametrize(
    ("symbol", "there"),
    [
        ("Own", True),
        ("Own.here", True),
        ("Own.given", True),
        ("Own.declared", False),  # an annotation makes no attribute
        ("Own.method", True),
        ("Own.inherited", True),
        ("Own.deep", True),
        ("Own.gone", False),
        ("Base.inherited", True),
        ("renamed", True),
        ("helper", False),
        ("os", True),
        ("fast", True),
        ("conditional", True),
        ("modules.b:helper", True),
        ("modules.b:gone", False),
        ("modules.gone:x", False),
        ("modules.b:Loop.x", False),
        ("modules.broken:x", False),
        ("conditional.x", False),
    ],
)
def test_a_symbol_is_found_where_python_would_find_it(symbol: str, there: bool) -> None:
    symbols = SourceSymbols(SOURCES.get)
    patch = Patch("p", "modules.a", (symbol,), lambda module: None, "it")
    assert symbols.missing(patch) == ([] if there else [symbol])


def test_a_module_that_is_not_there_is_what_is_missing() -> None:
    patch = Patch("p", "modules.gone", ("x", "y"), lambda module: None, "it")
    assert SourceSymbols(SOURCES.get).missing(patch) == ["modules.gone"]
