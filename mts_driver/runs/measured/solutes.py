"""Solutes in a run under i-PI: their temperatures are read beside those of all atoms."""

from collections.abc import Collection
from typing import Any

from mts_driver.runs.atoms_of_run import atoms_of
from mts_driver.structures.reading.ipi_labels import element_of
from mts_driver.structures.solutes import temperature_groups


def watch_solutes(simulation: Any, isolated: Collection[str]) -> None:
    """Have the temperatures of solutes measured in all systems that our integrators move.

    Parameters
    ----------
    isolated : collection of str
        Force fields whose driver sees no cell.
    """
    from integrators.ipi.plugin import integrators

    systems = {id(system.beads): system for system in simulation.syslist}
    for integrator in integrators(simulation):
        system = systems[id(integrator.beads)]
        # a driver that was started by hand may know labels that are no elements
        if all(element_of(str(label)) for label in system.beads.names):
            used = {part.ffield for part in system.forces.mforces}
            atoms = atoms_of(system, periodic=not used & set(isolated))
            integrator.monitor.watch(temperature_groups(atoms))
