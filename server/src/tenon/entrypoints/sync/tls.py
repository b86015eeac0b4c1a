"""TLS of the gateways' listener: certificate and key from files, read again when they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tenon.kit.errors import ErrorCode, Unavailable
from tenon.kit.settings import Settings

log = structlog.get_logger(__name__)


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """What the port is opened with; None = no TLS is configured. Raises Unavailable `sync_tls_unusable`."""
    named = (settings.sync_tls_cert_file, settings.sync_tls_key_file)
    if named == (None, None) and settings.sync_tls_client_ca_file is None:
        return None
    certificate, key = named
    if certificate is None or key is None:
        raise Unavailable(ErrorCode.SYNC_TLS_UNUSABLE, "sync_tls_cert_file and sync_tls_key_file belong together.")
    authorities = settings.sync_tls_client_ca_file
    fetch = _fetcher([path for path in (certificate, key, authorities) if path], lambda: _read(certificate, key, authorities))
    try:
        first = _read(certificate, key, authorities)
    except (OSError, ValueError) as error:
        raise Unavailable(ErrorCode.SYNC_TLS_UNUSABLE, f"The certificate of the gateways' listener cannot be used: {error}") from None
    # gRPC's own documentation: None = no change. Its annotations forget that.
    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=authorities is not None)  # type: ignore[arg-type]


def _read(certificate: Path, key: Path, authorities: Path | None) -> grpc.ServerCertificateConfiguration:
    """Raises ValueError when certificate and key do not belong together: gRPC would find out at the first handshake."""
    chain, secret = certificate.read_bytes(), key.read_bytes()
    roots = authorities.read_bytes() if authorities else None
    ours = load_pem_private_key(secret, None).public_key()
    theirs = x509.load_pem_x509_certificates(chain)[0].public_key()
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if ours.public_bytes(*spki) != theirs.public_bytes(*spki):
        raise ValueError("the key is another certificate's")
    if roots is not None:
        x509.load_pem_x509_certificates(roots)
    return grpc.ssl_server_certificate_configuration([(secret, chain)], roots)


def _fetcher(
    paths: list[Path], read: Callable[[], grpc.ServerCertificateConfiguration]
) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """Called by gRPC before each handshake; None keeps what is in force, and so does a pair that cannot be used."""

    def stamps() -> list[tuple[int, int] | None]:
        stamps_of_files: list[tuple[int, int] | None] = []
        for path in paths:
            try:
                status = path.stat()
                stamps_of_files.append((status.st_mtime_ns, status.st_ino))
            except OSError:
                stamps_of_files.append(None)
        return stamps_of_files

    seen = stamps()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal seen
        now = stamps()
        if now == seen:
            return None
        seen = now
        try:
            return read()
        except (OSError, ValueError) as error:
            log.error("sync_tls.unusable", error=str(error))
            return None

    return fetch
