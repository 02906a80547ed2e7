"""What is said when a bucket does not give what is needed, whoever found out: boto3, or the client that reads."""

from __future__ import annotations

from typing import Final

from wan_fixes.health.text import plain
from wan_fixes.models.failures import ErrorCode, ModelError

FIXES: Final = {
    ErrorCode.AUTH_FAIL: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, for a key that may list and "
    "read the bucket; a wrong clock on this machine looks the same",
    ErrorCode.NOT_FOUND: "check the bucket and prefix (WAN_MODELS_S3, or the manifest's), and AWS_ENDPOINT_URL_S3",
    ErrorCode.RATE_LIMIT: "wait a while, or ask for fewer parts at once (--connections)",
    ErrorCode.INVALID_CONFIG: "check the region (AWS_REGION), AWS_ENDPOINT_URL_S3, and the files below ~/.aws",
}
_FIX: Final = "run it again; if it stays so, take another source"


def bucket_error(code: ErrorCode, where: str, reason: str, retry_after: float | None = None) -> ModelError:
    """An error about a bucket, with what helps."""
    return ModelError(
        code,
        "a bucket does not give what is needed",
        path=where,
        reason=plain(reason, 300),
        fix=FIXES.get(code, _FIX),
        retry_after=retry_after,
    )
