"""Everything that `mts_driver` offers by name; each is made where its work is done."""

from mts_driver.errors import UserError
from mts_driver.potentials.load import load_potential
from mts_driver.simulation.simulate.result import SimulationResult
from mts_driver.simulation.simulate.run import simulate

__all__ = ["SimulationResult", "UserError", "load_potential", "simulate"]
