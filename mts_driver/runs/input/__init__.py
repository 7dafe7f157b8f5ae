"""What an input says, and whether it can work."""
