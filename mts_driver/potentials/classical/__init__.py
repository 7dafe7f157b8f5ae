"""Classical force fields in torch: to be fitted, to be refined, and to test others by."""
