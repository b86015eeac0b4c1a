"""`python -m tenon.entrypoints.cli`: the same as `tenon`."""

from tenon.entrypoints.cli.main import app

app()
