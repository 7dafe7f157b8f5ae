"""Multiple time-step molecular dynamics with a teacher potential and its distilled student."""

__version__ = "0.1.0"
