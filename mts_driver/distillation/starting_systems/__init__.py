"""Molecules and boxes that a general student is distilled from."""
