"""The sync process: one gRPC server that speaks contracts/gateway.proto to every gateway.

Owns: the listener and its TLS certificate, which it reads again when it changes. Promises: in production it never listens beyond loopback
without TLS. Needs: `inference.gateway_sync`, the login `sync`.
"""
