"""Networks that learn how one molecule moves, after Winkler et al."""
