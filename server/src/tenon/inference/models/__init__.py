"""Models: the names callers use, the endpoints that serve them, the routes between.

Owns: endpoints (with their upstream credentials, sealed for the gateways), models, routes, and one revision a tenant over all of them.
Promises: a credential goes in and never comes out here; no endpoint has an address of the machine itself or of its metadata service; every
change is one new revision.
Needs: policy, audit, identity (who may call what, for dry runs), the sealing key's file.
"""

from tenon.inference.models.base_urls import is_written_as_private
from tenon.inference.models.contracts import (
    Balancing,
    Endpoint,
    EndpointDraft,
    Model,
    Route,
    RoutingTable,
    SealedEndpoint,
    Serving,
    Timeouts,
)
from tenon.inference.models.model_names import RULE as MODEL_NAME_RULE
from tenon.inference.models.model_names import is_model_name
from tenon.inference.models.service import (
    EndpointSettings,
    create_endpoint,
    delete_endpoint,
    delete_model,
    find_endpoint,
    list_endpoints,
    list_models,
    newest_revision,
    put_model,
    replace_endpoint,
    routing_between,
)

__all__ = [
    "MODEL_NAME_RULE",
    "Balancing",
    "Endpoint",
    "EndpointDraft",
    "EndpointSettings",
    "Model",
    "Route",
    "RoutingTable",
    "SealedEndpoint",
    "Serving",
    "Timeouts",
    "create_endpoint",
    "delete_endpoint",
    "delete_model",
    "find_endpoint",
    "is_model_name",
    "is_written_as_private",
    "list_endpoints",
    "list_models",
    "newest_revision",
    "put_model",
    "replace_endpoint",
    "routing_between",
]
