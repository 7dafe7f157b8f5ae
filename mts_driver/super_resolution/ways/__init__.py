"""Ways to fill a gap that need no training of their own: splines, shots, replays."""
