"""What an update of parameters follows from a gradient, and how long it is."""
