"""What a fit aims at: observables, targets, and how far off they may be."""
