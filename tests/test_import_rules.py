"""The arrows of docs/architecture.md hold: who imports whom, and what stays light enough to import without torch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

GROUND = {"", "_version", "errors", "filesystem", "settings"}
LOW = {"engine", "media", "store", "health"}
MAY_IMPORT = {
    "": {"_version"},
    "_version": set(),
    "errors": set(),
    "filesystem": {"errors"},
    "settings": {"errors"},
    "hookspecs": set(),
    **dict.fromkeys(LOW, GROUND),
    "wan": GROUND | LOW,
    "models": GROUND | LOW,
    "pipeline": GROUND | LOW,
    "preflight": GROUND | {"media", "health", "store", "wan", "models"},
    "plugin": GROUND | LOW | {"hookspecs", "pipeline", "wan", "models", "ui"},
    "plugins": GROUND | LOW | {"hookspecs", "pipeline", "wan", "models", "plugin"},
    "hosts": GROUND | LOW | {"hookspecs", "pipeline", "wan", "models", "preflight", "plugin", "plugins"},
    "ui": GROUND | LOW | {"hookspecs", "pipeline", "wan", "models", "preflight", "plugin", "plugins", "hosts"},
    "schemas": {"errors"},
    "service": GROUND | LOW | {"models"},
    "cli": GROUND
    | LOW
    | {"hookspecs", "pipeline", "wan", "models", "preflight", "plugin", "plugins", "hosts", "ui", "service", "schemas"},
}
# Packages of others that only some of our files may import.
GUARDED = {
    "mgds": ("wan_fixes/pipeline/base.py", "wan_fixes/hosts/"),
    "modules": ("wan_fixes/hosts/onetrainer/",),
}
LIGHT = (
    "wan_fixes",
    "wan_fixes.cli.main",
    "wan_fixes.health",
    "wan_fixes.hosts.standalone",
    "wan_fixes.media",
    "wan_fixes.models.ensure",
    "wan_fixes.plugins",
    "wan_fixes.preflight",
    "wan_fixes.service.app",
    "wan_fixes.settings",
    "wan_fixes.store",
    "wan_fixes.store.keys",
    "wan_fixes.ui",
    "wan_fixes.wan.lora_keys",
    "wan_fixes.wan.variants",
)


def source_files() -> list[Path]:
    return sorted([*ROOT.glob("wan_fixes/**/*.py"), *ROOT.glob("ui/**/*.py"), ROOT / "plugin.py"])


def module_name(path: Path) -> str:
    """The dotted name under which a file of the repository is imported."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "ui":
        parts.insert(0, "wan_fixes")
    return ".".join(part for part in parts if part != "__init__")


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Every import of a module, inside functions too, as (line, dotted name); not those for type checkers alone."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        todo += ast.iter_child_nodes(node)


def room(dotted: str) -> str | None:
    """The room of a dotted name: "" for the package itself, None for what is not ours."""
    parts = dotted.split(".")
    if parts[0] != "wan_fixes":
        return None
    return parts[1] if len(parts) > 1 and not parts[1].startswith("__") else ""


def violations(path: Path, source: str) -> list[str]:
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    own = "plugin" if path == ROOT / "plugin.py" else room(name)
    assert own in MAY_IMPORT, f"{path} is in no room of docs/architecture.md"
    place = path.relative_to(ROOT).as_posix()
    found = []
    for line, target in imports(ast.parse(source), package):
        other = room(target)
        if other is not None and other != own and other not in MAY_IMPORT[own]:
            found.append(f"{place}:{line} imports {target}")
        allowed = GUARDED.get(target.partition(".")[0])
        if allowed is not None and not place.startswith(allowed):
            found.append(f"{place}:{line} imports {target}")
    return found


def test_every_import_follows_the_arrows() -> None:
    assert [fault for path in source_files() for fault in violations(path, path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("wan_fixes/media/probe.py", "import wan_fixes.store"),
        ("wan_fixes/media/probe.py", "from wan_fixes import health"),
        ("wan_fixes/media/probe.py", "from ..store import keys"),
        ("wan_fixes/store/keys.py", "def f():\n    from wan_fixes.pipeline import context"),
        ("wan_fixes/errors.py", "try:\n    import wan_fixes.settings\nexcept ImportError:\n    raise"),
        ("wan_fixes/wan/latents.py", "from wan_fixes.hosts.standalone import read_preset"),
        ("wan_fixes/engine/module.py", "import mgds.MGDS"),
        ("wan_fixes/hosts/standalone/trainer.py", "from modules.util import create"),
        ("ui/view_model.py", "from wan_fixes.cli.main import app"),
    ],
)
def test_an_import_against_the_arrows_is_found(place: str, line: str) -> None:
    assert len(violations(ROOT / place, line)) == 1


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("wan_fixes/pipeline/base.py", "import mgds"),
        ("wan_fixes/pipeline/context.py", "from wan_fixes.store import Quarantine"),
        ("wan_fixes/media/probe.py", "from .frames import decode_frames"),
        ("wan_fixes/hookspecs.py", "if TYPE_CHECKING:\n    from wan_fixes.pipeline.context import PipelineContext"),
        ("ui/view_model.py", "from wan_fixes.health import RunDatabase"),
    ],
)
def test_an_import_along_the_arrows_is_allowed(place: str, line: str) -> None:
    assert violations(ROOT / place, line) == []


def test_light_modules_import_no_torch() -> None:
    program = (
        "import importlib, json, sys\n"
        "heavy = {}\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy[name] = sorted({'torch', 'diffusers', 'transformers', 'peft', 'mgds'} & set(sys.modules))\n"
        "print(json.dumps(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [] for name in LIGHT}
