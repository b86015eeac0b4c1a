"""Ingestion: files into objects, in bulk.

Owns: the mapping language, loads and their checkpoints. Promises: every row becomes an object or is reported with line, column and reason.
A batch and its checkpoint are one transaction. An interrupted load continues to the same result; a repeated load changes no unchanged row.
Needs: schema, audit, events, policy; login `ingest`.
"""

from tenon.ontology.ingestion.contracts import LinkCount, Load, LoadFolders, Progress, ProgressCallback, Report
from tenon.ontology.ingestion.service import load_all, load_file

__all__ = ["LinkCount", "Load", "LoadFolders", "Progress", "ProgressCallback", "Report", "load_all", "load_file"]
