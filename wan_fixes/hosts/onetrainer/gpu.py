"""What OneTrainer's torch can compute on: asked of torch itself, in its own Python, since only that knows."""

from __future__ import annotations

import json
from dataclasses import dataclass

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.checkout import Environment, last_line, run_python

__all__ = ["Devices", "ask_torch"]

_ASK_SECONDS = 120.0  # importing torch from a slow disk for the first time

_QUESTION = (
    "import json, torch\n"
    "gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]"
    " if torch.cuda.is_available() else []\n"
    "mps = getattr(torch.backends, 'mps', None)\n"
    "print(json.dumps({'version': str(torch.__version__), 'rocm': getattr(torch.version, 'hip', None),"
    " 'gpus': [[gpu.name, gpu.total_memory] for gpu in gpus],"
    " 'has_mps': bool(mps is not None and mps.is_available())}))"
)


@dataclass(frozen=True, slots=True)
class Devices:
    """What torch answered."""

    version: str
    """Of torch, with its build: `2.13.0+cu130`."""
    rocm: str | None
    """The version of ROCm that it was built for; None for other builds."""
    gpus: tuple[tuple[str, int], ...]
    """Name and memory in bytes of the GPUs that it can use through CUDA or ROCm."""
    has_mps: bool
    """Whether it can use Apple's GPU."""
    trouble: str = ""
    """Why it does not answer; then the other fields say nothing."""


def ask_torch(environment: Environment) -> Devices:
    """The devices that torch sees in `environment`. Takes as long as importing torch: some seconds."""
    try:
        done = run_python(environment.python, ["-I", "-c", _QUESTION], timeout=_ASK_SECONDS)
        answer = json.loads(last_line(done.stdout))
        gpus = tuple((name, memory) for name, memory in answer["gpus"])
        return Devices(answer["version"], answer["rocm"], gpus, answer["has_mps"])
    except UserError as error:
        trouble = error.reason
    except (ValueError, KeyError, TypeError):
        trouble = last_line(done.stderr) or f"exit code {done.returncode}"
    return Devices("", None, (), False, trouble)
