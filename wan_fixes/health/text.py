"""Makes text from users, files and servers safe to show: no control characters, no secrets, no endless lines."""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

MASK = "***"
_SHORT_SECRET = 8  # characters; a shorter one may be part of ordinary words, and is masked where it stands alone
_LONGEST_READ = 100_000  # characters; nobody reads more, and masking takes time
_JOINERS = "\u200c\u200d"  # invisible, but part of emoji and of several scripts
_ESCAPED_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (bidi too), surrogates, line separators
_UNITS = ("B", "kB", "MB", "GB", "TB")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]*)")
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_SECRET_NAME = re.compile(
    r"(?i)token|secret|passw|passphrase|(api|access|private)_?key|credential|authorization|cookie"
)
_NO_SECRET_NAME = re.compile(
    r"(?i)tokeni[sz]|(num|max|min|pad|eos|bos|unk|sep|cls|mask)_token|token_?(ids?|count|length|limit|type)"
)

# What a group captures is kept.
_SECRETS = (
    re.compile(
        r"()\b(?:hf_[A-Za-z0-9]{8,}|(?:AKIA|ASIA)[A-Z0-9]{12,}|gh[opsu]_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,})"
    ),
    re.compile(r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"),
    # Query parameters that carry the right to read: S3, Google, CloudFront, Azure.
    re.compile(
        r"(?i)([?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|googleaccessid|signature"
        r"|key-pair-id|policy|sig|access_token|token|api_?key)=)[^&\s\"'<>]+"
    ),
    re.compile(
        r"(?i)\b([\w-]*(?:secret_?(?:access_?)?key|session_token|access_token|auth_token|hf_token|api_?key|password|passwd)"
        r"[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&}]+"
    ),
    re.compile(r"(://)[^/\s:@]+:[^/\s@]+(?=@)"),
)

# Secrets that this process has in hand, and one pattern that matches any of them.
_known_secrets: set[str] = set()
_known_pattern: re.Pattern[str] | None = None
_known_lock = threading.Lock()


def plain(text: object, limit: int = 1000) -> str:
    """`text` as one line that is safe in any log: secrets masked, control and bidi characters escaped, bounded.

    Rich markup is not touched: print what comes out with ``markup=False`` or as `rich.text.Text`.
    """
    masked = mask_secrets(str(text)[:_LONGEST_READ])
    # Cut before escaping, since an escape must not be halved.
    shown = "".join(_escape(character) for character in masked[:limit])
    return shown if len(masked) <= limit else f"{shown}… ({len(masked) - limit} more characters)"


def size_text(size: float) -> str:
    """Bytes as "3.4 MB" (powers of 1000)."""
    power = 0
    while size >= 1000 and power < len(_UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.{min(power, 1)}f} {_UNITS[power]}"


def remember_secret(value: str) -> None:
    """Mask this very text wherever it turns up from now on, in this process; also as a URL or JSON writes it.

    What is empty, or nothing but asterisks, is left alone.
    """
    global _known_pattern
    if not value.strip("*"):
        return
    with _known_lock:
        _known_secrets.update((value, quote(value, safe=""), json.dumps(value)[1:-1]))
        longest_first = sorted(_known_secrets, key=len, reverse=True)  # one may begin with another
        _known_pattern = re.compile("|".join(map(_pattern_of, longest_first)))


def _pattern_of(secret: str) -> str:
    text = re.escape(secret)
    return text if len(secret) >= _SHORT_SECRET else rf"(?<![A-Za-z0-9]){text}(?![A-Za-z0-9])"


def size_from(text: str) -> int | None:
    """The bytes that "500MB", "3.4 gb" or "1000" mean; None where it means no size."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[2] not in ("", *map(str.lower, _UNITS)):
        return None
    power = [unit.lower() for unit in _UNITS].index(match[2] or "b")
    return int(float(match[1]) * 1000**power)


def mask_secrets(text: str) -> str:
    """`text` with access tokens, keys, passwords and the signatures of presigned URLs replaced by ``***``.

    So is every secret that `remember_secret` was told.
    """
    if _known_pattern is not None:
        text = _known_pattern.sub(MASK, text)
    for pattern in _SECRETS:
        text = pattern.sub(rf"\g<1>{MASK}", text)
    return text


def mask_values(value: Any) -> Any:
    """A copy of `value` as JSON types with secrets masked, in texts and under names such as "api_key" or "hf_token".

    What is no JSON type is taken as the text that it is shown as.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {
            mask_secrets(str(name)): MASK if _is_secret(str(name), item) else mask_values(item)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [mask_values(item) for item in value]
    return mask_secrets(str(value))


def _is_secret(name: str, value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, float, Mapping, list, tuple)) or not str(value):
        return False  # a container's own names say what in it is secret
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET_NAME.search(name)


def _escape(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    return _SHORT_ESCAPES.get(character) or character.encode("unicode_escape").decode("ascii")
