"""What a run achieved: i-PI's output files to numbers and a picture (never imports torch)."""
