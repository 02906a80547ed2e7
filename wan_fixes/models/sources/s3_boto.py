"""boto3's client, set up to ask one server and to ask it once; its errors become ours.

To be imported inside functions: boto3 is an extra, and takes a while.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED, exceptions, parsers
from botocore.config import Config

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.sources.addresses import is_loopback, split_address
from wan_fixes.models.sources.s3_errors import bucket_error
from wan_fixes.models.sources.web import failure_of, retry_after_of

#: Access key, secret key, and session token ("" for none).
Credentials = tuple[str, str, str]

_NO_CREDENTIALS: Final = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.ProfileNotFound,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
    exceptions.MetadataRetrievalError,
)
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: those that their status does not tell.
_BY_NAME: Final = {
    "RequestTimeout": ErrorCode.TIMEOUT,
    "ExpiredToken": ErrorCode.AUTH_FAIL,
    "InvalidToken": ErrorCode.AUTH_FAIL,
    "TokenRefreshRequired": ErrorCode.AUTH_FAIL,
    "AuthorizationHeaderMalformed": ErrorCode.INVALID_CONFIG,
}
_BY_STATUS: Final = {
    301: ErrorCode.INVALID_CONFIG,
    302: ErrorCode.INVALID_CONFIG,
    307: ErrorCode.INVALID_CONFIG,
    308: ErrorCode.INVALID_CONFIG,
    401: ErrorCode.AUTH_FAIL,
    403: ErrorCode.AUTH_FAIL,
    404: ErrorCode.NOT_FOUND,
    408: ErrorCode.TIMEOUT,
    410: ErrorCode.NOT_FOUND,
    429: ErrorCode.RATE_LIMIT,
    503: ErrorCode.RATE_LIMIT,
}


class Boto:
    """One server's client.

    Parameters
    ----------
    where:
        What is asked for, for people.
    endpoint:
        The server; "" where boto3 is to say.
    credentials:
        Who asks; None where boto3 is to find them. Where it finds none, requests are not signed.
    timeouts:
        Seconds until a connection stands, and between two pieces of an answer.
    """

    def __init__(
        self, where: str, endpoint: str, credentials: Credentials | None, timeouts: tuple[float, float]
    ) -> None:
        self._where = where
        try:
            self._client = _client(endpoint, credentials, timeouts)
        except (exceptions.BotoCoreError, ValueError) as error:
            raise self._failure(error) from error
        split_address(self._client.meta.endpoint_url)  # a file below ~/.aws may have named it

    def ask(self, operation: str, *arguments: Any, **named: Any) -> Any:
        """What a method of the client gives. Raises ModelError."""
        try:
            return getattr(self._client, operation)(*arguments, **named)
        except exceptions.ClientError as error:
            raise self._failure_of_answer(error) from error
        except (exceptions.BotoCoreError, parsers.ResponseParserError, ValueError) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _failure(self, error: Exception) -> ModelError:
        if isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError)):
            return failure_of(error, self._where)
        if isinstance(error, _NO_CREDENTIALS):
            return bucket_error(ErrorCode.AUTH_FAIL, self._where, f"boto3 finds no credentials: {error}")
        if isinstance(error, exceptions.BotoCoreError):
            return bucket_error(ErrorCode.INVALID_CONFIG, self._where, f"boto3 refuses: {error}")
        return bucket_error(ErrorCode.BAD_REPLY, self._where, "its answer is none of S3's")

    def _failure_of_answer(self, error: exceptions.ClientError) -> ModelError:
        reply = error.response.get("ResponseMetadata", {})
        status = reply.get("HTTPStatusCode", 0)
        name = str(error.response.get("Error", {}).get("Code", ""))
        by_status = _BY_STATUS.get(status, ErrorCode.SERVER_ERROR if status >= 500 else ErrorCode.BAD_REPLY)
        reason = f"it answers {status}" if name == str(status) else f"it answers {status} {name}"
        retry_after = retry_after_of(reply.get("HTTPHeaders", {}).get("retry-after", ""), time.time())
        return bucket_error(_BY_NAME.get(name, by_status), self._where, reason, retry_after)


def _client(endpoint: str, credentials: Credentials | None, timeouts: tuple[float, float]) -> Any:
    access_key, secret_key, token = credentials or ("", "", "")
    region = os.environ.get("AWS_REGION")  # Amazon's other programs read it, and boto3 AWS_DEFAULT_REGION alone
    session = boto3.session.Session(access_key or None, secret_key or None, token or None, region or None)
    is_here = is_loopback(urlsplit(endpoint).hostname or "")
    config = Config(
        signature_version="s3v4" if session.get_credentials() is not None else UNSIGNED,
        connect_timeout=timeouts[0],
        read_timeout=timeouts[1],
        retries={"mode": "standard", "total_max_attempts": 1},
        proxies={} if is_here else None,  # no proxy is asked for this machine
    )
    client = session.client("s3", endpoint_url=endpoint or None, config=config)
    if not endpoint and (urlsplit(client.meta.endpoint_url).hostname or "").endswith(".amazonaws.com"):
        # Otherwise boto3 signs addresses for a host that sends on to the bucket's region, where the signature is wrong:
        # https://github.com/boto/boto3/issues/3015
        config = config.merge(Config(s3={"addressing_style": "virtual"}))
        client = session.client("s3", config=config)
    return client
