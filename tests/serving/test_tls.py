"""gRPC over TLS, with certificates of an authority that exists for the test only."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import trustme

from serving.config import ServeConfig
from serving.embedded.server import EmbeddedServer
from serving.errors import ConfigFileError, ListenError
from serving.protos import get_model_status_pb2

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
