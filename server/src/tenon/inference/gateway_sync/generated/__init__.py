"""Generated from contracts/gateway.proto by tools/generate_grpc.py; do not edit."""
