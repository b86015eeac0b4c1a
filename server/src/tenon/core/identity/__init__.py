"""Identity: principals, their API keys, and issuers whose tokens stand for them.

Owns: principals, keys, issuers, the key's format, authentication. Promises: a secret is shown once and stored as SHA-256; a key or
principal that was revoked, disabled or has expired authenticates nobody within a second, in every process.
Needs: policy, audit, the login `auth`.
"""

from tenon.core.identity.api_keys import is_key_id
from tenon.core.identity.authentication import Authenticator
from tenon.core.identity.contracts import (
    CallerGroup,
    Federation,
    GatewayKey,
    IssuedKey,
    IssuerRequest,
    KeyKind,
    KeyLimits,
    KeyOwner,
    KeyRequest,
    KeyScope,
    Principal,
    Priority,
    TrustedIssuer,
)
from tenon.core.identity.federation.issuers import (
    create_issuer,
    disable_issuer,
    list_issuers,
    list_issuers_between,
    refresh_issuer,
    request_key_refresh,
)
from tenon.core.identity.key_records import (
    find_gateway_key,
    gateway_keys_between,
    key_exists,
    key_owners,
    newest_revision,
    principal_exists,
    successors,
)
from tenon.core.identity.model_callers import list_model_callers
from tenon.core.identity.service import (
    create_federated_credential,
    create_key,
    create_principal,
    disable_principal,
    find_principal,
    first_operator,
    list_keys,
    own_key,
    revoke_key,
    rotate_key,
)

__all__ = [
    "Authenticator",
    "CallerGroup",
    "Federation",
    "GatewayKey",
    "IssuedKey",
    "IssuerRequest",
    "KeyKind",
    "KeyLimits",
    "KeyOwner",
    "KeyRequest",
    "KeyScope",
    "Principal",
    "Priority",
    "TrustedIssuer",
    "create_federated_credential",
    "create_issuer",
    "create_key",
    "create_principal",
    "disable_issuer",
    "disable_principal",
    "find_gateway_key",
    "find_principal",
    "first_operator",
    "gateway_keys_between",
    "is_key_id",
    "key_exists",
    "key_owners",
    "list_issuers",
    "list_issuers_between",
    "list_keys",
    "list_model_callers",
    "newest_revision",
    "own_key",
    "principal_exists",
    "refresh_issuer",
    "request_key_refresh",
    "revoke_key",
    "rotate_key",
    "successors",
]
