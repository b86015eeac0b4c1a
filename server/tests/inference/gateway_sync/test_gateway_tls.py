"""TLS of the gateways' listener: certificates of both sides, and a pair that changes while it serves."""

from __future__ import annotations

import datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tenon.entrypoints.sync.server import serving
from tenon.inference.gateway_sync.generated import gateway_pb2 as wire
from tenon.inference.gateway_sync.generated.gateway_pb2_grpc import GatewayControlStub
from tenon.kit.errors import Unavailable

START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """Signs certificates for tests."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self._certificate(self._name, self._key, authority=True)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """Certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._certificate(subject, key, authority=False), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(START).not_valid_after(END)
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def put(directory: Path, pair: tuple[bytes, bytes]) -> None:
    (directory / "cert.pem").write_bytes(pair[0])
    (directory / "key.pem").write_bytes(pair[1])


async def answers(port: int, credentials: grpc.ChannelCredentials) -> bool:
    """Whether a call gets through to the service."""
    metadata = (("authorization", "Bearer nobody's"), ("tenon-gateway-id", "gw-1"))  # this refusal shows that the call got through
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        try:
            await GatewayControlStub(channel).ResolveKey(wire.ResolveKeyRequest(key_id="0000000000"), metadata=metadata, timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code() == grpc.StatusCode.UNAUTHENTICATED
    return True


async def test_both_sides_show_certificates_and_a_new_pair_takes_over(settings, tmp_path) -> None:
    first, second, gateways = Authority("first"), Authority("second"), Authority("gateways")
    put(tmp_path, first.issue("control"))
    (tmp_path / "clients.pem").write_bytes(gateways.pem)
    own, stranger = gateways.issue("gw-1"), Authority("strangers").issue("gw-1")
    files = {"sync_tls_cert_file": "cert.pem", "sync_tls_key_file": "key.pem", "sync_tls_client_ca_file": "clients.pem"}
    tls = {name: tmp_path / file for name, file in files.items()}
    production = {"sync_listen": "localhost:0", "environment": "production"}
    async with serving(settings.model_copy(update=production | tls)) as port:
        assert await answers(port, grpc.ssl_channel_credentials(first.pem, own[1], own[0]))
        assert not await answers(port, grpc.ssl_channel_credentials(first.pem)), "a certificate must be shown"
        assert not await answers(port, grpc.ssl_channel_credentials(first.pem, stranger[1], stranger[0]))
        pair = second.issue("control")
        (tmp_path / "cert.pem").write_bytes(pair[0])
        assert await answers(port, grpc.ssl_channel_credentials(first.pem, own[1], own[0])), "half a change keeps the old pair"
        put(tmp_path, pair)
        assert await answers(port, grpc.ssl_channel_credentials(second.pem, own[1], own[0]))


async def test_what_cannot_be_used_is_said_at_start(settings, tmp_path) -> None:
    put(tmp_path, Authority("first").issue("control"))
    (tmp_path / "key.pem").write_bytes(Authority("other").issue("control")[1])
    both = {"sync_tls_cert_file": tmp_path / "cert.pem", "sync_tls_key_file": tmp_path / "key.pem"}
    for wrong in (both, {"sync_tls_cert_file": tmp_path / "cert.pem"}):
        with pytest.raises(Unavailable, match=r"belong|cannot be used"):
            async with serving(settings.model_copy(update={"sync_listen": "127.0.0.1:0"} | wrong)):
                pass
