"""The HTTP API process: REST, GraphQL, MCP and events behind one middleware.

Owns: the list of routes, authentication of every request, request id and trace, refusals as HTTP answers. Promises: a path that is not
listed as public needs a key. Needs: the logins `api` and `auth`.
"""
