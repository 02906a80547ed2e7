"""A bucket as a source: real boto3 and a real server, whatever that does (M4, M7, M14)."""

from __future__ import annotations

import hashlib
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import FetchOptions
from wan_fixes.models.installed import ModelState
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.sources.s3 import MIRROR_VARIABLE, S3Store, s3_stores
from wan_fixes.models.sources.source import Source
from wan_fixes.models.sources.web import RetryPolicy
from wan_fixes.models.spec import S3Source
from wan_fixes.models.target import Target

from .hub_server import Hub
from .s3_server import (
    ACCESS_KEY,
    BUCKET,
    CREDENTIALS,
    S3,
    SECRETS,
    Objects,
    all_that_is_shown,
    running_objects,
    running_s3,
    set_environment,
)
from .test_ensure import LARGE, whole
from .world import NEEDED_BYTES, PART, content_of, manifest_of, model_files, some_bytes

PREFIX = "wan/tiny model@1.0+a"  # with characters that addresses and signatures write in another way
WHOLE = whole()
RETRY = RetryPolicy(attempts=2, base_seconds=0.001)
Prepare = Callable[[S3], None]


@pytest.fixture(scope="module")
def objects() -> Iterator[Objects]:
    with running_objects() as server:
        server.put(PREFIX, model_files())
        yield server


