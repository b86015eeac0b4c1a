"""The inference gateway's control plane: which models there are, what the gateways are told, what was used."""
