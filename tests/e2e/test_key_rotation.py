"""Keys are rotated with overlap while their callers call: no call fails, and each key's calls are its own in the usage records."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2
import psycopg

from tests.conftest import Stack, answer

ROTATIONS = int(os.environ.get("TENON_ROTATIONS", "6"))
CALLERS = 3
OVERLAP_SECONDS = 6  # longer than a call takes on a busy machine: a call does not outlive its key
CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


@dataclass
class Callers:
    """Some clients of one service; each takes a new key up at a time of its own, but within the overlap."""

    base: str
    key: tuple[str, str]  # id, text
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        held, noticed = self.key, time.monotonic()
        with httpx2.Client(base_url=self.base, timeout=60) as client:
            while not self.stopping.is_set():
                if self.key == held:
                    noticed = time.monotonic()
                elif time.monotonic() - noticed > number * OVERLAP_SECONDS / 4:
                    held = self.key
                response = client.post("/v1/chat/completions", json=CHAT, headers={"Authorization": f"Bearer {held[1]}"})
                if response.is_success:
                    self.answered[held[0]] += 1
                else:
                    self.failed.append(f"{response.status_code} {response.text[:200]}")


def test_no_call_fails_while_keys_are_rotated(stack: Stack) -> None:
    def post(path: str, body: Any) -> Any:
        return answer(operator.post(path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())}))

    with stack.client(stack.keys["operator"]) as operator:
        service = post("/v1/principals", {"name": f"rotated {uuid.uuid4().hex[:8]}", "kind": "service", "roles": ["editor"]})["id"]
        first = post("/v1/keys", {"principal": service, "name": "rotated"})
        callers = Callers(f"http://{stack.settings.gateway_listen}", (first["key_id"], first["key"]))
        threads = [threading.Thread(target=callers.run, args=(number,)) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        ids = [first["key_id"]]
        for _ in range(ROTATIONS):
            time.sleep(OVERLAP_SECONDS / 2)
            new = post(f"/v1/keys/{ids[-1]}/rotate", {"overlap_seconds": OVERLAP_SECONDS})
            ids.append(new["key_id"])
            callers.key = (new["key_id"], new["key"])
        time.sleep(OVERLAP_SECONDS)
        callers.stopping.set()
        for thread in threads:
            thread.join()
    print(f"{ROTATIONS} rotations, {callers.answered.total()} calls, {len(callers.failed)} failed")
    assert not callers.failed
    assert set(callers.answered) == set(ids), "every key was used"
    deadline = time.monotonic() + 30
    while (stored := _stored(stack, ids)) != callers.answered and time.monotonic() < deadline:
        time.sleep(0.2)
    assert stored == callers.answered


def _stored(stack: Stack, ids: list[str]) -> Counter[str]:
    database = stack.settings.database
    password = (stack.directory / "state" / "postgres" / "superuser.password").read_text()
    with psycopg.connect(f"host=127.0.0.1 port={database.port} dbname={database.name} user=postgres password='{password}'") as connection:
        rows = connection.execute("select key_id, count(*) from tenon.usage_record where key_id = any(%s) group by 1", [ids])
        return Counter(dict(rows.fetchall()))
