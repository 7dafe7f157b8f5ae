"""Ways to the gradient of a loss along a trajectory: ours, and what it is measured against."""
