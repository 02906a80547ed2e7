"""Secrets: from the system's keyring, else from the environment; what is handed out is masked in logs from then on.

The keyring is that of the package `keyring` (Keychain, Credential Manager, Secret Service, KWallet …), where this
package's secrets lie under the service "wan-fixes". Where there is none, or it does not answer, the environment counts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from wan_fixes.health.text import plain, remember_secret
from wan_fixes.models.correlation import model_logger
from wan_fixes.models.failures import ErrorCode, ModelError

SERVICE: Final = "wan-fixes"
KEYRING_VARIABLE: Final = "WAN_MODELS_KEYRING"
#: Seconds that a keyring is waited for: time to type a password, where it asks for one.
KEYRING_SECONDS: Final = 10.0
_NO: Final = ("0", "off", "no", "false")
_YES: Final = ("1", "on", "yes", "true")
_RECOMMENDED: Final = 1  # the package's own line between keyrings that guard what they hold, and others
_LONGEST: Final = 16_384  # characters; session tokens have some thousand

SecretName = Literal["hub-token", "s3-access-key", "s3-secret-key", "s3-session-token", "serve-token", "encryption-key"]

#: Where the environment has each; the first that is set counts.
VARIABLES: Final[dict[SecretName, tuple[str, ...]]] = {
    "hub-token": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    "s3-access-key": ("AWS_ACCESS_KEY_ID",),
    "s3-secret-key": ("AWS_SECRET_ACCESS_KEY",),
    "s3-session-token": ("AWS_SESSION_TOKEN",),
    "serve-token": ("WAN_SERVE_TOKEN",),
    "encryption-key": ("WAN_MODELS_ENCRYPTION_KEY",),
}

logger = model_logger(__name__)


def secret(name: SecretName) -> str:
    """The secret of that name, or "": of the keyring, else of the environment; the hub's also as its client stored it.

    Raises ModelError for what can be no secret (it is not printable ASCII); the text itself is never shown.
    """
    return _of_keyring(name) or _of_environment(name)


def s3_credentials() -> tuple[str, str, str] | None:
    """Access key, secret key and session token ("" for none), all from one place; None where neither has them.

    Raises ModelError like `secret`.
    """
    for place in (_of_keyring, _of_environment):
        access_key, secret_key = place("s3-access-key"), place("s3-secret-key")
        if access_key and secret_key:
            return access_key, secret_key, place("s3-session-token")
    return None


def store_secret(name: SecretName, value: str) -> None:
    """Put a secret into the system's keyring.

    Raises ModelError where there is none that guards what it holds, and where it holds another one under that name.
    """
    remember_secret(value)
    try:
        _keyring.put(name, value)
    except KeyringFailureError as error:
        raise ModelError(
            ErrorCode.NOT_WRITABLE,
            "the secret cannot be kept",
            reason=f"the system's keyring does not take it: {error}",
            fix=f"set up a keyring, or keep it elsewhere and set {VARIABLES[name][0]} for each run",
        ) from error


class KeyringFailureError(Exception):
    """Why the keyring did not do what it was asked."""


class SystemKeyring:
    """The keyring, which is waited for no longer than `seconds`; once it failed to answer, it is not asked again."""

    def __init__(self, seconds: float = KEYRING_SECONDS) -> None:
        self._seconds = seconds
        self._is_lost = False
        self._lock = threading.Lock()

    def get(self, name: str) -> str:
        """What it holds under a name; "" where it holds nothing, or cannot be asked."""
        with self._lock:
            if self._is_lost or is_switched_off():
                return ""
            try:
                return str(self._within_time(lambda keyring: keyring.get_password(SERVICE, name)) or "")
            except KeyringFailureError as error:
                self._is_lost = True
                logger.debug("the keyring is not asked, the environment counts: %s", error)
                return ""

    def put(self, name: str, value: str) -> None:
        """Have it hold a value, in the place of no other one.

        Raises KeyringFailureError, also where it would keep it in the clear.
        """

        def store(keyring: Any) -> bool:
            if keyring.get_keyring().priority < _RECOMMENDED:
                raise KeyringFailureError(f"{type(keyring.get_keyring()).__module__} does not guard what it holds")
            # Asked again, since `get` may have given up on it while somebody was typing its password.
            held = keyring.get_password(SERVICE, name)
            if held and held != value:
                raise KeyringFailureError("it holds another one already, which is kept")
            keyring.set_password(SERVICE, name, value)
            return bool(keyring.get_password(SERVICE, name) == value)

        with self._lock:
            if is_switched_off():
                raise KeyringFailureError(f"{KEYRING_VARIABLE} switches it off")
            if not self._within_time(store):
                raise KeyringFailureError("what it was given is not there afterwards")

    def _within_time(self, work: Callable[[Any], Any]) -> Any:
        """What `work` gives for the module `keyring`. Raises KeyringFailureError, also when the time is over."""
        done: list[Any] = []
        failed: list[str] = []

        def run() -> None:
            try:
                import keyring

                done.append(work(keyring))
            except KeyringFailureError as error:
                failed.append(str(error))
            except ModuleNotFoundError as error:
                failed.append(f'{error.name} is not installed (pip install "wan-fixes[security]")')
            except Exception as error:  # noqa: BLE001 - backends raise whatever their system does
                failed.append(f"{type(error).__name__}: {plain(error, 200)}")

        # A daemon: whatever a backend waits for (some ask on a screen that nobody looks at), the process can end.
        thread = threading.Thread(target=run, name="keyring", daemon=True)
        thread.start()
        thread.join(self._seconds)
        if not done:
            raise KeyringFailureError(failed[0] if failed else f"it did not answer within {self._seconds:g} s")
        return done[0]


_keyring = SystemKeyring()


def is_switched_off() -> bool:
    """Whether `WAN_MODELS_KEYRING` says that no keyring is to be asked."""
    return os.environ.get(KEYRING_VARIABLE, "").strip().lower() in _NO


def _of_keyring(name: SecretName) -> str:
    return _handed_out(_keyring.get(name), f"{name} of the keyring")


def _of_environment(name: SecretName) -> str:
    for variable in VARIABLES[name]:
        value = _handed_out(os.environ.get(variable, ""), variable)
        if value:
            return value
    return _stored_by_hub_client() if name == "hub-token" else ""


def _stored_by_hub_client() -> str:
    """As ``hf auth login`` stored it.

    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").lower() in _YES:
        return ""
    try:
        path = _path_of_hub_client()
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except (OSError, RuntimeError):  # the latter where a user has no home, as in some containers
        return ""
    return _handed_out(data.decode("ascii", "replace"), str(path))


def _path_of_hub_client() -> Path:
    """Where it keeps the token. Raises RuntimeError where that would be in a home that the user does not have."""
    for variable, below in (("HF_TOKEN_PATH", ""), ("HF_HOME", "token"), ("XDG_CACHE_HOME", "huggingface/token")):
        named = os.environ.get(variable)
        if named:
            return Path(named, below).expanduser()
    return Path.home() / ".cache" / "huggingface" / "token"


def _handed_out(value: str, where: str) -> str:
    """The value without white space around it, masked from now on. Raises ModelError for what can be no secret."""
    value = value.strip()
    if not value:
        return ""
    remember_secret(value)
    if not value.isascii() or not value.isprintable() or len(value) > _LONGEST:
        raise ModelError(
            ErrorCode.INVALID_CONFIG,
            "a secret cannot be used",
            path=where,
            reason="it is too long, or has characters other than printable ASCII",
            fix="copy it again, without quotes or line breaks",
        )
    return value
