"""Sessions: one agent run under a ceiling of markings that is fixed when it opens.

Owns: sessions and operators' permits.
Promises: a ceiling lies within what agent and owner may see, and never changes. No session opens below an earlier ceiling of the same agent
within the window, unless an operator permits it. None opens above while a lower one is open, so nothing read above can be pasted below.
Closing a session revokes its key, everywhere within a second.
Needs: identity, policy, audit.
"""

from tenon.agents.sessions.contracts import AgentSession, SessionRequest
from tenon.agents.sessions.service import close_session, list_sessions, open_session, permit_lower_session

__all__ = ["AgentSession", "SessionRequest", "close_session", "list_sessions", "open_session", "permit_lower_session"]
