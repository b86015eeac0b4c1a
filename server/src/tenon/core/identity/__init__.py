"""Identity: principals, their API keys, and issuers whose tokens stand for them. Owns the tables, the key's format and authentication.

Promises: a secret is shown once and stored as SHA-256; a key or principal that was revoked, disabled or has expired authenticates nobody
within a second, in every process. Needs: policy, audit, the login `auth`.
"""

from tenon.core.identity.authentication import Authenticator
from tenon.core.identity.callers import callers
from tenon.core.identity.contracts import (
    CallerGroup,
    Federation,
    IssuedKey,
    IssuerRequest,
    KeyKind,
    KeyLimits,
    KeyRequest,
    KeyScope,
    Principal,
    Priority,
    TrustedIssuer,
)
from tenon.core.identity.issuers import ask_for_keys, create_issuer, disable_issuer, issuers_between, list_issuers, refresh_issuer
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
    successors,
)

__all__ = [
    "Authenticator",
    "CallerGroup",
    "Federation",
    "IssuedKey",
    "IssuerRequest",
    "KeyKind",
    "KeyLimits",
    "KeyRequest",
    "KeyScope",
    "Principal",
    "Priority",
    "TrustedIssuer",
    "ask_for_keys",
    "callers",
    "create_federated_credential",
    "create_issuer",
    "create_key",
    "create_principal",
    "disable_issuer",
    "disable_principal",
    "find_principal",
    "first_operator",
    "issuers_between",
    "list_issuers",
    "list_keys",
    "own_key",
    "refresh_issuer",
    "revoke_key",
    "rotate_key",
    "successors",
]
