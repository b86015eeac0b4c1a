"""Audit: what was done, by whom, under which policy, in a log that cannot be changed unnoticed.

Owns: audit entries and payloads, their Merkle trees, signed checkpoints, receipts and evidence packs.
Promises: an entry commits with the change it records. A refusal's entry survives the refusal. One sequencer orders the entries into one
RFC 6962 tree for each tenant and never signs a smaller tree. A pack verifies offline with nothing but the log's public key.
Needs: policy, context; the login `sequencer`. `log` holds the formats, `sequencing` the order, `verification` the checks.
"""

from tenon.core.audit.contracts import AuditEvent, Decision
from tenon.core.audit.service import record, run_audited

__all__ = ["AuditEvent", "Decision", "record", "run_audited"]
