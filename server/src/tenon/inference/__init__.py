"""The inference gateway's control plane: which models there are, what may be used of them
(limits, budgets), what the gateways are told, what was used and what it costs."""
