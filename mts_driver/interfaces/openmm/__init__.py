"""OpenMM: multiple time steps with our models under its own integrators."""

from mts_driver.interfaces.openmm.forces import LevelForces, add_forces
from mts_driver.interfaces.openmm.start import OpenMMStart, start_from_ase

__all__ = ["LevelForces", "OpenMMStart", "add_forces", "start_from_ase"]
