"""Usage: what each model call used, once.

Owns: usage records (daily partitions), hourly sums, the quarantine.
Promises: a record is stored exactly once, however often and in whatever order its batches come. Sums are written in the same transaction from
what was really inserted. One bad record never fails the others of its batch. A record belongs to the tenant of its key, whatever a gateway
claims.
Needs: policy, identity (who owns a key), billing (prices, budgets), the login `usage`.
"""

from tenon.inference.usage.contracts import Claim, Receipt, Totals, UsageFilter, UsagePage
from tenon.inference.usage.service import UsageStore, read_records, read_totals

__all__ = ["Claim", "Receipt", "Totals", "UsageFilter", "UsagePage", "UsageStore", "read_records", "read_totals"]
