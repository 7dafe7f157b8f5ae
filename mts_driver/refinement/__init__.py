"""Models fitted to what trajectories show, by gradients through them."""
