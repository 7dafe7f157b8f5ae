"""Potentials: ``load_potential("so3lr" | "student:FILE" | "ase:MODULE:CALLABLE?key=value")``."""

from mts_driver.potentials.load import load_potential

__all__ = ["load_potential"]
