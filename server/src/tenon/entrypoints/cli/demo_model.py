"""The embedded engine as an endpoint and a model of the demo tenant, cleared for what the demo's agent may see."""

from __future__ import annotations

from tenon.core.context import Context
from tenon.entrypoints.cli.engine import MODEL
from tenon.entrypoints.cli.operator_commands import OperatorContext
from tenon.inference import models

ENDPOINT = "embedded"


async def ensure_model(operator: OperatorContext, ctx: Context) -> None:
    """Create the endpoint and the model once, and follow when the engine's address moved."""
    installation = models.EndpointSettings.of(operator.settings)
    draft = models.EndpointDraft(
        name=ENDPOINT, base_url=f"http://{operator.settings.engine_listen}/v1", cleared_markings=frozenset({"fleet_confidential"})
    )
    async with operator.api.tenant(ctx.identity) as session:
        known = next((endpoint for endpoint in await models.list_endpoints(session, ctx) if endpoint.name == ENDPOINT), None)
        if known is None:
            known = await models.create_endpoint(session, ctx, draft, installation)
        elif known.base_url != draft.base_url:
            known = await models.replace_endpoint(session, ctx, known.id, draft, installation)
        if MODEL not in {model.name for model in await models.list_models(session, ctx)}:
            await models.put_model(session, ctx, models.Model(MODEL, (models.Route(known.id),)))
