"""Model files: how long it takes to see, verify, fetch and serve them.

    PYTHONPATH=. python benchmarks/models.py [--folder FOLDER] [--mib N] [--rounds N] [--json FILE]
        [status] [verify] [fetch] [store] [health]

Each part prints its figures beside what they are compared with, taken in the same run: the digest of the same files by
`hashlib` with as many threads as there are cores, `huggingface_hub.snapshot_download` from the same server. The server
is a process of its own on loopback that speaks the hub's protocol.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.models.world import REPOSITORY, manifest_of
from wan_fixes.models import ModelEnsurer, ModelResolver, ModelState
from wan_fixes.models.installed import Verified
from wan_fixes.models.manifest import Manifest

ROUNDS = 5
MODELS_IN_STORE = 1000
STATUS_CALLS = 300
SHARDS = 4

SERVER = """
import random, sys, time
sys.path.insert(0, sys.argv[1])
from tests.models.hub_server import Hub
from tests.models.world import REPOSITORY, model_files
mib, count = map(int, sys.argv[2:])
shards = {
    f"transformer/diffusion_pytorch_model-{number:05}.safetensors": random.Random(number).randbytes(1 << 20) * mib
    for number in range(count)
}
hub = Hub()
hub.add(REPOSITORY, {**model_files(), **shards}).head
print(hub.address, flush=True)
time.sleep(86400)
"""


@contextlib.contextmanager
def served(mib: int) -> Iterator[str]:
    """A hub in a process of its own, with a model of `SHARDS` files of so many MiB; gives its address."""
    checkout = Path(__file__).resolve().parent.parent
    arguments = [sys.executable, "-c", SERVER, str(checkout), str(mib), str(SHARDS)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"median_ms": statistics.median(ordered) * 1e3, "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3}


def several(count: int) -> Manifest:
    """A manifest of so many models from one repository."""
    text = manifest_of().text.decode()
    head, _, body = text.partition("\n[models")
    body = "\n[models" + body
    return manifest_of(head + "".join(body.replace("tiny@1.0.0", f"tiny{number}@1.0.0") for number in range(count)))


def fill(root: Path, manifest: Manifest, address: str) -> ModelEnsurer:
    """A root with all models of a manifest."""
    os.environ["HF_ENDPOINT"] = address
    models = ModelEnsurer(manifest, ModelResolver(root))
    for spec in manifest.models.values():
        models.ensure(spec.model_id)
    return models


def measure_status(folder: Path, rounds: int, mib: int) -> dict[str, Any]:
    """`status` of three models, all complete, by an ensurer that is open."""
    with served(1) as address:
        models = fill(folder / "three", several(3), address)
    names = [spec.model_id for spec in models.manifest.models.values()]
    found = [timed(lambda: [models.status(name) for name in names]) for _ in range(STATUS_CALLS)]
    assert all(models.status(name).state is ModelState.COMPLETE for name in names)
    return {"three models": percentiles(found)}


def measure_verify(folder: Path, rounds: int, mib: int) -> dict[str, Any]:
    """`verify_integrity`, against the digests of the same files taken by as many threads as there are cores."""
    with served(mib) as address:
        models = fill(folder / "verified", manifest_of(), address)
    files = [path for path in models.target("tiny").folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def bare() -> None:
        with ThreadPoolExecutor(os.cpu_count() or 1) as executor:
            list(executor.map(digest, sorted(files, key=lambda path: -path.stat().st_size)))

    bare()
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(timed(bare))
        ours.append(timed(lambda: models.verify_integrity("tiny")))
    return {
        "verify GB/s": size / min(ours) / 1e9,
        "bare hashing GB/s": size / min(theirs) / 1e9,
        "ratio": min(theirs) / min(ours),
    }


def measure_fetch(folder: Path, rounds: int, mib: int) -> dict[str, Any]:
    """`ensure` from nothing to verified, against `snapshot_download` of the same files from the same server."""
    from huggingface_hub import snapshot_download

    ours, theirs = [], []
    patterns = ["*.safetensors", "*.json", "*.model"]
    with served(mib) as address:
        os.environ["HF_ENDPOINT"] = address
        for _ in range(rounds):
            target = folder / "fetched"
            ours.append(timed(lambda target=target: ModelEnsurer(manifest_of(), ModelResolver(target)).ensure("tiny")))
            size = sum(path.stat().st_size for path in target.rglob("*.safetensors"))
            shutil.rmtree(target)
            theirs.append(
                timed(
                    lambda target=target: snapshot_download(
                        REPOSITORY, endpoint=address, local_dir=target, token=False, allow_patterns=patterns
                    )
                )
            )
            shutil.rmtree(target)
    return {
        "ensure s": min(ours),
        "snapshot_download s": min(theirs),
        "ratio of rates": min(theirs) / min(ours),
        "GB": size / 1e9,
    }


def measure_store(folder: Path, rounds: int, mib: int) -> dict[str, Any]:
    """Opening a root with many models in it, and looking at all of them."""
    manifest = several(MODELS_IN_STORE)
    root = folder / "many"
    with served(0) as address:
        first = fill(root, manifest_of(), address)
    original = first.target("tiny").folder
    models = ModelEnsurer(manifest, ModelResolver(root))
    pinned, verified = first.known_listing(first.target("tiny")), Verified.read(original)
    assert pinned is not None and verified is not None
    names = [spec.model_id for spec in manifest.models.values()]
    targets = [models.target(name) for name in names]
    for target in targets:
        shutil.copytree(original, target.folder, copy_function=os.link)
        replace(verified, name=str(target.name)).write(target.folder)
    models.lock_file.pin({target.name: pinned for target in targets})
    opening = [timed(lambda: ModelEnsurer(manifest, ModelResolver(root))) for _ in range(rounds)]
    looking = [timed(lambda: [models.status(name) for name in names]) for _ in range(rounds)]
    assert models.status(names[-1]).state is ModelState.COMPLETE
    return {"open ms": min(opening) * 1e3, "status of 1000 models s": min(looking)}


def measure_health(folder: Path, rounds: int, mib: int) -> dict[str, Any]:
    """`GET /health/models?dry_run=true` for three complete models, over loopback."""
    import httpx

    from tests.service.server import running

    with served(1) as address:
        models = fill(folder / "healthy", several(3), address)
    with running(models) as url, httpx.Client(base_url=url, trust_env=False) as client:
        found = []
        for _ in range(STATUS_CALLS):
            found.append(timed(lambda: client.get("/health/models", params={"dry_run": "true"}).raise_for_status()))
    return {"three models": percentiles(found)}


PARTS: dict[str, Callable[[Path, int, int], dict[str, Any]]] = {
    "status": measure_status,
    "verify": measure_verify,
    "fetch": measure_fetch,
    "store": measure_store,
    "health": measure_health,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--folder", type=Path, help="where models go (default: a temporary folder)")
    parser.add_argument("--mib", type=int, default=64, help="of each of the four shards")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for name in ("HF_HUB_OFFLINE", "WAN_MODELS_OFFLINE", "HF_TOKEN"):
        os.environ.pop(name, None)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    found = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name in arguments.parts or PARTS:
            found[name] = PARTS[name](Path(folder), arguments.rounds, arguments.mib)
            print(name)
            for what, value in found[name].items():
                print(f"    {what}: {value if isinstance(value, dict) else f'{value:.3f}'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
