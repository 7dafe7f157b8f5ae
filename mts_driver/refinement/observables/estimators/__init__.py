"""What several observables are made of: frames, pairs, smooth histograms, time correlations."""
