"""Why pip cannot install the plugin is told apart, each reason with a fix of its own, and nothing is changed."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.enabling import enable
from wan_fixes.hosts.onetrainer.state import enabled_checkouts

UNHEARD_OF = "wan-fixes-test-package-that-nobody-has"
DEAD = "http://127.0.0.1:9"  # port 9 is "discard": nothing listens on it
FILE = f"{DEAD}/{UNHEARD_OF.replace('-', '_')}-1-py3-none-any.whl"
NO_INDEX = {"PIP_NO_INDEX": "1"}
DEAD_INDEX = {"PIP_INDEX_URL": f"{DEAD}/simple"}


def write_wheel(folder: Path, requirement: str) -> str:
    """A package of our name that needs something else."""
    wheel = folder / "wan_fixes-9.0-py3-none-any.whl"
    information = {
        "METADATA": f"Metadata-Version: 2.1\nName: wan-fixes\nVersion: 9.0\nRequires-Dist: {requirement}\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("wan_fixes/__init__.py", "")
        for name, content in information.items():
            archive.writestr(f"wan_fixes-9.0.dist-info/{name}", content)
    return str(wheel)


@pytest.mark.parametrize(
    ("requirement", "variables", "what", "reason", "fix"),
    [
        ("pluggy<1", NO_INDEX, "does not fit into OneTrainer's environment", "pluggy", "update OneTrainer"),
        (UNHEARD_OF, NO_INDEX, "is not to be found", UNHEARD_OF, "PIP_NO_INDEX"),
        (UNHEARD_OF, DEAD_INDEX, "cannot be fetched", UNHEARD_OF, "connect to the network"),
        (f"{UNHEARD_OF} @ {FILE}", {}, "cannot be fetched", "refused", "connect to the network"),
        ("pluggy @ file:///nowhere/pluggy-9-py3-none-any.whl", {}, "cannot be installed", "nowhere", "pip's message"),
    ],
    ids=["conflict", "no such package", "no network", "no network for a file", "anything else"],
)
def test_each_reason_has_its_own_fix(
    requirement: str,
    variables: dict[str, str],
    what: str,
    reason: str,
    fix: str,
    with_venv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1"} | variables).items():
        monkeypatch.setenv(name, value)
    before = files_of(with_venv)

    with pytest.raises(UserError) as caught:
        enable(with_venv, package=write_wheel(tmp_path, requirement))

    assert what in caught.value.what and reason in caught.value.reason and fix in caught.value.fix, str(caught.value)
    assert " object at " not in caught.value.reason
    assert files_of(with_venv) == before
    assert enabled_checkouts() == []


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
