"""Signatures of manifests and lock files, so that what a model is made of comes from somebody who is trusted.

``FILE.sig`` beside a file holds an Ed25519 signature (https://www.rfc-editor.org/rfc/rfc8032) of the file's bytes,
behind a prefix that says what they are: a signed manifest is no signed lock file. Which keys are trusted,
`WAN_MODELS_PUBLIC_KEY` says, and never a file that was signed. Where it names none, nothing is checked; where it names
one, nothing is believed without its signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from wan_fixes.errors import CriticalError
from wan_fixes.health.text import plain
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.store.atomic import write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_VARIABLE: Final = "WAN_MODELS_PUBLIC_KEY"
SUFFIX: Final = ".sig"
_ALGORITHM: Final = "Ed25519"
_FORMAT: Final = 1
_KEY_BYTES: Final = 32
_LARGEST_FILE: Final = 64 << 10  # bytes, of a key or a signature


class Signed(str, Enum):
    """What a signature is for, so that none counts for another kind of file."""

    MANIFEST = "manifest"
    LOCK = "lock"

    def message(self, data: bytes) -> bytes:
        """What is signed of a file with this content."""
        return b"wan-fixes %s v1\0" % self.value.encode() + data


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are compared with; `raw` are its 32 bytes."""

    raw: bytes

    @property
    def fingerprint(self) -> str:
        """What names it in a signature, and for people: a SHA-256 of its bytes."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.raw).digest()).decode().rstrip("=")

    @property
    def text(self) -> str:
        """As `WAN_MODELS_PUBLIC_KEY` takes it."""
        return base64.b64encode(self.raw).decode()


def trusted_keys() -> tuple[PublicKey, ...]:
    """Those that `WAN_MODELS_PUBLIC_KEY` names: PEM files, or the base64 of 32 bytes, separated by commas.

    None where it is not set. Raises ModelError where it names what is no such key, or `cryptography` is not installed.
    """
    named = os.environ.get(KEY_VARIABLE, "").strip()
    return tuple(_public_key(text.strip()) for text in named.split(",")) if named else ()


def require_signature(path: Path, data: bytes, kind: Signed, *, fix: str = "") -> PublicKey | None:
    """The trusted key that signed a file with this content; None where no key is configured.

    Raises ModelError (SIGNATURE_FAIL) where none of the trusted keys did.
    """
    keys = {key.fingerprint: key for key in trusted_keys()}
    if not keys:
        return None
    fix = fix or f"`wan models manifest sign {path.name} --key PRIVATE.pem` signs it, once you have looked at it"
    found = _read_signature(path, fix)
    key = keys.get(found.fingerprint)
    if key is None:
        raise _failed(path, f"it is signed with {found.fingerprint}, which {KEY_VARIABLE} does not name", fix)
    if not _is_signed(key, found.signature, kind.message(data)):
        raise _failed(path, f"it is not what was signed: it was changed since, or is no {kind.value}", fix)
    return key


def signed_by(path: Path) -> str | None:
    """The fingerprint that the signature beside a file says, unchecked; None where there is none.

    Raises ModelError where it cannot be read.
    """
    return _read_signature(path, "sign the file again").fingerprint if signature_path(path).exists() else None


def signature_path(path: Path) -> Path:
    """Where the signature of a file lies."""
    return path.with_name(path.name + SUFFIX)


def sign(path: Path, data: bytes, kind: Signed, key: Ed25519PrivateKey) -> PublicKey:
    """Write the signature of a file with this content beside it, in place of an earlier one.

    Returns the key that it can be compared with. Raises ModelError where it cannot be written.
    """
    public = public_key_of(key)
    signature = base64.b64encode(key.sign(kind.message(data))).decode()
    content = {"format": _FORMAT, "algorithm": _ALGORITHM, "key": public.fingerprint, "signature": signature}
    target = signature_path(path)
    try:
        write_atomic(target, [json.dumps(content, indent=2).encode() + b"\n"], temporary_folder=target.parent)
    except CriticalError as error:
        raise ModelError(
            ErrorCode.NOT_WRITABLE,
            "the signature cannot be written",
            path=target,
            reason=error.reason,
            fix="make the folder writable, or sign a copy of the file elsewhere",
        ) from error
    return public


def public_key_of(key: Ed25519PrivateKey) -> PublicKey:
    """The public half of a key."""
    return PublicKey(key.public_key().public_bytes_raw())


def load_crypto() -> Any:
    """The module of Ed25519 keys. Raises ModelError where `cryptography` is not installed."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise ModelError(
            ErrorCode.INVALID_CONFIG,
            "signatures cannot be made or compared",
            reason="the package cryptography is not installed",
            fix='pip install "wan-fixes[security]"',
        ) from error
    return ed25519


def _public_key(text: str) -> PublicKey:
    crypto = load_crypto()
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) == _KEY_BYTES:
        return PublicKey(raw)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        with Path(text).expanduser().open("rb") as file:
            key = load_pem_public_key(file.read(_LARGEST_FILE))
    except OSError as error:
        raise _no_key(text, f"it is not the base64 of 32 bytes, nor a file: {error.strerror or error}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(text, "the file holds no public key in PEM") from error
    if not isinstance(key, crypto.Ed25519PublicKey):
        raise _no_key(text, f"the file holds a key of another kind than {_ALGORITHM}")
    return PublicKey(key.public_bytes_raw())


def _is_signed(key: PublicKey, signature: bytes, message: bytes) -> bool:
    crypto = load_crypto()
    from cryptography.exceptions import InvalidSignature

    public: Ed25519PublicKey = crypto.Ed25519PublicKey.from_public_bytes(key.raw)
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


class _Signature(NamedTuple):
    fingerprint: str
    signature: bytes


def _read_signature(path: Path, fix: str) -> _Signature:
    """What is beside a file. Raises ModelError (SIGNATURE_FAIL)."""
    target = signature_path(path)
    try:
        with target.open("rb") as file:
            content = json.loads(file.read(_LARGEST_FILE))
        if (content["format"], content["algorithm"]) != (_FORMAT, _ALGORITHM) or not isinstance(content["key"], str):
            raise ValueError("it is of another format")
        return _Signature(plain(content["key"], 80), base64.b64decode(content["signature"], validate=True))
    except FileNotFoundError as error:
        raise _failed(path, f"there is no {target.name} beside it, so it is not signed", fix) from error
    except OSError as error:
        raise _failed(path, f"{target.name} cannot be read: {error.strerror or error}", fix) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _failed(path, f"{target.name} is no signature of ours", fix) from error


def _failed(path: Path, reason: str, fix: str) -> ModelError:
    return ModelError(ErrorCode.SIGNATURE_FAIL, "this file is not trusted", path=path, reason=reason, fix=fix)


def _no_key(text: str, reason: str) -> ModelError:
    return ModelError(
        ErrorCode.INVALID_CONFIG,
        f"{KEY_VARIABLE} names no public key",
        path=plain(text, 200),
        reason=reason,
        fix="set it to the line that `wan models manifest sign` prints, or to the PEM file of a public key",
    )