@pytest.fixture
def s3(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with running_s3(objects) as server:
        set_environment(monkeypatch, server)
        yield server


def bucket(prefix: str = PREFIX, **named: Any) -> S3Store:
    return S3Store(S3Source(BUCKET, prefix), retry=RETRY, **{"timeouts": (5.0, 0.5), **named})


def ensurer(root: Path, *make: Callable[[Target], Source], connections: int = 4) -> ModelEnsurer:
    options = FetchOptions(connections=connections, part_bytes=4 * PART, retry=RETRY, safety_margin=0)
    return ModelEnsurer(
        manifest_of(), ModelResolver(root), options=options, make_sources=lambda target: [made(target) for made in make]
    )


def from_s3(target: Target) -> Source:
    return bucket()


def from_hub(hub: Hub) -> Callable[[Target], Source]:
    return lambda target: HubStore(target.variant.hub, endpoint=hub.address, token="", retry=RETRY)


def failure(store: S3Store) -> ModelError:
    """That of asking a store for its files."""
    with pytest.raises(ModelError) as caught:
        store.listing()
    store.close()
    assert caught.value.reason and caught.value.fix
    return caught.value


def test_m4_a_model_is_fetched_from_a_bucket(s3: S3, tmp_path: Path) -> None:
    models = ensurer(tmp_path, from_s3)
    assert content_of(models.ensure("tiny")) == WHOLE
    assert s3.bytes_served == NEEDED_BYTES
    assert not s3.asked(r"(HEAD|GET) .*(\.pth|README|picture)")
    assert models.status("tiny").source == f"s3:{BUCKET}/{PREFIX}"


def test_m4_what_comes_without_a_digest_is_pinned_by_its_own(s3: S3, tmp_path: Path) -> None:
    models = ensurer(tmp_path, from_s3)
    folder = models.ensure("tiny")
    pinned = models.known_listing(models.target("tiny"))
    assert pinned is not None
    assert {file.path: file.sha256 for file in pinned.files} == {
        path: hashlib.sha256(content).hexdigest() for path, content in WHOLE.items()
    }
    (folder / LARGE).unlink()
    s3.fail("wrong bytes", LARGE, 999, lambda body: b"X" + body[1:])
    with pytest.raises(ModelError) as caught:
        models.ensure("tiny")
    assert caught.value.code is ErrorCode.CHECKSUM_FAIL


def test_m4_digests_are_taken_from_where_a_bucket_has_them(s3: S3) -> None:
    content, large = b"{}", some_bytes(5 << 20, 1) + b"the second part"
    sha256 = hashlib.sha256(content).hexdigest()
    boto = s3.objects.boto
    s3.objects.put("digests", {"checksum.json": content}, ChecksumAlgorithm="SHA256")
    s3.objects.put("digests", {"metadata.json": content}, Metadata={"sha256": sha256.upper()})
    s3.objects.put("digests", {"nonsense.json": content}, Metadata={"sha256": "../x"})
    s3.objects.put("digests", {"model_index.json": content})
    begun = {"Bucket": BUCKET, "Key": "digests/parts.json"}
    upload = boto.create_multipart_upload(**begun, ChecksumAlgorithm="SHA256", ChecksumType="COMPOSITE")["UploadId"]
    parts = []
    for number, start in enumerate((0, 5 << 20), 1):
        part = large[start : start + (5 << 20)]
        done = boto.upload_part(**begun, UploadId=upload, PartNumber=number, Body=part, ChecksumAlgorithm="SHA256")
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumSHA256": done["ChecksumSHA256"]})
    boto.complete_multipart_upload(**begun, UploadId=upload, MultipartUpload={"Parts": parts})
    store = bucket("digests")
    assert {file.path: (file.size, file.sha256) for file in store.listing().files} == {
        "checksum.json": (2, sha256),
        "metadata.json": (2, sha256),
        "nonsense.json": (2, ""),
        "model_index.json": (2, ""),
        "parts.json": (len(large), ""),
    }
    store.close()


def test_m4_a_revision_changes_when_a_file_does(s3: S3) -> None:
    s3.objects.put("changing", {"model_index.json": b"1", "vae/b.json": b"2"})
    store = bucket("changing")
    before = store.listing().revision
    assert store.listing().revision == before
    s3.objects.put("changing", {"vae/b.json": b"3"})
    assert store.listing().revision != before
    store.close()


def test_m4_a_list_comes_in_pages(s3: S3) -> None:
    s3.page = 2
    store = bucket()
    assert {file.path for file in store.listing().files} == set(WHOLE)
    assert s3.asked("list-type=2") == 7
    assert s3.asked("list-type=2.*continuation-token=") == 6
    store.close()


def test_m4_what_lies_beside_a_model_is_left_out(s3: S3) -> None:
    beside = {".verified.json": b"2", "vae/.c.json": b"3", "d.pth": b"4", "e/": b""}
    s3.objects.put("beside", {"model_index.json": b"1", **beside})
    s3.objects.put("beside-it", {"f.json": b"5"})
    store = bucket("beside")
    assert [file.path for file in store.listing().files] == ["model_index.json"]
    store.close()


def test_m4_a_mirror_is_laid_out_like_the_models_folder(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.objects.put("mirror/of/mine/wan21/tiny@1.0.0-original", WHOLE)
    monkeypatch.setenv(MIRROR_VARIABLE, f"s3://{BUCKET}/mirror/of/mine/")
    manifest = manifest_of(files=f's3 = {{ bucket = "{BUCKET}", prefix = "{PREFIX}" }}'.replace(" model@", "-"))
    models = ModelEnsurer(
        manifest,
        ModelResolver(tmp_path),
        options=FetchOptions(part_bytes=PART, retry=RETRY, safety_margin=0),
        make_sources=lambda target: s3_stores(target.spec, target.variant, target.name, retry=RETRY),
    )
    target = models.target("tiny")
    labels = [store.label for store in s3_stores(target.spec, target.variant, target.name)]
    assert labels == [f"s3:{BUCKET}/mirror/of/mine/wan21/tiny@1.0.0-original", f"s3:{BUCKET}/wan/tiny-1.0+a"]
    assert content_of(models.ensure("tiny")) == WHOLE
    monkeypatch.delenv(MIRROR_VARIABLE)
    assert [store.label for store in s3_stores(target.spec, target.variant, target.name)] == labels[1:]


@pytest.mark.parametrize("text", ["models", "https://models/x", "s3://", "s3://UPPER/x", "s3://models/../x", "s3:/x"])
def test_m4_a_mirror_that_is_none_is_said_so(text: str, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, text)
    spec, variant = manifest_of().find("tiny")
    with pytest.raises(ModelError, match=MIRROR_VARIABLE) as caught:
        list(s3_stores(spec, variant, spec.name()))
    assert caught.value.code is ErrorCode.INVALID_CONFIG


def test_m4_a_public_bucket_is_asked_without_credentials(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, s3, credentials=False)
    assert failure(bucket()).code is ErrorCode.AUTH_FAIL
    s3.is_public = True
    assert content_of(ensurer(tmp_path, from_s3).ensure("tiny")) == WHOLE
    assert not any("Authorization" in headers or "X-Amz-Signature" in path for _, path, headers in s3.requests)


def test_m14_credentials_may_be_handed_over(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, s3, credentials=False)
    models = ensurer(tmp_path, lambda target: bucket(credentials=CREDENTIALS))
    assert content_of(models.ensure("tiny")) == WHOLE
    assert failure(bucket(credentials=(ACCESS_KEY, "another", ""))).code is ErrorCode.AUTH_FAIL


def test_m4_no_proxy_is_asked_for_this_machine(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert content_of(ensurer(tmp_path, from_s3).ensure("tiny")) == WHOLE


LIST = "list-type=2"
CONTENT = "GET .*safetensors"


def status(code: int, name: str, times: int = 1, pattern: str = "", **headers: str) -> Prepare:
    named = {header.replace("_", "-"): value for header, value in headers.items()}
    return lambda s3: s3.fail("status", pattern, times, (code, name, named))


def fault(kind: str, value: Any = None, times: int = 1, pattern: str = CONTENT) -> Prepare:
    return lambda s3: s3.fail(kind, pattern, times, value)


def both(one: Prepare, other: Prepare) -> Prepare:
    def prepare(s3: S3) -> None:
        one(s3)
        other(s3)

    return prepare


def other_bytes_after_a_part(s3: S3) -> None:
    """The object is replaced by another of the same size while it is read."""
    changed = {LARGE: some_bytes(10 * PART, 77)}
    s3.at_bytes = f"{PREFIX}/{LARGE}", PART, lambda: s3.objects.put(PREFIX, changed)


def an_if_range_that_nobody_heeds(s3: S3) -> None:
    s3.heeds_if_range = False
    other_bytes_after_a_part(s3)


PASSING: dict[str, Prepare] = {
    "a list that comes too often": status(503, "SlowDown", 2, LIST, Retry_After="0"),
    "a list that stalls": fault("stall", 0.7, pattern=LIST),
    "a head that fails": status(500, "InternalError", 1, "HEAD"),
    "a file that comes too often": status(503, "SlowDown", 2, CONTENT),
    "a file that stalls": fault("stall", 0.7),
    "a dropped connection": fault("drop"),
    "a reset in the middle": fault("reset", PART, times=3),
    "fewer bytes than asked for": fault("short", 100),
    "no ranges": fault("no ranges", times=1000),
    "no ranges, and a reset": both(fault("no ranges", times=1000), fault("reset", PART + 9)),
    "a signature that ended": fault("late", 7200),
    "a redirect on this machine": fault("redirect"),
}


@pytest.mark.parametrize("prepare", PASSING.values(), ids=PASSING)
def test_m7_what_passes_is_lived_through(s3: S3, tmp_path: Path, prepare: Prepare) -> None:
    prepare(s3)
    assert content_of(ensurer(tmp_path, from_s3).ensure("tiny")) == WHOLE
    assert not [fault for fault in s3.faults if 0 < fault.times < 500]
    assert list((tmp_path / ".tmp").iterdir()) == []


@pytest.mark.parametrize("prepare", [other_bytes_after_a_part, an_if_range_that_nobody_heeds])
def test_m7_an_object_that_changes_between_two_parts_is_never_mixed(s3: S3, tmp_path: Path, prepare: Prepare) -> None:
    prepare(s3)
    try:
        folder = ensurer(tmp_path, from_s3, connections=1).ensure("tiny")
        assert (folder / LARGE).read_bytes() == some_bytes(10 * PART, 77)
        assert s3.served[f"{PREFIX}/{LARGE}"] > 10 * PART
    finally:
        s3.objects.put(PREFIX, {LARGE: WHOLE[LARGE]})


LISTS: dict[str, tuple[Prepare, ErrorCode]] = {
    "a list that is refused": (status(403, "AccessDenied", 99, LIST), ErrorCode.AUTH_FAIL),
    "a session that ended": (status(400, "ExpiredToken", 99, LIST), ErrorCode.AUTH_FAIL),
    "a clock that is wrong": (fault("late", 7200, 99, LIST), ErrorCode.AUTH_FAIL),
    "a head that is refused": (status(403, "AccessDenied", 99, "HEAD"), ErrorCode.AUTH_FAIL),
    "no such bucket": (status(404, "NoSuchBucket", 99, LIST), ErrorCode.NOT_FOUND),
    "a file that goes before its head": (status(404, "NoSuchKey", 99, "HEAD"), ErrorCode.NOT_FOUND),
    "another region": (status(301, "PermanentRedirect", 99, LIST), ErrorCode.INVALID_CONFIG),
    "a region that it does not take": (status(400, "AuthorizationHeaderMalformed", 99, LIST), ErrorCode.INVALID_CONFIG),
    "too often, for ever": (status(503, "SlowDown", 99, LIST, Retry_After="0"), ErrorCode.RATE_LIMIT),
    "come back much later": (status(429, "TooManyRequests", 99, LIST, Retry_After="4000"), ErrorCode.RATE_LIMIT),
    "too slow a client": (status(400, "RequestTimeout", 99, LIST), ErrorCode.TIMEOUT),
    "a server that is down": (status(500, "InternalError", 99, LIST), ErrorCode.SERVER_ERROR),
    "a request that it does not know": (status(400, "InvalidRequest", 99, LIST), ErrorCode.BAD_REPLY),
    "no answer": (fault("stall", 0.8, 99, LIST), ErrorCode.TIMEOUT),
    "every connection dropped": (fault("drop", None, 99, ""), ErrorCode.NETWORK),
    "a list that breaks off": (fault("garbage", b"<ListBucketResult>", 99, LIST), ErrorCode.SERVER_ERROR),
    "a list without files": (fault("garbage", b"<ListBucketResult/>", 99, LIST), ErrorCode.NOT_FOUND),
    "a list without an end": (
        fault("garbage", b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", 99, LIST),
        ErrorCode.BAD_REPLY,
    ),
    "a size that is none": (
        fault("garbage", b"<L><Contents><Key>a.json</Key><Size>x</Size></Contents></L>", 99, LIST),
        ErrorCode.BAD_REPLY,
    ),
}


@pytest.mark.parametrize(("prepare", "code"), LISTS.values(), ids=LISTS)
def test_m7_what_lasts_of_a_list_is_named(s3: S3, prepare: Prepare, code: ErrorCode) -> None:
    prepare(s3)
    error = failure(bucket(timeouts=(0.5, 0.3)))
    assert error.code is code
    assert [secret for secret in SECRETS if secret in str(error) + all_that_is_shown(error)] == []


FILES: dict[str, tuple[Prepare, ErrorCode]] = {
    "a file that is refused": (status(403, "AccessDenied", 99, CONTENT), ErrorCode.AUTH_FAIL),
    "a file that is gone": (status(404, "NoSuchKey", 99, CONTENT), ErrorCode.NOT_FOUND),
    "a server that is down": (status(500, "InternalError", 99, CONTENT), ErrorCode.SERVER_ERROR),
    "every connection dropped": (fault("drop", None, 99), ErrorCode.NETWORK),
    "a redirect in a circle": (fault("redirect", None, 999), ErrorCode.BAD_REPLY),
    "a redirect to plain http": (fault("redirect", "http://example.com/x", 99), ErrorCode.UNTRUSTED_HOST),
    "a redirect to a file": (fault("redirect", "file:///etc/passwd", 99), ErrorCode.UNTRUSTED_HOST),
}


@pytest.mark.parametrize(("prepare", "code"), FILES.values(), ids=FILES)
def test_m7_what_lasts_of_a_file_is_named(s3: S3, prepare: Prepare, code: ErrorCode) -> None:
    prepare(s3)
    store = bucket()
    with pytest.raises(ModelError) as caught:
        store.open(RemoteFile(LARGE, 10 * PART), "", 0, PART)
    store.close()
    assert caught.value.code is code
    assert caught.value.reason and caught.value.fix and "hf auth" not in caught.value.fix
    assert [secret for secret in SECRETS if secret in str(caught.value) + all_that_is_shown(caught.value)] == []


@pytest.mark.parametrize("name", ["a file that is refused", "every connection dropped"])
def test_m7_after_a_failure_the_next_start_goes_on(
    s3: S3, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    prepare, code = FILES[name]
    prepare(s3)
    models = ensurer(tmp_path, from_s3)
    with caplog.at_level(logging.DEBUG, "wan_fixes"), pytest.raises(ModelError) as caught:
        models.ensure("tiny")
    assert caught.value.code is code
    assert [secret for secret in SECRETS if secret in all_that_is_shown(caught.value) + caplog.text] == []
    assert models.status("tiny").state is ModelState.PARTIAL
    s3.faults.clear()
    assert content_of(models.ensure("tiny")) == WHOLE


@pytest.mark.parametrize(("answer", "times"), [((500, "InternalError", {}), 3), ((403, "AccessDenied", {}), 1)])
def test_m7_nobody_but_us_tries_again(s3: S3, answer: tuple[int, str, dict[str, str]], times: int) -> None:
    s3.fail("status", LIST, 99, answer)
    failure(bucket())
    assert s3.asked() == times == (RETRY.attempts + 1 if answer[0] == 500 else 1)


def test_m7_a_list_that_never_ends_is_given_up(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wan_fixes.models.sources.s3._MOST_OBJECTS", 25)
    entries = b"".join(b"<Contents><Key>x%d</Key><Size>1</Size></Contents>" % number for number in range(10))
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"
    s3.fail("garbage", LIST, 999, b"<ListBucketResult>" + more + entries + b"</ListBucketResult>")
    error = failure(bucket())
    assert error.code is ErrorCode.BAD_REPLY and "30 came" in error.reason
    assert s3.asked(LIST) == 3


ASTRAY = ("vae/../../x.json", "/etc/x.json", "vae/con.json", "VAE/config.json", "vae/a\\b.json", "vae/x.json/y.json")


@pytest.mark.parametrize("name", ASTRAY)
def test_m1_a_name_that_leads_astray_is_refused_and_not_asked_for(name: str, s3: S3) -> None:
    entries = "".join(f"<Contents><Key>{PREFIX}/{key}</Key></Contents>" for key in (*WHOLE, "vae/x.json", name))
    s3.fail("garbage", LIST, 1, f"<ListBucketResult>{entries}</ListBucketResult>".encode())
    assert failure(bucket()).code is ErrorCode.UNSAFE_PATH
    assert s3.asked() == 1


def test_m4_after_a_failure_what_came_is_not_fetched_again(s3: S3, tmp_path: Path) -> None:
    s3.fail("status", "GET .*vae/diffusion", 99, (404, "NoSuchKey", {}))
    models = ensurer(tmp_path, from_s3, connections=1)
    with pytest.raises(ModelError):
        models.ensure("tiny")
    there = models.status("tiny")
    assert there.state is ModelState.PARTIAL and there.bytes_there > 0
    s3.faults.clear()
    s3.served.clear()
    assert content_of(models.ensure("tiny")) == WHOLE
    assert s3.bytes_served == NEEDED_BYTES - there.bytes_there


def test_m4_when_the_bucket_fails_the_hub_is_asked(s3: S3, hub: Hub, tmp_path: Path) -> None:
    s3.fail("status", LIST, 999, (403, "AccessDenied", {}))
    models = ensurer(tmp_path, from_s3, from_hub(hub))
    assert content_of(models.ensure("tiny")) == WHOLE
    assert (s3.asked(LIST), hub.asked("/api/")) == (1, 1)


def test_m4_when_the_bucket_fails_halfway_the_hub_goes_on(s3: S3, hub: Hub, tmp_path: Path) -> None:
    s3.at_bytes = f"{PREFIX}/{LARGE}", PART, lambda: s3.fail("status", "GET", 999, (403, "AccessDenied", {}))
    models = ensurer(tmp_path, from_s3, from_hub(hub))
    assert content_of(models.ensure("tiny")) == WHOLE
    assert s3.served[f"{PREFIX}/{LARGE}"] < 10 * PART <= hub.served[LARGE]


def test_m4_what_the_hub_pinned_a_bucket_may_bring(s3: S3, hub: Hub, tmp_path: Path) -> None:
    folder = ensurer(tmp_path, from_hub(hub)).ensure("tiny")
    (folder / LARGE).unlink()
    assert content_of(ensurer(tmp_path, from_s3).ensure("tiny")) == WHOLE
    assert (set(s3.served), s3.asked(LIST)) == ({f"{PREFIX}/{LARGE}"}, 0)


def test_m4_the_bucket_comes_before_the_hub(s3: S3, hub: Hub, tmp_path: Path) -> None:
    ensurer(tmp_path, from_s3, from_hub(hub)).ensure("tiny")
    assert hub.requests == []


def test_m4_all_that_failed_is_named(s3: S3, hub: Hub, tmp_path: Path) -> None:
    s3.fail("status", LIST, 999, (404, "NoSuchBucket", {}))
    hub.fail("status", "/api/", 999, (401, {}))
    with pytest.raises(ModelError) as caught:
        ensurer(tmp_path, from_s3, from_hub(hub)).ensure("tiny")
    assert caught.value.code is ErrorCode.ALL_SOURCES_FAILED
    assert [(failed["source"].partition(":")[0], failed["code"]) for failed in caught.value.context["sources"]] == [
        ("s3", "NOT_FOUND"),
        ("hub", "AUTH_FAIL"),
    ]
    assert "NoSuchBucket" in caught.value.reason and "401" in caught.value.reason


def test_m14_credentials_go_to_no_other_host(s3: S3, objects: Objects, tmp_path: Path) -> None:
    with running_s3(objects) as other:
        other.is_public = True
        elsewhere = other.address.replace("127.0.0.1", "localhost")
        s3.fail("redirect", CONTENT, 99, f"{elsewhere}/{BUCKET}/elsewhere.safetensors")
        with pytest.raises(ModelError):
            ensurer(tmp_path, from_s3).ensure("tiny")
        assert other.asked("elsewhere") > 0
        s3.fail("redirect", LIST, 99, f"{elsewhere}/{BUCKET}")
        assert failure(bucket()).code is ErrorCode.INVALID_CONFIG
        assert other.asked(LIST) == 0
        told = repr(other.requests)
    assert [secret for secret in (*SECRETS, "Authorization", "X-Amz", "x-amz") if secret in told] == []
    assert s3.asked("X-Amz-Signature") > 0


def test_m14_a_server_that_says_another_region_gets_no_request_elsewhere(s3: S3) -> None:
    region = {"x-amz-bucket-region": "eu-west-1"}
    s3.fail("status", LIST, 99, (301, "PermanentRedirect", region))
    assert failure(bucket()).code is ErrorCode.INVALID_CONFIG
    assert s3.asked(LIST) >= 1


@pytest.mark.parametrize(
    ("region", "host"), [("eu-central-1", "models.s3.eu-central-1.amazonaws.com"), ("", "models.s3.amazonaws.com")]
)
def test_m4_where_no_endpoint_is_named_it_is_amazons_in_the_region(
    region: str, host: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("AWS_REGION", region)
    store = bucket("wan")
    address = store.address_of("vae/config.json", 60)
    assert address.startswith(f"https://{host}/wan/vae/config.json?X-Amz-Algorithm=")
    assert "X-Amz-Expires=60&" in address
    store.close()


@pytest.mark.parametrize("address", ["http://example.com", "ftp://127.0.0.1", "https://me:secret@example.com", "x"])
def test_m14_an_endpoint_must_be_https_or_this_machine(address: str, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    with pytest.raises(ModelError) as caught:
        bucket()
    assert caught.value.code is ErrorCode.UNTRUSTED_HOST
    assert "secret" not in str(caught.value)


def test_m14_so_must_one_of_a_file_of_boto3(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://example.com\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert failure(bucket()).code is ErrorCode.UNTRUSTED_HOST


def test_m7_a_server_that_is_not_there(s3: S3) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = failure(bucket(endpoint=f"http://127.0.0.1:{free.getsockname()[1]}"))
    assert error.code is ErrorCode.NETWORK and "nobody answers" in error.reason


def test_m7_a_server_that_no_name_server_knows(s3: S3) -> None:
    error = failure(bucket(endpoint="https://there-is-no-such-host.invalid"))
    assert error.code is ErrorCode.NETWORK


def test_m7_a_server_that_speaks_no_tls(s3: S3) -> None:
    assert failure(bucket(endpoint=s3.address.replace("http:", "https:"))).code is ErrorCode.TLS_FAIL


SETTINGS = {
    "half of a key": ({"AWS_SECRET_ACCESS_KEY": ""}, ErrorCode.AUTH_FAIL),
    "no such profile": ({"AWS_PROFILE": "nobody"}, ErrorCode.AUTH_FAIL),
    "a region that is none": ({"AWS_REGION": "../here"}, ErrorCode.INVALID_CONFIG),
}


@pytest.mark.parametrize(("names", "code"), SETTINGS.values(), ids=SETTINGS)
def test_m7_settings_of_boto3_that_it_cannot_use(
    names: dict[str, str], code: ErrorCode, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in names.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name)
    assert failure(bucket()).code is code
    assert s3.requests == []


def test_m4_without_boto3_it_is_said_how_to_get_it(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "wan_fixes.models.sources.s3_boto", raising=False)
    error = failure(bucket())
    assert error.code is ErrorCode.INVALID_CONFIG
    assert error.fix == 'pip install "wan-fixes[s3]"' and "boto3" in error.reason


def test_m4_the_store_can_be_imported_without_boto3() -> None:
    program = "import sys, wan_fixes.models.sources.links; print({'boto3', 'botocore', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_m4_a_closed_store_can_be_asked_again(s3: S3) -> None:
    store = bucket()
    first = store.listing()
    store.close()
    assert store.listing() == first
    piece = store.open(RemoteFile("vae/config.json", 2), first.revision, 0, 2)
    assert b"".join(piece.chunks()) == b"{}"
    piece.close()
    store.close()


def test_m4_what_a_bucket_pinned_the_hub_may_bring(s3: S3, hub: Hub, tmp_path: Path) -> None:
    folder = ensurer(tmp_path, from_s3).ensure("tiny")
    (folder / LARGE).unlink()
    s3.fail("status", "", 999, (500, "InternalError", {}))
    assert content_of(ensurer(tmp_path, from_s3, from_hub(hub)).ensure("tiny")) == WHOLE


def test_m4_who_names_another_folder_is_told_before_its_objects_are_asked_for(s3: S3) -> None:
    s3.objects.put("not/a/model", {f"{number}.json": b"1" for number in range(20)})
    error = failure(bucket("not/a/model"))
    assert error.code is ErrorCode.NOT_FOUND and "model_index.json" in error.reason
    assert s3.asked("HEAD") == 0
