"""A copy of the OneTrainer checkout with an environment of its own, in which the plugin can be enabled and disabled."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from wan_fixes.hosts.onetrainer.checkout import find_python

LAUNCH_SECONDS = 240


@dataclass(frozen=True)
class OwnHost:
    """A checkout under git, its environment, and the variables that keep this host's state apart from the user's."""

    checkout: Path
    work: Path

    @property
    def python(self) -> Path:
        return find_python(self.checkout)

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "WAN_FIXES_STATE": str(self.work / "hosts.json"),
            "WAN_FIXES_SETTINGS": str(self.work / "settings.json"),
            "HF_HUB_OFFLINE": "1",
            "PIP_NO_INDEX": "1",
            "OMP_NUM_THREADS": "1",
        }
        # The package must come from where `wan enable` has put it.
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | own

    def wan(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line of the package under test."""
        program = "from wan_fixes.cli.main import main; main()"
        environment = self.environment | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        return _run([sys.executable, "-c", program, *arguments], environment, self.work)

    def launch(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout as a user does, with its own Python where the command begins with a script."""
        start = [str(self.python)] if command[0].endswith(".py") or command[0] == "-c" else []
        return _run([*start, *command], self.environment, self.checkout)

    def files(self) -> list[str]:
        """Every file of the environment but for byte code, which Python itself leaves."""
        found = (self.checkout / "venv").rglob("*")
        return sorted(str(path) for path in found if path.is_file() and "__pycache__" not in path.parts)

    def git_status(self) -> str:
        return _git(self.checkout, "status", "--short", "--untracked-files=all")


def make_own_host(folder: Path, onetrainer: Path, *, python: Path | None = None, mgds: Path | None = None) -> OwnHost:
    """Copy what git tracks in `onetrainer`, and make an environment that sees the packages of another one.

    That other one is the running Python's, or that of `python`; MGDS is `mgds`, or what WAN_FIXES_MGDS names.
    """
    base = str(python or sys.executable)
    checkout = folder / "One Trainer"  # with a blank, as users have it
    checkout.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", str(onetrainer), "archive", "HEAD"], check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive.stdout, check=True)
    _git(checkout, "init", "--quiet")
    _git(checkout, "add", "--all")
    _git(checkout, "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "stock")
    subprocess.run([base, "-m", "venv", "--without-pip", str(checkout / "venv")], check=True)
    packages = _site_packages(base)
    lines = [f"import site; site.addsitedir({packages!r})", str((mgds or Path(os.environ["WAN_FIXES_MGDS"])) / "src")]
    own = Path(_site_packages(str(find_python(checkout))), "aaa_host.pth")
    own.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "settings.json").write_text("{}", encoding="utf-8")
    return OwnHost(checkout, folder)


def _site_packages(python: str) -> str:
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(checkout), *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def _run(command: list[str], environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=LAUNCH_SECONDS,
        check=False,
    )
