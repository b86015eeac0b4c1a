"""Identity: principals and their API keys. Owns both tables, the key's format and authentication.

Promises: a secret is shown once and stored as SHA-256; a key or principal that was revoked, disabled or has expired authenticates nobody
within a second, in every process. Needs: policy, audit, the login `auth`.
"""

from tenon.core.identity.authentication import Authenticator
from tenon.core.identity.contracts import IssuedKey, KeyKind, KeyLimits, KeyRequest, Principal
from tenon.core.identity.service import (
    create_key,
    create_principal,
    disable_principal,
    find_principal,
    first_operator,
    list_keys,
    own_key,
    revoke_key,
)

__all__ = [
    "Authenticator",
    "IssuedKey",
    "KeyKind",
    "KeyLimits",
    "KeyRequest",
    "Principal",
    "create_key",
    "create_principal",
    "disable_principal",
    "find_principal",
    "first_operator",
    "list_keys",
    "own_key",
    "revoke_key",
]
