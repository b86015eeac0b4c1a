"""Ingestion: files into objects, in bulk.

Owns: the mapping language, loads and their checkpoints. Promises: every row is an object or is named with line, column and reason; a batch
and its checkpoint are one transaction; an interrupted load goes on to the same result; repeating a load touches no unchanged row.
Needs: schema, audit, events, policy; login `ingest`.
"""

from tenon.ontology.ingestion.contracts import LinkCount, Load, Progress, Report, Watcher

__all__ = ["LinkCount", "Load", "Progress", "Report", "Watcher"]
