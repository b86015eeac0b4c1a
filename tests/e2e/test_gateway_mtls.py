"""Gateway and control plane show each other certificates: a real gRPC server that asks for one, real gateways that have one, none, another's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from tests.canned_upstream import Canned, canned_upstream
from tests.certificates import Authority, Files
from tests.conftest import Stack, answer
from tests.gateway_process import Gateway
from tests.tcp_proxy import TcpProxy
from tools.testing.ports import free_port

MODEL = "mutual"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Canned]:
    with canned_upstream() as running:
        yield running


class ControlPlane:
    """A second gRPC server of the installation, this one with TLS, behind a proxy that can be cut."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.own, self.gateways = Authority("control"), Authority("gateways")
        self.files = Files(directory / "control").put(self.own.issue("control"), self.gateways)
        port = free_port()
        tls = {"cert": self.files.certificate, "key": self.files.key, "client_ca": self.files.authorities}
        changes = {"sync_listen": f"127.0.0.1:{port}"} | {f"sync_tls_{name}_file": path for name, path in tls.items()}
        config = directory / "tenon.json"
        config.touch(0o600)
        config.write_text(stack.settings.model_copy(update=changes).model_dump_json())
        self._log = (directory / "sync.log").open("ab")
        command = [sys.executable, "-m", "tenon.entrypoints.sync"]
        self._process = subprocess.Popen(command, env=os.environ | {"TENON_CONFIG": str(config)}, stdout=self._log, stderr=self._log)
        until(lambda: _listens(port), "the control plane listens")
        self.proxy = TcpProxy(port)

    def gateway(self, stack: Stack, directory: Path, *, identity: Files | None, trusted: Authority | None = None) -> Gateway:
        """A gateway that is to reach this control plane by its name."""
        ca = Files(directory / "trust").put((b"", b""), trusted or self.own).authorities
        environment = {"TENON_GATEWAY_CONTROL_URL": f"https://localhost:{self.proxy.port}", "TENON_GATEWAY_CONTROL_CA_FILE": str(ca)}
        if identity:
            environment |= {
                "TENON_GATEWAY_CONTROL_CERT_FILE": str(identity.certificate),
                "TENON_GATEWAY_CONTROL_KEY_FILE": str(identity.key),
            }
        return Gateway(stack, directory, **environment)

    def close(self) -> None:
        self.proxy.close()
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


@pytest.fixture
def control(stack: Stack, tmp_path: Path) -> Iterator[ControlPlane]:
    running = ControlPlane(stack, tmp_path)
    try:
        yield running
    finally:
        running.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def until(seen: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _offer(stack: Stack, upstream: Canned) -> None:
    with stack.client(stack.keys["operator"]) as operator:
        body = {"name": f"{MODEL}-{uuid.uuid4().hex[:8]}", "base_url": f"http://{upstream.address}/v1"}
        response = operator.post("/v1/inference/endpoints", json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
        routes = {"routes": [{"endpoint": answer(response)["id"]}]}
        answer(operator.put(f"/v1/inference/models/{MODEL}", json=routes, headers={"Idempotency-Key": str(uuid.uuid4())}))


def _call(stack: Stack, gateway: Gateway) -> str:
    """One call; its request id."""
    with gateway.client(stack.keys["editor"]) as client:
        body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
        until(lambda: MODEL in client.get("/v1/models").text, "the gateway lists the model")
        response = client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
        return str(response.headers["x-request-id"])


def _is_stored(stack: Stack, request_id: str) -> bool:
    with psycopg.connect(stack.superuser_conninfo) as connection:
        row = connection.execute("select count(*) from tenon.usage_record where request_id = %s", [request_id]).fetchone()
    return row == (1,)


def _readyz(gateway: Gateway) -> str:
    try:
        return httpx2.get(f"http://{gateway.admin}/readyz", timeout=2).text
    except httpx2.TransportError:
        return ""


def _cut(control: ControlPlane) -> None:
    """End the gateway's connection, and wait until it connects again."""
    before = control.proxy.accepted
    control.proxy.cut()
    until(lambda: control.proxy.accepted > before, "it connects again")


def test_a_gateway_with_its_certificate_syncs_serves_and_ships(
    stack: Stack, upstream: Canned, control: ControlPlane, tmp_path: Path
) -> None:
    _offer(stack, upstream)
    identity = Files(tmp_path / "identity").put(control.gateways.issue("gateway-1"), control.own)
    gateway = control.gateway(stack, tmp_path / "gateway", identity=identity).start()
    try:
        first = _call(stack, gateway)
        until(lambda: _is_stored(stack, first), "the record is stored")
        # Half a change: a new certificate beside the old key is no pair, and the pair before goes on.
        pair = control.gateways.issue("gateway-1")
        identity.certificate.write_bytes(pair[0])
        _cut(control)
        until(lambda: gateway.readiness() == "ready", "it is back with the old pair")
        assert str(identity.certificate) in gateway.log()
        identity.put(pair, control.own)
        # Everything is renewed, the authorities too; neither process starts again.
        old, (control.own, control.gateways) = identity, (Authority("control 2"), Authority("gateways 2"))
        (tmp_path / "gateway" / "trust" / "ca.pem").write_bytes(control.own.pem)
        stale = Files(tmp_path / "stale").put((old.certificate.read_bytes(), old.key.read_bytes()), control.own)
        identity.put(control.gateways.issue("gateway-1"), control.own)
        control.files.put(control.own.issue("control"), control.gateways)
        _cut(control)
        until(lambda: gateway.readiness() == "ready", "it is back with what is new")
        second = _call(stack, gateway)
        until(lambda: _is_stored(stack, second), "the record is stored")
    finally:
        gateway.close()
    refused = control.gateway(stack, tmp_path / "stale-gateway", identity=stale)
    _is_refused(refused, f"the server requested a certificate, got {stale.certificate}, and closed the connection")


@pytest.mark.parametrize(("shown", "why"), [("none", "got none"), ("foreign", "cert.pem")])
def test_a_gateway_without_the_right_certificate_is_refused_and_says_why(
    stack: Stack, control: ControlPlane, tmp_path: Path, shown: str, why: str
) -> None:
    foreign = Files(tmp_path / "identity").put(Authority("strangers").issue("gateway-1"), control.own)
    _is_refused(
        control.gateway(stack, tmp_path / "gateway", identity=foreign if shown == "foreign" else None),
        "the server requested a certificate",
        why,
    )


def test_a_control_plane_of_an_unknown_authority_receives_nothing(stack: Stack, control: ControlPlane, tmp_path: Path) -> None:
    identity = Files(tmp_path / "identity").put(control.gateways.issue("gateway-1"), control.own)
    gateway = control.gateway(stack, tmp_path / "gateway", identity=identity, trusted=Authority("another"))
    _is_refused(gateway, "UnknownIssuer")


def _is_refused(gateway: Gateway, *why: str) -> None:
    try:
        gateway.start_listening()
        until(lambda: all(part in _readyz(gateway) for part in why), f"it says {why}: {_readyz(gateway)} {gateway.log()}", 10)
        assert gateway.readiness() == "not"
        assert all(part in gateway.log() for part in why)
        assert gateway.metric("tenon_gateway_revision") == 0
    finally:
        gateway.close()
