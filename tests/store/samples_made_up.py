"""Items that follow from a number alone, and a program that writes them: run as a child process to be killed.

Imports no torch, so that a child starts in a fraction of a second.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from wan_fixes.store import SampleStore, make_key


def key_of(number: int) -> str:
    """The key of item `number`."""
    return make_key({"number": number})


def item_of(number: int) -> dict[str, Any]:
    """Item `number`: arrays of 1 byte to 256 KiB, and plain values of every kind."""
    random = np.random.default_rng(number)
    size = int(random.choice([1, 100, 5_000, 65_536]))
    return {
        "latent": random.standard_normal((size, 1), dtype=np.float32),
        "tokens": random.integers(0, 1000, size=int(random.integers(0, 50))),
        "prompt": f"clip {number} 'ü' \N{CLAPPER BOARD}",
        "crop": (number, number * 0.1, [True, None, {"a": ()}]),
    }


def same(found: dict[str, Any], number: int) -> bool:
    """Whether what a store gave back is item `number`, bit for bit."""
    expected = item_of(number)
    return list(found) == list(expected) and all(
        np.array_equal(found[name].numpy(), value) and found[name].numpy().dtype == value.dtype
        if isinstance(value, np.ndarray)
        else repr(found[name]) == repr(value)
        for name, value in expected.items()
    )


def write(root: Path, numbers: list[int], threads: int) -> None:
    """Put the items in several threads; the number of each is said once `put` has returned."""
    print("open", flush=True)  # noqa: T201 - the parent listens
    store = SampleStore(root)
    speaking = threading.Lock()

    def work(part: list[int]) -> None:
        for number in part:
            store.put(key_of(number), item_of(number))
            with speaking:
                print(number, flush=True)  # noqa: T201 - the parent listens

    workers = [threading.Thread(target=work, args=(numbers[start::threads],)) for start in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store.close()
    assert "torch" not in sys.modules


if __name__ == "__main__":
    write(Path(sys.argv[1]), list(range(int(sys.argv[2]), int(sys.argv[3]))), int(sys.argv[4]))
