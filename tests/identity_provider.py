"""A real OAuth 2 authorization server (Authlib's, RFC 6749 and RFC 9068) behind plain HTTP on loopback, with discovery and key rotation."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import httpx2
from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request, grants
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from joserfc.jwk import KeySet, RSAKey

AUDIENCE = "tenon"
Answered = tuple[int, Any, list[tuple[str, str]]]


@dataclass(frozen=True)
class Client(ClientMixin):
    """A registered confidential client."""

    client_id: str
    secret: str

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str) -> str:
        return ""

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


class Provider(AuthorizationServer):
    """Issues tokens to its clients by client credentials; `keys[0]` signs, all are shown."""

    def __init__(self, *clients: Client) -> None:
        super().__init__()
        self._clients = {client.client_id: client for client in clients}
        self.keys = [RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})]
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.issuer = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.register_grant(grants.ClientCredentialsGrant)
        self.register_token_generator("default", _Tokens(self))
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def rotate(self, kid: str, *, keep_old: bool) -> None:
        """Sign with a new key."""
        self.keys = [RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"}), *(self.keys if keep_old else [])]

    def token(self, client: Client) -> str:
        """What the client gets for its secret, over HTTP."""
        response = httpx2.post(
            f"{self.issuer}/token", data={"grant_type": "client_credentials"}, auth=(client.client_id, client.secret), timeout=10
        )
        assert response.is_success, response.text
        return str(response.json()["access_token"])

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    # What Authlib asks of whoever wires it to a web framework.

    def query_client(self, client_id: str) -> Client | None:
        return self._clients.get(client_id)

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        """They are not stored: each is its own proof."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Answered:
        return status, body, headers

    def _documents(self) -> dict[str, Any]:
        return {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys", "token_endpoint": f"{self.issuer}/token",
            },
            "/keys": {"keys": [key.as_dict(private=False) for key in self.keys]},
        }  # fmt: skip

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = provider._documents().get(self.path)
                self._answer(200 if document else 404, document or {}, [])

            def do_POST(self) -> None:
                form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
                request = OAuth2Request("POST", f"https://provider.example{self.path}", headers=self.headers)
                request.payload = BasicOAuth2Payload(form)
                self._answer(*provider.create_token_response(request))

            def _answer(self, status: int, body: Any, headers: list[tuple[str, str]]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                for name, value in [*headers, ("content-length", str(len(content)))]:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        return Handler


class _Tokens(JWTBearerTokenGenerator):
    def __init__(self, provider: Provider) -> None:
        super().__init__(issuer=None, alg="RS256", expires_generator=lambda client, grant: 300)
        self._provider = provider

    def access_token_generator(self, *args: Any, **kwargs: Any) -> str:
        self.issuer = self._provider.issuer
        return str(super().access_token_generator(*args, **kwargs))

    def get_jwks(self) -> KeySet:
        return KeySet(self._provider.keys[:1])

    def get_audiences(self, client: Client, user: Any, scope: Any) -> list[str]:
        return [AUDIENCE]
