"""One lock per VAE: AutoencoderKLWan keeps a feature cache in the object, so two threads spoil each other's latents."""

from __future__ import annotations

import threading
import weakref
from typing import Any

_locks: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()
_registry_lock = threading.Lock()


def vae_lock(vae: Any) -> threading.RLock:
    """The lock to hold while the VAE encodes or decodes. The same object for everyone who uses that VAE."""
    with _registry_lock:
        return _locks.setdefault(vae, threading.RLock())
