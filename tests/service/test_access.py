"""Who is answered: by which name it must be called, with which token, over which connection (M14, M18)."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan_fixes.errors import UserError
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.service.host_header import LOOPBACK_NAMES, host_name, normal_host
from wan_fixes.service.options import ServeOptions
from wan_fixes.service.serving import listen

from .server import running

TOKEN = "a-token-of-sixteen-letters-or-more"
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?){0,3}", fullmatch=True)
PORTS = st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format))


def status_of(address: str, head: bytes) -> int:
    """What raw bytes are answered with."""
    with socket.create_connection(("127.0.0.1", urlsplit(address).port or 0), timeout=10) as connection:
        connection.sendall(head + b"Connection: close\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        answer.read()
        return answer.status


@pytest.fixture
def address(models: ModelEnsurer) -> Iterator[str]:
    with running(models) as found:
        yield found


@given(NAMES, PORTS)
def test_m18_a_name_is_read_without_its_port_whatever_its_case(name: str, port: str) -> None:
    assert host_name(f"{name.upper()}{port}".encode()) == normal_host(name)


@given(st.ip_addresses(), PORTS)
def test_m18_an_address_is_read_in_whatever_form_it_is_written(address: object, port: str) -> None:
    assert isinstance(address, (ipaddress.IPv4Address, ipaddress.IPv6Address))
    written = address.exploded if address.version == 4 else f"[{address.exploded.upper()}]"
    assert host_name(f"{written}{port}".encode()) == str(address)


@given(st.sampled_from(["localhost", "127.0.0.1", "[::1]"]), st.binary(min_size=1, max_size=12), st.booleans())
def test_m18_what_is_more_than_our_name_is_another(ours: str, more: bytes, is_before: bool) -> None:
    """Whatever is written beside one of our names makes it another one, or none; a port alone does not."""
    header = more + ours.encode() if is_before else ours.encode() + more
    is_port = not is_before and more[:1] == b":" and more[1:].isdigit() and 0 < int(more[1:]) < 65536
    assert (host_name(header) in LOOPBACK_NAMES) is is_port


@given(st.binary(max_size=60))
def test_m18_no_header_is_too_odd_to_be_read(header: bytes) -> None:
    name = host_name(header)
    assert name is None or name == normal_host(name)


RAW_HOSTS = {
    b"Host: 127.0.0.1\r\n": 200,
    b"Host: LocalHost:1\r\n": 200,
    b"Host: [::1]:8787\r\n": 200,
    b"Host: [0:0:0:0:0:0:0:1]\r\n": 200,
    b"Host: evil.example\r\n": 421,
    b"Host: evil.example:8787\r\n": 421,
    b"Host: localhost.evil.example\r\n": 421,
    b"Host: 127.0.0.1.nip.io\r\n": 421,
    b"Host: 127.1\r\n": 421,
    b"Host: 2130706433\r\n": 421,
    b"Host: 10.0.0.1\r\n": 421,
    b"Host: [::]\r\n": 421,
    b"Host: ::1\r\n": 400,
    b"Host: [::1\r\n": 400,
    b"Host: [localhost]\r\n": 400,
    b"Host: localhost:99999\r\n": 400,
    b"Host: localhost:\r\n": 400,
    b"Host: me@localhost\r\n": 400,
    b"Host: localhost/x\r\n": 400,
    b"Host: \r\n": 400,
    b"Host: localhost\r\nHost: evil.example\r\n": 400,
    b"Host: evil.example\r\nX-Forwarded-Host: localhost\r\nForwarded: host=localhost\r\n": 421,
    b"": 400,
}


def test_m18_only_names_that_are_ours_are_answered(address: str) -> None:
    found = {head: status_of(address, b"GET /health/live HTTP/1.1\r\n" + head) for head in RAW_HOSTS}
    assert found == RAW_HOSTS
    assert status_of(address, b"GET /health/live HTTP/1.0\r\n") == 400
    assert status_of(address, b"GET http://evil.example/health/live HTTP/1.1\r\nHost: localhost\r\n") == 404


def test_m18_a_name_that_was_allowed_is_answered(models: ModelEnsurer) -> None:
    with running(models, ServeOptions(port=0, allowed_hosts=("Train.Example",))) as address:
        for host, status in (("train.example:9", 200), ("localhost", 200), ("other.example", 421)):
            assert httpx.get(f"{address}/health/live", headers={"Host": host}).status_code == status


def test_m14_without_the_token_nothing_is_told(models: ModelEnsurer) -> None:
    with (
        running(models, ServeOptions(port=0, token=TOKEN)) as address,
        httpx.Client(base_url=address) as client,
    ):
        for path in ("/health/live", "/health/models", "/metrics", "/stats", "/openapi.json", "/nothing"):
            for sent in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer é"):
                answer = client.get(path, headers=[(b"Authorization", sent.encode())] if sent else [])
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert TOKEN not in answer.text
        assert client.get("/health/live", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200
        twice = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")]
        assert client.get("/health/live", headers=twice).status_code == 401


def test_m18_every_answer_is_guarded(models: ModelEnsurer) -> None:
    with (
        running(models, ServeOptions(port=0)) as address,
        httpx.Client(base_url=address, headers={"Origin": "http://evil.example"}) as client,
    ):
        answers = [
            client.get("/health/live"),
            client.get("/nothing"),
            client.post("/health/live"),
            client.options("/health/models", headers={"Access-Control-Request-Method": "GET"}),
            client.get("/health/live/"),
            client.get("/health/live", headers={"Host": "evil.example"}),
        ]
    assert [answer.status_code for answer in answers] == [200, 404, 405, 405, 404, 421]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["content-type"] == "application/json"
        assert not [name for name in answer.headers if name.startswith(("access-control", "server", "location"))]
    assert answers[2].headers["allow"] == "GET, HEAD"


def test_m18_head_is_get_without_the_body(address: str) -> None:
    with httpx.Client(base_url=address) as client:
        for path in ("/health/live", "/nothing"):
            get, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (get.status_code, b"")
            assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


def test_m18_a_fault_of_ours_shows_no_traceback(models: ModelEnsurer, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> dict[str, object]:
        raise ZeroDivisionError("of the inside")

    with running(models, last_run=broken) as address:
        answer = httpx.get(f"{address}/stats")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "INTERNAL")
    assert "inside" not in answer.text and answer.headers["cache-control"] == "no-store"
    assert "of the inside" in caplog.text


def certificate(folder: Path, password: bytes = b"") -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "wan serve")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    )
    return folder / "cert.pem", folder / "key.pem"


def test_m14_over_tls_and_with_a_token_every_address_may_be_served(models: ModelEnsurer, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    options = ServeOptions("0.0.0.0", 0, ("127.0.0.1",), TOKEN, cert, key)
    trusted = ssl.create_default_context(cafile=str(cert))
    with running(models, options) as address:
        assert address.startswith("https://127.0.0.1:")
        with httpx.Client(base_url=address, verify=trusted) as client:
            assert client.get("/health/live").status_code == 401
            assert client.get("/health/live", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health/live")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{address.replace('https', 'http')}/health/live")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
def test_m14_an_address_that_others_reach_needs_a_token_and_tls(host: str, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    for token, files in (("", (None, None)), (TOKEN, (None, None)), ("", (cert, key))):
        with pytest.raises(UserError, match="others could read"):
            ServeOptions(host, 0, ("train.example",), token, *files)
    ServeOptions(host, 0, ("train.example",), TOKEN, cert, key)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "example.com"}, "is no address"),
        ({"host": ""}, "is no address"),
        ({"allowed_hosts": ("http://x",)}, "cannot be in a Host header"),
        ({"allowed_hosts": ("x:80",)}, "cannot be in a Host header"),
        ({"allowed_hosts": ("ünicode",)}, "cannot be in a Host header"),
        ({"token": "short"}, "16 characters"),
        ({"token": "a token with spaces in it"}, "16 characters"),
        ({"token": "a-token-with-ümlauts-in-it"}, "16 characters"),
        ({"tls_cert": Path("cert.pem")}, "is missing"),
        ({"tls_cert": Path("none.pem"), "tls_key": Path("none.pem")}, "No such file"),
    ],
)
def test_m18_what_cannot_be_served_is_said_before(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        ServeOptions(**settings)  # type: ignore[arg-type]
    assert caught.value.fix
    assert "token" not in settings or str(settings["token"]) not in str(caught.value)


def test_m18_every_address_needs_a_name(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with pytest.raises(UserError, match="--allow-host"):
        ServeOptions("0.0.0.0", 0, (), TOKEN, cert, key)


def test_m18_a_key_with_a_password_and_one_of_another_certificate_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    cert, key = certificate(tmp_path / "one", b"secret")
    with pytest.raises(UserError, match="no pair"):
        ServeOptions(tls_cert=cert, tls_key=key)
    _, other = certificate(tmp_path / "two")
    with pytest.raises(UserError, match="no pair"):
        ServeOptions(tls_cert=cert, tls_key=other)
    with pytest.raises(UserError, match="no pair"):
        ServeOptions(tls_cert=Path(__file__), tls_key=other)


def test_m14_the_token_is_not_shown_with_the_options() -> None:
    assert TOKEN not in repr(ServeOptions(token=TOKEN))


def test_m18_a_port_in_use_is_said() -> None:
    with (
        listen(ServeOptions(port=0)) as first,
        pytest.raises(UserError, match=r"cannot listen at http://127\.0\.0\.1:"),
    ):
        listen(ServeOptions(port=first.getsockname()[1]))


def test_m18_ipv6(models: ModelEnsurer) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with running(models, ServeOptions("[::1]", 0)) as address:
        assert address.startswith("http://[::1]:")
        assert httpx.get(f"{address}/health/live").json() == {"status": "ok"}
