"""Potentials: ``load_potential("so3lr")``, and others by their specifications."""

from mts_driver.potentials.load import load_potential

__all__ = ["load_potential"]
