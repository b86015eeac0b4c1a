"""Tools: a tenant's ontology as MCP tools.

Owns: which tools there are, their schemas and descriptions, the shape of results and refusals, the MCP endpoint. Promises: tools are made from
what exists for the caller and nothing else; no tool approves; every call goes through the same services as REST; a refusal says how to
repair it; text out of data stands only in structured content, never in a sentence of ours. Needs: ontology.objects, ontology.actions.
"""

from tenon.agents.tools.contracts import Tool, ToolContext
from tenon.agents.tools.service import Toolbox

__all__ = ["Tool", "ToolContext", "Toolbox"]
