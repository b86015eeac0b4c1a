"""Keys, issuers, routing and usage as messages of contracts/gateway.proto, and back."""

from __future__ import annotations

from collections.abc import Sequence

from tenon.core.identity import GatewayKey, KeyKind, Priority, TrustedIssuer
from tenon.inference.gateway_sync.generated import gateway_pb2 as wire
from tenon.inference.models import RoutingTable, SealedEndpoint, is_written_as_private
from tenon.inference.usage import Claim

_KEY_KINDS = {
    KeyKind.USER: wire.KEY_KIND_USER, KeyKind.SERVICE: wire.KEY_KIND_SERVICE, KeyKind.AGENT: wire.KEY_KIND_AGENT,
    KeyKind.SESSION: wire.KEY_KIND_SESSION,
}  # fmt: skip
_PRIORITIES = {Priority.LOW: wire.PRIORITY_LOW, Priority.NORMAL: wire.PRIORITY_NORMAL, Priority.HIGH: wire.PRIORITY_HIGH}
_PROTOCOLS = {"openai": wire.PROTOCOL_OPENAI, "anthropic": wire.PROTOCOL_ANTHROPIC, "kserve_grpc": wire.PROTOCOL_KSERVE_GRPC}


def key_record(key: GatewayKey) -> wire.KeyRecord:
    """A key as gateways get it."""
    federation = key.federation
    return wire.KeyRecord(
        key_id=key.key_id,
        secret_sha256=key.secret_sha256,
        revision=key.revision,
        revoked=key.revoked,
        expires_at_unix_ms=int(key.expires_at.timestamp() * 1_000) if key.expires_at else 0,
        strict=key.strict,
        tenant_id=str(key.tenant),
        project_id=str(key.project),
        principal_id=str(key.principal),
        session_id=str(key.session or ""),
        kind=_KEY_KINDS[key.kind],
        may_call_models=key.may_call_models,
        allowed_models=key.allowed_models,
        ceiling_markings=key.ceiling,
        allowed_operations=key.scope.operations,
        source_networks=key.scope.networks,
        certificate_sha256=key.scope.certificate_sha256 or b"",
        federation=wire.Federation(issuer_id=str(federation.issuer), subject=federation.subject) if federation else None,
        priority=_PRIORITIES[key.scope.priority],
        replaced_by=key.replaced_by or "",
    )


def issuer(trusted: TrustedIssuer) -> wire.Issuer:
    """An issuer and its public keys."""
    return wire.Issuer(
        issuer_id=str(trusted.id),
        tenant_id=str(trusted.tenant),
        revision=trusted.revision,
        disabled=trusted.disabled,
        issuer=trusted.issuer,
        audiences=trusted.audiences,
        algorithm=trusted.algorithm,
        jwks=trusted.jwks.encode(),
        leeway_ms=trusted.leeway_ms,
        lifetime_max_ms=trusted.lifetime_max_ms,
    )


def routing_table(table: RoutingTable) -> wire.RoutingTable:
    """A tenant's endpoints and models."""
    models = [
        wire.Model(
            name=model.name,
            routes=[
                wire.Route(
                    endpoint_id=str(route.endpoint),
                    upstream_model=route.upstream_model,
                    weight=route.weight,
                    tier=route.tier,
                    input_cost_nano_per_million=route.input_cost_nano_per_million,
                    output_cost_nano_per_million=route.output_cost_nano_per_million,
                )
                for route in model.routes
            ],
            strategy=wire.Strategy.Value(f"STRATEGY_{model.balancing.strategy.upper()}"),
            queue_timeout_ms=model.balancing.queue_timeout_ms,
            context_tokens=model.balancing.context_tokens,
            output_tokens_max=model.balancing.output_tokens_max,
            affinity_header=model.balancing.affinity_header,
            retries_max=model.balancing.retries_max,
        )
        for model in table.models
    ]
    endpoints = [_endpoint(endpoint) for endpoint in table.endpoints]
    return wire.RoutingTable(tenant_id=str(table.tenant), revision=table.revision, endpoints=endpoints, models=models)


def _endpoint(endpoint: SealedEndpoint) -> wire.Endpoint:
    return wire.Endpoint(
        endpoint_id=str(endpoint.id),
        base_url=endpoint.base_url,
        protocol=_PROTOCOLS[endpoint.protocol],
        sealed_credential=endpoint.sealed_credential,
        cleared_markings=endpoint.cleared_markings,
        connect_timeout_ms=endpoint.timeouts.connect_ms,
        headers_timeout_ms=endpoint.timeouts.headers_ms,
        first_token_timeout_ms=endpoint.timeouts.first_token_ms,
        idle_timeout_ms=endpoint.timeouts.idle_ms,
        total_timeout_ms=endpoint.timeouts.total_ms,
        private_network_allowed=endpoint.serving.private_network_allowed or is_written_as_private(endpoint.base_url),
        concurrency_max=endpoint.serving.concurrency_max,
        engine=wire.Engine.Value(f"ENGINE_{endpoint.serving.engine.upper() or 'UNSPECIFIED'}"),
        metrics_url=endpoint.serving.metrics_url,
        health_path=endpoint.serving.health_path,
        abort_billing=wire.AbortBilling.Value(f"ABORT_BILLING_{endpoint.serving.abort_billing.upper() or 'UNSPECIFIED'}"),
        operations=endpoint.serving.operations,
    )


def usage_claim(record: wire.UsageRecord) -> Claim:
    """A shipped record, not yet believed. Enumerations become their lower-case names; unknown ones become empty and are refused later."""
    return Claim(
        raw=record.SerializeToString(deterministic=True),
        record_id=record.record_id,
        request_id=record.request_id,
        trace_id=record.trace_id,
        gateway_id=record.gateway_id,
        tenant_id=record.tenant_id,
        project_id=record.project_id,
        principal_id=record.principal_id,
        key_id=record.key_id,
        session_id=record.session_id,
        endpoint_id=record.endpoint_id,
        model=record.model,
        upstream_model=record.upstream_model,
        operation=_OPERATIONS.get(record.operation, ""),
        streamed=record.streamed,
        outcome=_OUTCOMES.get(record.outcome, ""),
        http_status=record.http_status,
        usage_source=_SOURCES.get(record.usage_source, ""),
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        cache_read_tokens=record.cache_read_tokens,
        cache_write_tokens=record.cache_write_tokens,
        reasoning_tokens=record.reasoning_tokens,
        started_at_unix_us=record.started_at_unix_us,
        first_token_us=record.first_token_us,
        duration_us=record.duration_us,
        attempt=record.attempt,
        lease_uses=tuple((use.lease_id, use.nano) for use in record.lease_uses),
        price_id=record.price_id,
        audio_tokens=record.audio_tokens,
        images=record.images,
        process_id=record.process_id,
    )


def _names(pairs: Sequence[tuple[str, int]], prefix: str) -> dict[int, str]:
    """Number -> lower-case name without its prefix; the unspecified zero is left out."""
    return {number: name.removeprefix(prefix).lower() for name, number in pairs if number}


_OPERATIONS = _names(wire.Operation.items(), "OPERATION_")
_OUTCOMES = _names(wire.Outcome.items(), "OUTCOME_")
_SOURCES = _names(wire.UsageSource.items(), "USAGE_SOURCE_")
