"""The mean energy of a molecule alone, as enthalpies of vaporisation need it.

Bonds and angles of a molecule that nothing else acts on have energies that depend on the
temperature alone, as far as they are harmonic: parameters hardly enter, so that one run with the
first ones serves a whole fit.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from integrators import engine
from integrators.bath import Bath
from integrators.levels import SingleLevel
from integrators.splitting import baoab
from integrators.state import MDState, Potential
from mts_driver.errors import UserError
from mts_driver.refinement.settings import RefineSettings
from mts_driver.refinement.system import System
from mts_driver.simulation.thermal_state import thermal_state

REPLICAS, STEPS, SETTLED = 100, 1500, 500
FRICTION_PER_PS = 10.0


@torch.no_grad()
def gas_energy_eV(
    model_of: Callable[[Sequence[int]], Potential], system: System, settings: RefineSettings
) -> float:
    """Run a hundred molecules, each alone, with a strong thermostat.

    Parameters
    ----------
    model_of : callable
        From atomic numbers of the molecule to its potential.
    system : System
        Made of one kind of molecule.

    Raises
    ------
    UserError
        If it is not.
    """
    first = np.flatnonzero(system.molecules == system.molecules[0])
    if len(set(np.bincount(system.molecules).tolist())) != 1:
        raise UserError(
            "vaporisation_kJ_mol is that of one kind of molecule; the structure has more."
        )
    alone = system.atoms[first]
    if len(first) > 1:
        # whole, where the cell cuts it
        vectors = alone.get_distances(0, list(range(len(alone))), mic=True, vector=True)
        alone.positions = alone.positions[0] + vectors
    alone.pbc = False
    start = thermal_state(
        *(alone, alone.get_masses()),
        temperature_K=settings.temperature_K,
        seed=settings.seed,
        replicas=REPLICAS,
    )
    bath = Bath.from_temperature(
        temperature_K=settings.temperature_K, friction_per_ps=FRICTION_PER_PS
    )
    energies: list[float] = []

    def keep(now: MDState) -> None:
        if now.step > SETTLED:
            energies.append(engine.potential_energy(now).mean().item())

    engine.run(
        *(start, SingleLevel(model_of(alone.numbers.tolist())), baoab()),
        steps=STEPS,
        timestep=min(settings.timestep_fs, 1.0),
        bath=bath,
        seed=settings.seed,
        on_step=keep,
    )
    return float(np.mean(energies))
