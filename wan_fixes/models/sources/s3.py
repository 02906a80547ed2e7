"""A folder of a bucket as a source: S3, or what speaks its protocol (MinIO, Ceph, R2).

boto3 lists and signs. The bytes are read from signed addresses by the client that reads the hub's, so that stalls,
broken connections, redirects and changed files are met in one place.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from wan_fixes.health.text import plain
from wan_fixes.models.credentials import s3_credentials
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.listing import INDEX_NAME, Listing, RemoteFile, check_listing, is_fetched
from wan_fixes.models.manifest_reader import ManifestReader
from wan_fixes.models.names import ModelName, check_paths
from wan_fixes.models.sources.revision import revision_of
from wan_fixes.models.sources.s3_errors import FIXES, bucket_error
from wan_fixes.models.sources.web import Answer, RetryPolicy, WebClient
from wan_fixes.models.spec import ModelSpec, S3Source, VariantSpec

if TYPE_CHECKING:
    from wan_fixes.models.sources.s3_boto import Boto, Credentials

MIRROR_VARIABLE: Final = "WAN_MODELS_S3"
ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_ENDPOINT: Final = "https://s3.amazonaws.com"
# A signature is used at once. The rest is for clocks that differ.
_SIGNATURE_SECONDS: Final = 3600
# A model's folder has some dozens of files. Who names a whole bucket by mistake should not wait for its millions.
_MOST_OBJECTS: Final = 10_000
_HEADS_AT_ONCE: Final = 8
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def s3_stores(
    spec: ModelSpec,
    variant: VariantSpec,
    name: ModelName,
    *,
    retry: RetryPolicy | None = None,
) -> Iterator[S3Store]:
    """The buckets that may have a model: the mirror that `WAN_MODELS_S3` names, then the one of the manifest.

    Raises ModelError when the variable, or the endpoint that the environment names, cannot be used.
    """
    mirror = s3_mirror()
    if mirror is not None:
        folder = "/".join(part for part in (mirror.prefix, spec.family, name.folder_name) if part)
        yield S3Store(S3Source(mirror.bucket, folder), retry=retry)
    if variant.s3 is not None:
        yield S3Store(variant.s3, retry=retry)


def s3_mirror() -> S3Source | None:
    """What `WAN_MODELS_S3` names (``s3://BUCKET/PREFIX``), laid out like `MODELS_ROOT`; None where it is not set.

    Raises ModelError.
    """
    text = os.environ.get(MIRROR_VARIABLE, "").strip()
    if not text:
        return None
    scheme, _, rest = text.partition("://")
    bucket, _, prefix = rest.partition("/")
    reader = ManifestReader()
    source = reader.s3({"bucket": bucket, "prefix": prefix}, MIRROR_VARIABLE)
    if scheme != "s3" or reader.problems:
        raise ModelError(
            ErrorCode.INVALID_CONFIG,
            "the mirror of models cannot be used",
            reason="; ".join(reader.problems) or f"{plain(text, 200)!r} does not begin with s3://",
            fix=f"set {MIRROR_VARIABLE} to s3://BUCKET/PREFIX",
        )
    return source


def s3_endpoint() -> str:
    """The server that the environment names; "" where that is left to boto3, which means Amazon's."""
    return next((os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)), "")


