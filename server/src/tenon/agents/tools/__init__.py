"""Tools: a tenant's ontology as MCP tools.

Owns: the tools, their schemas and descriptions, the shape of results and refusals, the MCP endpoint.
Promises: tools are built from what exists for the caller and nothing else. No tool approves. Every call goes through the same services as
REST. A refusal names its repair. Text out of data stands only in structured content, never in a sentence of ours.
Needs: ontology.objects, ontology.actions.
"""

from tenon.agents.tools.contracts import Tool, ToolContext
from tenon.agents.tools.service import Toolbox

__all__ = ["Tool", "ToolContext", "Toolbox"]
