"""Gateway sync: what the gateways are told, and how they ship what was used (contracts/gateway.proto).

Owns: the ordered stream of key records, routing tables and governance, enrolment, the gRPC servicer; no table. Promises: a change is on its way to
every subscribed gateway within 100 ms of its commit, in revision order, with none left out; heartbeats stop when the database cannot be
asked, so that strict keys fail closed; a batch of usage is acknowledged after its commit. Needs: models, usage, limits,
billing, policy, the logins `sync` (reads keys and principals as the walls grant it), `usage` and `lease`.
"""

from tenon.inference.gateway_sync.enrolment import Enrolment
from tenon.inference.gateway_sync.feed import Feed
from tenon.inference.gateway_sync.interceptor import Gatekeeper
from tenon.inference.gateway_sync.leases import LeaseDesk
from tenon.inference.gateway_sync.servicer import GatewayControl

__all__ = ["Enrolment", "Feed", "Gatekeeper", "GatewayControl", "LeaseDesk"]
