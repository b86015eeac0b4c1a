"""The HTTP API process: authenticates every request, carries one request id and trace through it, maps errors once, mounts the routes."""
