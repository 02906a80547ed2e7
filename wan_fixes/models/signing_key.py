"""The private key that manifests are signed with: a PEM file that its owner alone can read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wan_fixes.health.text import remember_secret
from wan_fixes.models.correlation import model_logger
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.signatures import load_crypto

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PASSPHRASE_VARIABLE: Final = "WAN_MODELS_KEY_PASSPHRASE"
_LARGEST_FILE: Final = 64 << 10
_OTHERS: Final = 0o077

logger = model_logger(__name__)

#: Gives the passphrase; "" for none.
Passphrase = Callable[[], str]


def make_signing_key(path: Path, passphrase: Passphrase) -> Ed25519PrivateKey:
    """Make a key and write it to a new file (mode 0600), encrypted where the passphrase is not "".

    Raises ModelError, also where the file exists: no key is ever overwritten.
    """
    crypto = load_crypto()
    from cryptography.hazmat.primitives import serialization

    if path.exists():
        raise _not_written(path, "it exists, and a key is never overwritten")
    word = _secret_of(passphrase)
    key: Ed25519PrivateKey = crypto.Ed25519PrivateKey.generate()
    guard = serialization.BestAvailableEncryption(word) if word else serialization.NoEncryption()
    data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, guard)
    try:
        path.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise _not_written(path, error.strerror or str(error)) from error
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _not_written(path, error.strerror or str(error)) from error
    return key


def load_signing_key(path: Path, passphrase: Passphrase) -> Ed25519PrivateKey:
    """Read a key; the passphrase is asked for only where it is encrypted. Raises ModelError."""
    crypto = load_crypto()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE)
            is_open = os.name != "nt" and bool(os.fstat(file.fileno()).st_mode & _OTHERS)
    except OSError as error:
        raise _not_usable(path, error.strerror or str(error)) from error
    if is_open:
        logger.warning("others can read the private key %s: chmod 600 it", path)
    try:
        try:
            key = load_pem_private_key(data, None)
        except TypeError:  # that is how the library says that it is encrypted
            key = load_pem_private_key(data, _secret_of(passphrase))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _not_usable(path, "it is no private key in PEM, or the passphrase is wrong") from error
    if not isinstance(key, crypto.Ed25519PrivateKey):
        raise _not_usable(path, "it is a key of another kind than Ed25519")
    return key


def _secret_of(passphrase: Passphrase) -> bytes:
    word = passphrase()
    remember_secret(word)
    return word.encode()


def _not_written(path: Path, reason: str) -> ModelError:
    return ModelError(
        ErrorCode.NOT_WRITABLE, "the new key is not written", path=path, reason=reason, fix="name another file"
    )


def _not_usable(path: Path, reason: str) -> ModelError:
    return ModelError(
        ErrorCode.INVALID_CONFIG,
        "the private key cannot be used",
        path=path,
        reason=reason,
        fix="name an Ed25519 key in --key; with --new-key one is made",
    )
