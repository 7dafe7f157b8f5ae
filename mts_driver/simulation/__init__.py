"""Molecular dynamics in this process."""
