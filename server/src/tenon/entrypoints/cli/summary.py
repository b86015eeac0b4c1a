"""What a person needs to know once everything runs: addresses, keys, and three things to try."""

from __future__ import annotations

import shlex

from rich.console import Console

from tenon.kit.settings import Settings


def print_summary(console: Console, settings: Settings, keys: dict[str, str], seconds: float) -> None:
    """Print it. The last line names Ctrl-C, which `up --detach` waits for."""
    api, gateway = f"http://{settings.api_listen}", f"http://{settings.gateway_listen}"
    console.print(f"\n[bold green]Tenon is up[/] ({seconds:.1f} s)\n", highlight=False)
    rows = [
        ("API", f"{api}  (reference {api}/docs, GraphiQL {api}/v1/graphiql, MCP {api}/mcp)"),
        ("Gateway", f"{gateway}/v1"),
        ("Metrics", f"{api}/metrics"),
        ("Audit key", str(settings.checkpoint_dir / "log.pub")),
    ]
    for name, value in rows:
        console.print(f"  {name:<10} {value}", highlight=False, soft_wrap=True)
    if keys:
        console.print("\n  Demo keys (development only):", highlight=False)
        for name in ("viewer", "editor", "approver", "operator", "agent"):
            console.print(f"  {name:<10} {keys[name]}", highlight=False, soft_wrap=True)
        console.print("\n  Three things to try:", highlight=False)
        console.print("  1. make demo", highlight=False)
        console.print(
            f"  2. curl -s -H 'Authorization: Bearer {keys['viewer']}' '{api}/v1/objects/flight?origin=JFK&first=3'",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        console.print(
            f"  3. curl -s -H 'Authorization: Bearer {keys['editor']}' {gateway}/v1/chat/completions -H 'content-type: application/json'"
            """ -d '{"model":"smollm2","max_tokens":40,"messages":[{"role":"user","content":"Say hello."}]}'""",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    console.print("\nCtrl-C (or `make down`) stops everything.", highlight=False)


def environment(settings: Settings, keys: dict[str, str]) -> str:
    """The same as assignments of shell variables: addresses, the audit log's public key file, and the demo keys."""
    values = {
        "API": f"http://{settings.api_listen}",
        "GATEWAY": f"http://{settings.gateway_listen}",
        "GATEWAY_ADMIN": f"http://{settings.gateway_admin_listen}",
        "LOG_KEY": str(settings.checkpoint_dir / "log.pub"),
        **{name.upper(): key for name, key in keys.items()},
    }
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in values.items())
