"""Our own lints."""
