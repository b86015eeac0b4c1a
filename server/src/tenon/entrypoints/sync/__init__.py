"""The sync process: one gRPC server that speaks contracts/gateway.proto to every gateway. Wiring only."""
