"""Tenants as other rooms see them."""

from __future__ import annotations

from dataclasses import dataclass

from tenon.core.context import ProjectId, TenantId


@dataclass(frozen=True, slots=True)
class Tenant:
    """One organisation and its default project."""

    id: TenantId
    name: str
    project: ProjectId
