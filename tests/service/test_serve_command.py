"""`wan serve` as a process: it says where it is, ends with Ctrl-C, and refuses what would be unsafe (M18)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from models.world import manifest_of

from wan_fixes.cli.console import ExitCode
from wan_fixes.cli.main import run

PROGRAM = "from wan_fixes.cli.main import main; main()"


@contextlib.contextmanager
def wan_serve(root: Path, *arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `wan serve`, and the address that it printed."""
    manifest = root.with_suffix(".toml")
    manifest.write_bytes(manifest_of().text)
    surroundings = {**os.environ, "MODELS_ROOT": str(root), "WAN_MODELS_MANIFEST": str(manifest), **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", "--port", "0", *arguments],
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to a whole console")
def test_m18_it_serves_until_ctrl_c_even_while_the_disk_hangs(root: Path) -> None:
    folder = root / "wan21" / "tiny@1.0.0-original"
    folder.mkdir(parents=True)
    os.mkfifo(folder / ".verified.json")
    with wan_serve(root, "--revalidate", "24", "--workspace", str(root)) as (process, address):
        assert httpx.get(f"{address}/health/live").json() == {"status": "ok"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{address}/health/models", timeout=0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (ExitCode.OK, "")
    assert time.monotonic() - began < 15


def test_m18_the_token_of_the_environment_counts(root: Path) -> None:
    token = "a-token-of-sixteen-letters-or-more"
    with wan_serve(root, "--token-required", WAN_SERVE_TOKEN=token) as (_, address):
        assert httpx.get(f"{address}/health/models").status_code == 401
        answer = httpx.get(f"{address}/health/models", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["models"][0]["name"] == "tiny@1.0.0#original"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--token-required"], "nor WAN_SERVE_TOKEN"),
        (["--host", "0.0.0.0", "--allow-host", "train.example"], "needs a token and TLS"),
        (["--host", "train.example"], "is no address"),
        (["--revalidate", "inf"], "is not finite"),
        (["--revalidate", "nan"], "--revalidate"),
    ],
)
def test_m18_what_is_unsafe_is_refused(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("MODELS_ROOT", str(root))
    assert run(["serve", *arguments]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_m18_a_missing_extra_is_named(root: Path) -> None:
    """Packages that cannot be imported are as good as missing."""
    program = "import sys; sys.modules['fastapi'] = None; " + PROGRAM
    done = subprocess.run(
        [sys.executable, "-c", program, "serve"],
        env={**os.environ, "MODELS_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.USAGE
    assert 'pip install "wan-fixes[serve]"' in done.stderr
