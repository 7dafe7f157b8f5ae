"""Which distances a simulation holds."""

from integrators.constraints import Distances
from integrators.state import Potential
from mts_driver.simulation.bond_lengths import average_lengths
from mts_driver.simulation.simulate.settings import SimulationSettings
from mts_driver.simulation.simulate.start import Start
from mts_driver.structures.held_bonds import distances, held_pairs


def distances_to_hold(
    start: Start, settings: SimulationSettings, potential: Potential, saved: Distances | None
) -> Distances:
    """Return distances to hold: those of a checkpoint, those given, or averages."""
    if saved is not None:
        return saved
    pairs = held_pairs(start.atoms, rigid_water=settings.rigid_water)
    lengths_A = settings.bond_lengths_A or average_lengths(
        start.atoms,
        start.masses_Da,
        potential,
        pairs,
        temperature_K=settings.temperature_K,
        seed=settings.seed,
    )
    return distances(pairs, lengths_A)
