"""The splitting under i-PI: an integrator of its own, and what i-PI needs for it."""
