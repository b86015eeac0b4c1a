"""OAuth 2 client credentials: a service gets a token from its own provider, and the gateway and the API know it by it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from tests.conftest import Stack, answer
from tests.identity_provider import AUDIENCE, Client, Provider

CLIENT = Client("nightly-report", "s3cret of the provider's own")
STRANGER = Client("stranger", "also known to the provider")
CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider(CLIENT, STRANGER)
    yield provider
    provider.close()


class Federation:
    """The installation as this test uses it."""

    def __init__(self, stack: Stack, operator: httpx2.Client) -> None:
        self.stack = stack
        self.operator = operator

    def post(self, path: str, body: Any = None) -> Any:
        return answer(self.operator.post(path, json=body or {}, headers={"Idempotency-Key": str(uuid.uuid4())}))

    def call(self, token: str) -> tuple[int, str]:
        with self.stack.client(token, f"http://{self.stack.settings.gateway_listen}") as caller:
            response = caller.post("/v1/chat/completions", json=CHAT)
        return response.status_code, "" if response.is_success else response.json()["error"]["code"]

    def until(self, what: str, holds: Callable[[], bool], seconds: float = 15) -> float:
        """Seconds until it holds."""
        begun = time.monotonic()
        while not holds():
            assert time.monotonic() - begun < seconds, f"waited in vain: {what}"
            time.sleep(0.02)
        return time.monotonic() - begun

    def keys_of(self, issuer: str) -> int:
        issuers = answer(self.operator.get("/v1/issuers"))["issuers"]
        return next(row["keys"] for row in issuers if row["id"] == issuer)

    def renewed(self, issuer: str, keys: int) -> None:
        """Ask for the provider's keys, and wait for them: a provider is asked once in ten seconds at most."""
        self.post(f"/v1/issuers/{issuer}/refresh")
        self.until("the keys are fetched", lambda: self.keys_of(issuer) == keys)


def test_a_provider_is_trusted_its_keys_rotate_and_it_is_trusted_no_longer(stack: Stack, provider: Provider) -> None:
    with stack.client(stack.keys["operator"]) as operator:
        federation, name = Federation(stack, operator), f"idp-{uuid.uuid4().hex[:8]}"
        trusted = {"name": name, "issuer": provider.issuer, "audiences": [AUDIENCE], "algorithm": "RS256", "lifetime_max_ms": 3_600_000}
        issuer = federation.post("/v1/issuers", trusted)["id"]
        service = federation.post("/v1/principals", {"name": f"reports {name}", "kind": "service", "roles": ["editor"]})["id"]
        credential = {
            "principal": service,
            "name": "nightly",
            "issuer": issuer,
            "subject": CLIENT.client_id,
            "allowed_operations": ["chat"],
        }
        key_id = federation.post("/v1/federated-credentials", credential)["key_id"]
        federation.until("the keys are fetched", lambda: federation.keys_of(issuer) == 1)

        token = provider.token(CLIENT)
        federation.until("the gateway knows them", lambda: federation.call(token)[0] == 200)
        with stack.client(token) as caller:
            assert answer(caller.get("/v1/me"))["principal"] == service
        with stack.client(token, f"http://{stack.settings.gateway_listen}") as caller:
            refused = caller.post("/v1/embeddings", json={"model": "smollm2", "input": "x"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "operation_not_allowed")
        assert federation.call(provider.token(STRANGER)) == (401, "token_subject_unknown")

        provider.rotate("second", keep_old=True)
        federation.renewed(issuer, 2)
        fresh = provider.token(CLIENT)
        federation.until("the gateway believes the new key", lambda: federation.call(fresh)[0] == 200)
        assert federation.call(token)[0] == 200, "the old key is still shown"
        provider.rotate("third", keep_old=False)
        federation.renewed(issuer, 1)
        federation.until("the gateway forgets the old keys", lambda: federation.call(fresh) == (401, "invalid_token"))
        newest = provider.token(CLIENT)
        assert federation.call(newest)[0] == 200

        federation.post(f"/v1/keys/{key_id}/revoke")
        assert federation.until("the credential is revoked", lambda: federation.call(newest) == (401, "key_revoked")) < 5
        again = federation.post("/v1/federated-credentials", credential)["key_id"]
        assert again != key_id
        federation.until("the new credential is known", lambda: federation.call(newest)[0] == 200)
        federation.post(f"/v1/issuers/{issuer}/disable")
        federation.until("the issuer is trusted no longer", lambda: federation.call(newest) == (401, "invalid_token"))
        with stack.client(newest) as caller:
            federation.until("by the API neither", lambda: caller.get("/v1/me").status_code == 401)
