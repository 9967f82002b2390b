"""gRPC over TLS, with certificates of an authority that exists for the test only."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme

from serving.client import SegmentationClient
from serving.config import ServeConfig
from serving.embedded.server import EmbeddedServer
from serving.endpoint import Endpoint, Tls
from serving.errors import ConfigFileError, InputError, ListenError, ServerUnavailableError
from serving.protos import get_model_status_pb2

IMAGE = np.zeros((4, 5), np.uint8)
METHOD = "/tensorflow.serving.ModelService/GetModelStatus"

Start = Callable[..., EmbeddedServer]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def start(model_base_path: Path, tmp_path: Path) -> Start:
    """Gives a server with a certificate, or with other fields of ``SSLConfig``."""

    def make(issued: trustme.LeafCert | None = None, **fields: str | bool) -> EmbeddedServer:
        if issued:
            fields["server_key"] = issued.private_key_pem.bytes().decode()
            fields["server_cert"] = issued.cert_chain_pems[0].bytes().decode()
        path = tmp_path / "ssl.config"
        path.write_text("\n".join(f"{name}: {json.dumps(each)}" for name, each in fields.items()))
        return EmbeddedServer(
            ServeConfig(model_base_path=model_base_path, port=0, ssl_config_file=path)
        )

    return make


def pem(authority: trustme.CA) -> bytes:
    return authority.cert_pem.bytes()


def ask(server: EmbeddedServer, **credentials: bytes) -> int:
    """Asks for the status over TLS; gives the version that is served."""
    target = f"localhost:{server.port}"
    with grpc.secure_channel(target, grpc.ssl_channel_credentials(**credentials)) as channel:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "lung_unet"
        response = channel.unary_unary(METHOD)(request.SerializeToString(), timeout=10)
    answer = get_model_status_pb2.GetModelStatusResponse.FromString(response)
    return int(answer.model_version_status[0].version)


def test_server_proves_who_it_is(start: Start, authority: trustme.CA) -> None:
    with start(authority.issue_cert("localhost")) as server:
        assert ask(server, root_certificates=pem(authority)) == 3
        with pytest.raises(grpc.RpcError, match="CERTIFICATE_VERIFY_FAILED"):
            ask(server, root_certificates=pem(trustme.CA()))


def test_expired_certificate_is_refused(start: Start, authority: trustme.CA) -> None:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    expired = authority.issue_cert("localhost", not_after=yesterday)
    with start(expired) as server, pytest.raises(grpc.RpcError, match="certificate has expired"):
        ask(server, root_certificates=pem(authority))


def test_client_proves_who_it_is_where_that_is_asked_for(
    start: Start, authority: trustme.CA
) -> None:
    issued, client = authority.issue_cert("localhost"), authority.issue_cert("client")
    stranger = trustme.CA().issue_cert("client")
    with start(issued, custom_ca=pem(authority).decode(), client_verify=True) as server:
        known = {
            "private_key": client.private_key_pem.bytes(),
            "certificate_chain": client.cert_chain_pems[0].bytes(),
        }
        assert ask(server, root_certificates=pem(authority), **known) == 3
        with pytest.raises(grpc.RpcError):
            ask(server, root_certificates=pem(authority))
        unknown = {
            "private_key": stranger.private_key_pem.bytes(),
            "certificate_chain": stranger.cert_chain_pems[0].bytes(),
        }
        with pytest.raises(grpc.RpcError):
            ask(server, root_certificates=pem(authority), **unknown)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "ssl.config has server_key ''; expected its PEM text"),
        ({"server_key": "/etc/key.pem"}, "has server_key '/etc/key.pem'; expected its PEM text"),
        ({"server_kee": "x"}, 'ssl.config is no SSLConfig as text.*no field named "server_kee"'),
    ],
)
def test_bad_tls_configuration_is_told(start: Start, fields: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigFileError, match=message):
        start(**fields)


def test_clients_cannot_be_verified_without_an_authority(
    start: Start, authority: trustme.CA
) -> None:
    with pytest.raises(ConfigFileError, match="has custom_ca ''; expected its PEM text"):
        start(authority.issue_cert("localhost"), client_verify=True)


def test_damaged_key_is_told(start: Start, authority: trustme.CA) -> None:
    certificate = authority.issue_cert("localhost").cert_chain_pems[0].bytes().decode()
    with pytest.raises(ListenError, match="ssl.config right"):
        start(server_key="-----BEGIN PRIVATE KEY-----\nx", server_cert=certificate)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def to_file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return to_file


def segment(target: str, tls: Tls | None) -> tuple[int, ...]:
    with SegmentationClient(Endpoint(target, tls=tls, timeout_s=10)) as client:
        return client.predict(IMAGE).shape


def test_client_calls_with_tls(
    start: Start, authority: trustme.CA, write: Callable[[str, bytes], Path]
) -> None:
    ca = write("ca.pem", pem(authority))
    with start(authority.issue_cert("lungs.example")) as server:
        target = server.target
        assert segment(target, Tls(ca=ca, server_name="lungs.example")) == IMAGE.shape
        other_name = "of another name; give that with --tls-server-name NAME"
        with pytest.raises(ServerUnavailableError, match=other_name):
            segment(target, Tls(ca=ca))
        other_ca = write("other.pem", pem(trustme.CA()))
        untrusted = "not signed by an authority that is trusted here; give the authority's with"
        for tls in (Tls(ca=other_ca), Tls()):
            with pytest.raises(ServerUnavailableError, match=untrusted):
                segment(target, tls)
        with pytest.raises(ServerUnavailableError, match=r"hung up .* does it expect TLS \(--tls"):
            segment(target, None)
        no_pem = Tls(ca=write("none.pem", b"nothing"))
        with pytest.raises(ServerUnavailableError, match="a file of --tls-ca, .* holds no PEM"):
            segment(target, no_pem)


def test_client_says_who_it_is(
    start: Start, authority: trustme.CA, write: Callable[[str, bytes], Path]
) -> None:
    issued, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client")
    ca = write("ca.pem", pem(authority))
    certificate = write("client.pem", client.cert_chain_pems[0].bytes())
    key = write("client.key", client.private_key_pem.bytes())
    with start(issued, custom_ca=pem(authority).decode(), client_verify=True) as server:
        target = server.target
        assert segment(target, Tls(ca=ca, certificate=certificate, key=key)) == IMAGE.shape
        asks = "hung up .* does it ask who calls"
        with pytest.raises(ServerUnavailableError, match=asks):
            segment(target, Tls(ca=ca))


def test_expired_certificate_is_told_to_the_client(
    start: Start, authority: trustme.CA, write: Callable[[str, bytes], Path]
) -> None:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    expired = authority.issue_cert("127.0.0.1", not_after=yesterday)
    ca = write("ca.pem", pem(authority))
    with (
        start(expired) as server,
        pytest.raises(ServerUnavailableError, match="certificate has expired; renew it"),
    ):
        segment(server.target, Tls(ca=ca))


def test_tls_with_a_server_that_has_none_is_told(
    server: EmbeddedServer, authority: trustme.CA, write: Callable[[str, bytes], Path]
) -> None:
    ca = write("ca.pem", pem(authority))
    with pytest.raises(ServerUnavailableError, match="speaks without TLS; leave --tls away"):
        segment(server.target, Tls(ca=ca))


def test_missing_file_is_told(tmp_path: Path) -> None:
    tls = Tls(ca=tmp_path / "ca.pem")
    with pytest.raises(InputError, match=r"--tls-ca .*ca.pem cannot be read: No such file"):
        SegmentationClient(Endpoint("localhost:1", tls=tls))
