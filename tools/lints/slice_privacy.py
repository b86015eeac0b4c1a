"""An import-linter contract: a slice's tables and queries are its own; others come in through its package, contracts or service."""

from __future__ import annotations

from importlinter import Contract, ContractCheck, fields, output

HANDLERS = frozenset({"rest", "graphql", "tasks"})
PRIVATE = ("models", "repository")


class SlicePrivacyContract(Contract):
    """Nobody outside a slice imports its `models` or `repository`, and neither do the slice's own handlers."""

    parents = fields.ListField(subfield=fields.StringField())

    def check(self, graph, verbose):
        broken = []
        for parent in self.parents:
            for owner in graph.find_children(parent):
                # Of its sub-packages too: `billing.leases.repository` belongs to billing.
                for module in sorted(module for module in graph.find_descendants(owner) if module.rsplit(".", 1)[-1] in PRIVATE):
                    broken += [(who, module) for who in graph.find_modules_that_directly_import(module) if _outside(who, owner)]
        return ContractCheck(kept=not broken, metadata={"broken": sorted(broken)})

    def render_broken_contract(self, check):
        for importer, module in check.metadata["broken"]:
            output.print_error(f"{importer} imports {module}: go through the slice's service.")


def _outside(importer: str, owner: str) -> bool:
    """Whether `importer` may not see the private parts of `owner`."""
    if not importer.startswith(f"{owner}."):
        return True
    return importer.removeprefix(f"{owner}.").split(".")[0] in HANDLERS
