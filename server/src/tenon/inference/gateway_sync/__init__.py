"""Gateway sync: what gateways receive from the control plane, and what they ship to it (contracts/gateway.proto).

Owns: the ordered stream of keys, issuers, routing tables and governance, enrolment, the gRPC servicer; no table.
Promises: a change is on its way to every subscribed gateway within 100 ms of its commit, in revision order, with none left out. Heartbeats stop
when the database does not answer, so that strict keys fail closed. A batch of usage is acknowledged after its commit.
Needs: identity (keys, issuers), models, usage, limits, billing, policy, the logins `sync`, `usage` and `lease`.
"""

from tenon.inference.gateway_sync.enrolment import Enrolment
from tenon.inference.gateway_sync.feed import Feed
from tenon.inference.gateway_sync.interceptor import AuthenticationInterceptor
from tenon.inference.gateway_sync.servicer import GatewayControl

__all__ = ["AuthenticationInterceptor", "Enrolment", "Feed", "GatewayControl"]
