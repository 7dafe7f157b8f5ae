"""Distributions under i-PI, judged by physical_validation (Merz and Shirts, 2018)."""

import numpy as np
import pytest
from ipi_input import LANGEVIN
from test_ipi_ensembles import STUDENT, TEACHER, gas

physical_validation = pytest.importorskip("physical_validation")

GAS_CONSTANT = 0.0083144626  # kJ/mol/K
HARTREE_KJ_MOL = 2625.4996
ATOMS = 30
BATHS = {
    "langevin": LANGEVIN.replace(">40<", ">20<"),
    "hydrogen friction": LANGEVIN + "<hydrogen_friction units='inverseps'>50</hydrogen_friction>",
}


def simulate(load, temperature_K, dynamics, *, steps, mode="nvt", **options):
    """Kinetic energies at O, potential energies (kJ/mol) and volumes (nm³) of every fifth step."""
    simulation = load(
        xyz=gas(ATOMS),
        nmts="[1, 3]",
        timestep_fs=0.9,
        temperature_K=temperature_K,
        dynamics=dynamics,
        mode=mode,
        seed=int(temperature_K),
        **options,
    )
    system = simulation.syslist[0]
    monitor = system.motion.integrator.monitor
    kinetic, potential = [], []
    for k in range(steps + 400):
        system.motion.step()
        if k >= 400 and k % 5 == 0:
            kinetic.append(0.5 * 3 * ATOMS * GAS_CONSTANT * monitor.latest_K["all"])
            potential.append(float(system.forces.pot) * HARTREE_KJ_MOL)
    data = physical_validation.data
    return data.SimulationData(
        units=data.UnitData.units("GROMACS"),
        dt=5 * 0.9e-3,
        system=data.SystemData(
            natoms=ATOMS,
            nconstraints=0,
            ndof_reduction_tra=0,
            ndof_reduction_rot=0,
            mass=np.full(ATOMS, 1.00794),
        ),
        ensemble=data.EnsembleData("NVT", natoms=ATOMS, volume=1.0, temperature=temperature_K),
        observables=data.ObservableData(
            kinetic_energy=np.array(kinetic),
            potential_energy=np.array(potential),
            total_energy=np.array(kinetic) + np.array(potential),
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("bath", BATHS)
def test_kinetic_energies_and_an_ensemble_pair(load, bath):
    """Width and mean of the kinetic energy at O, and the ratio of two distributions."""
    options = {"teacher": TEACHER, "student": STUDENT}
    pair = [simulate(load, kelvin, BATHS[bath], steps=12000, **options) for kelvin in (300, 330)]
    for one in pair:
        mean, width = physical_validation.kinetic_energy.distribution(
            one, strict=False, bootstrap_seed=1, verbosity=0
        )
        print(f"{bath}: kinetic energies off by {mean:.1f} (mean) and {width:.1f} (width) σ")
        assert abs(mean) < 4 and abs(width) < 4
    (quantile,) = physical_validation.ensemble.check(
        *pair, total_energy=False, bootstrap_seed=1, verbosity=0
    )
    print(f"{bath}: slope of the pair off by {quantile:.1f} σ")
    assert abs(quantile) < 4
