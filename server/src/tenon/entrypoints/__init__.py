"""The processes: api, sync, worker, cli. Wiring only: what they do stands on the floors below."""