class S3Store:
    """One model's folder of a bucket, as a `Source`.

    Parameters
    ----------
    endpoint:
        The server (default: as the environment says). Raises ModelError unless it is https, or on this machine.
    credentials:
        Access key, secret key and session token ("" for none) of who asks (default: those of `s3_credentials`, else
        as boto3 finds them). Where there are none, requests are not signed.
    timeouts:
        Seconds until a connection stands, and between two pieces of an answer.
    """

    def __init__(
        self,
        source: S3Source,
        *,
        endpoint: str | None = None,
        credentials: Credentials | None = None,
        retry: RetryPolicy | None = None,
        timeouts: tuple[float, float] = (10.0, 30.0),
    ) -> None:
        self._bucket = source.bucket
        self._prefix = f"{source.prefix}/" if source.prefix else ""
        self._endpoint = s3_endpoint() if endpoint is None else endpoint
        self._credentials = s3_credentials() if credentials is None else credentials
        self._retry = retry or RetryPolicy()
        self._timeouts = timeouts
        self._web = WebClient(self._endpoint or _ENDPOINT, timeouts=timeouts)
        self._made: Boto | None = None
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        """For people and for the lock file."""
        return f"s3:{self._bucket}/{self._prefix}".rstrip("/")

    def listing(self, revision: str | None = None) -> Listing:
        """The files as they are now: a bucket has no other revisions. Its own is a digest of their states."""
        boto = self._boto()
        paths = list(self._paths(boto))
        if not paths:
            raise bucket_error(ErrorCode.NOT_FOUND, self._where, "no file of a model is there")
        check_paths(paths, self.label)
        if INDEX_NAME not in paths:
            raise bucket_error(ErrorCode.NOT_FOUND, self._where, f"no {INDEX_NAME} is there")
        with ThreadPoolExecutor(_HEADS_AT_ONCE, thread_name_prefix="models-s3") as executor:
            found = list(executor.map(lambda path: self._file(boto, path), paths))
        states = ((file.path, file.size, etag) for file, etag in found)
        listing = Listing(self.label, revision_of(states), tuple(file for file, _ in found))
        check_listing(listing)
        return listing

    def open(self, file: RemoteFile, revision: str, start: int, stop: int, etag: str = "") -> Answer:
        """A part of a file, from an address that is signed for this one request."""
        try:
            return self._read(file, start, stop, etag)
        except ModelError as error:
            if error.code is not ErrorCode.AUTH_FAIL:
                raise
        # On a machine that slept a signature may have ended before it was used, and credentials change.
        return self._read(file, start, stop, etag)

    def address_of(self, path: str, seconds: int) -> str:
        """An address from which whoever has it can read a file for so long.

        Where there are no credentials it is the plain address. Raises ModelError.
        """
        params = {"Bucket": self._bucket, "Key": self._prefix + path}
        return self._boto().ask("generate_presigned_url", "get_object", params, seconds)

    def close(self) -> None:
        """Close all connections."""
        self._web.close()
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None

    def _read(self, file: RemoteFile, start: int, stop: int, etag: str) -> Answer:
        address = self.address_of(file.path, _SIGNATURE_SECONDS)
        try:
            return self._web.read(address, start, stop, etag)
        except ModelError as error:
            error.fix = FIXES.get(error.code, error.fix)
            raise

    def _paths(self, boto: Boto) -> Iterator[str]:
        """Of the objects that a model could be made of, below its folder."""
        wanted, seen = {"Bucket": self._bucket, "Prefix": self._prefix}, 0
        while True:
            page = self._retry.run(lambda: boto.ask("list_objects_v2", **wanted))
            keys = [entry.get("Key", "") for entry in page.get("Contents", ())]
            for path in (key.removeprefix(self._prefix) for key in keys):
                if is_fetched(path) and not path.rpartition("/")[2].startswith("."):
                    yield path
            if not page.get("IsTruncated"):
                return
            seen += len(keys)
            following = page.get("NextContinuationToken", "")
            if not keys or not following or seen > _MOST_OBJECTS:
                reason = f"its list of objects has no end: {seen} came"
                raise bucket_error(ErrorCode.BAD_REPLY, self._where, reason)
            wanted["ContinuationToken"] = following

    def _file(self, boto: Boto, path: str) -> tuple[RemoteFile, str]:
        """What the server says of a file, and the state that it is in."""
        key = self._prefix + path
        said = self._retry.run(lambda: boto.ask("head_object", Bucket=self._bucket, Key=key, ChecksumMode="ENABLED"))
        return RemoteFile(path, said.get("ContentLength", -1), _digest(said)), said.get("ETag", "")

    def _boto(self) -> Boto:
        try:
            from wan_fixes.models.sources.s3_boto import Boto
        except ModuleNotFoundError as error:
            raise ModelError(
                ErrorCode.INVALID_CONFIG,
                "a bucket cannot be asked",
                path=self._where,
                reason=f"{error.name} is not installed",
                fix='pip install "wan-fixes[s3]"',
            ) from error
        with self._lock:
            if self._made is None:
                self._made = Boto(self._where, self._endpoint, self._credentials, self._timeouts)
            return self._made

    @property
    def _where(self) -> str:
        at = f" at {self._endpoint}" if self._endpoint else ""
        return f"s3://{self._bucket}/{self._prefix}{at}"


def _digest(said: dict[str, Any]) -> str:
    """The SHA-256 of an object, where the server knows that of the whole, or whoever stored it wrote it down.

    What was sent in parts may have a checksum of the parts' checksums, which tells nothing of the whole:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
    """
    if said.get("ChecksumType") == "FULL_OBJECT":
        try:
            found = base64.b64decode(said.get("ChecksumSHA256", ""), validate=True).hex()
        except binascii.Error:
            found = ""
        if _SHA256.fullmatch(found):
            return found
    written = said.get("Metadata", {}).get("sha256", "").lower()
    return written if _SHA256.fullmatch(written) else ""
