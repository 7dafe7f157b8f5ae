"""Classical force fields in torch, whose parameters can be fitted."""
