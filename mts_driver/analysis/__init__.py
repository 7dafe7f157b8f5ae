"""Analysis of trajectories."""
