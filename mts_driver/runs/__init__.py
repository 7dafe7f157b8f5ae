"""A whole i-PI run: its input, its processes, and what it measures of itself."""
