"""Encrypting single files, in the format of age: https://c2sp.org/age, "Payload".

A file is cut into chunks of 64 KiB, each of which is encrypted and authenticated under its number and whether it is the
last one (the STREAM construction, https://eprint.iacr.org/2015/189). So what was changed, swapped, cut off or added is
noticed at the chunk where it is, and memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from wan_fixes.health.text import remember_secret
from wan_fixes.models.credentials import VARIABLES, secret
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.publishing import disk_errors

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

SUFFIX: Final = ".age"
_FIRST_LINE: Final = b"age-encryption.org/v1\n"

OnBytes = Callable[[int], None]


def new_key() -> str:
    """A new key (``AGE-SECRET-KEY-1…``), which opens what was sealed with it. Whoever loses it loses that."""
    key = str(_pyrage().x25519.Identity.generate())
    remember_secret(key)
    return key


def encryption_key() -> str:
    """The key that sensitive models are sealed with. Raises ModelError (NO_KEY) where none is kept anywhere."""
    key = secret("encryption-key")
    if not key:
        raise ModelError(
            ErrorCode.NO_KEY,
            "a sensitive model cannot be opened or kept",
            reason="there is no key to encrypt it with",
            fix="`wan models key new` makes one and puts it into the system's keyring; or set "
            f"{VARIABLES['encryption-key'][0]} to one",
        )
    _identity(key)
    return key


def seal(source: Path, target: Path, key: str, on_bytes: OnBytes = lambda _: None) -> None:
    """Encrypt a file to `target`, which is there whole or not at all; an earlier one is replaced. `source` stays.

    `on_bytes` is told how many bytes of the source were read; what it raises ends the work. Raises ModelError.
    """
    pyrage = _pyrage()
    recipient = _identity(key).to_public()
    with _reading(source) as plain, _new_file(target, _size(source), mode=0o666) as file:
        _run(pyrage.encrypt_io, _Pipe(plain, file, on_bytes), [recipient])
        file.flush()
        os.fsync(file.fileno())


def unseal(
    source: Path,
    target: Path,
    key: str,
    on_bytes: OnBytes = lambda _: None,
    check: Callable[[Path], None] = lambda _: None,
) -> None:
    """Decrypt a file to `target`, which is there whole or not at all.

    Parameters
    ----------
    on_bytes:
        Told how many bytes of the source were read; what it raises ends the work.
    check:
        Called with the file before it takes its name; what it raises ends the work too.

    Raises
    ------
    ModelError
        CHECKSUM_FAIL when the file was changed or cut off, NO_KEY when the key does not open it.
    """
    pyrage = _pyrage()
    identity = _identity(key)
    with _reading(source) as sealed, _new_file(target, _size(source), mode=0o600, check=check) as file:
        try:
            _run(pyrage.decrypt_io, _Pipe(sealed, file, on_bytes), [identity])
        except pyrage.DecryptError as error:  # before the first chunk: in the head are the ways to open it
            sealed.seek(0)
            is_sealed = sealed.read(len(_FIRST_LINE)) == _FIRST_LINE
            raise (_wrong_key(source) if is_sealed else _spoilt(source, "it is no sealed file")) from error
        except _ChunkError as error:
            raise _spoilt(source, "it was changed, or its end is missing") from error


class _Pipe:
    """What the library reads from and writes to.

    It makes errors of its own, without a cause, of whatever is raised here, Ctrl-C too: so that is kept.
    """

    def __init__(self, source: BinaryIO, target: BinaryIO, on_bytes: OnBytes) -> None:
        self._source = source
        self._target = target
        self._on_bytes = on_bytes
        self.raised: BaseException | None = None

    def read(self, count: int = -1) -> bytes:
        try:
            data = self._source.read(count)
            self._on_bytes(len(data))
            return data
        except OSError as error:
            self.raised = _not_readable(Path(self._source.name), error)
            raise
        except BaseException as error:
            self.raised = error
            raise

    def write(self, data: bytes) -> int:
        try:
            return self._target.write(data)
        except BaseException as error:
            self.raised = error
            raise

    def flush(self) -> None:
        """The file is flushed when all is written."""


class _ChunkError(Exception):
    """A chunk is not what was sealed."""


def _run(work: Callable[..., None], pipe: _Pipe, keys: list[Any]) -> None:
    try:
        work(pipe, pipe, keys)
    except Exception as error:
        if pipe.raised is not None:
            raise pipe.raised from None
        if isinstance(error, OSError):  # the library's own for what it read and found wrong
            raise _ChunkError from error
        raise
    if pipe.raised is not None:
        raise pipe.raised


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise _not_readable(path, error) from error
    with file:
        yield file


@contextlib.contextmanager
def _new_file(
    target: Path, size: int, *, mode: int, check: Callable[[Path], None] = lambda _: None
) -> Iterator[BinaryIO]:
    """A file that takes its name when the block ends well, and else is gone. Raises ModelError."""
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    with disk_errors(target, size):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(mode=mode, exist_ok=False)
        try:
            with temporary.open("wb") as file:
                yield file
            check(temporary)
            temporary.replace(target)
        except BaseException:  # Ctrl-C too must leave nothing that was decrypted
            temporary.unlink(missing_ok=True)
            raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _identity(key: str) -> Identity:
    pyrage = _pyrage()
    try:
        identity: Identity = pyrage.x25519.Identity.from_str(key)
    except pyrage.IdentityError as error:
        raise ModelError(
            ErrorCode.NO_KEY,
            "the encryption key cannot be used",
            reason="it is none of age's (AGE-SECRET-KEY-1…, 74 characters)",
            fix="copy it again, or make a new one: `wan models key new`",
        ) from error
    return identity


def _pyrage() -> Any:
    try:
        import pyrage
    except ModuleNotFoundError as error:
        raise ModelError(
            ErrorCode.INVALID_CONFIG,
            "sensitive models cannot be encrypted or opened",
            reason="the package pyrage is not installed",
            fix='pip install "wan-fixes[security]"',
        ) from error
    return pyrage


def _not_readable(path: Path, error: OSError) -> ModelError:
    return ModelError(
        ErrorCode.MISSING_FILES,
        "a file of a model cannot be read",
        path=path,
        reason=error.strerror or str(error),
        fix="check the disk and the rights of the file",
    )


def _wrong_key(path: Path) -> ModelError:
    return ModelError(
        ErrorCode.NO_KEY,
        "a sealed file cannot be opened",
        path=path,
        reason="it was sealed with another key than the one that is kept, or its first lines were changed",
        fix="give the key back that it was sealed with; without it, remove the model's folder and fetch it again",
    )


def _spoilt(path: Path, reason: str) -> ModelError:
    return ModelError(
        ErrorCode.CHECKSUM_FAIL,
        "a sealed file is not what it should be",
        path=path,
        reason=reason,
        fix="mend it: `wan models repair`",
    )
