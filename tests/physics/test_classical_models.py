"""Classical models against other codes and against what is published of silicon."""

import itertools
import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from classical_cases import (
    NO_CELL,
    SKEW_A,
    SOLUTION,
    derivative,
    scattered,
    solution,
    solution_model,
)
from scipy.optimize import minimize

from mts_driver.potentials.classical.electrostatics import COULOMB_EV_A
from mts_driver.potentials.classical.forms import FORMS
from mts_driver.potentials.classical.molecular import MolecularForceField
from mts_driver.potentials.classical.pair_models import PairModel, lennard_jones
from mts_driver.potentials.classical.stillinger_weber import StillingerWeber
from mts_driver.potentials.classical.water import WATER_MODELS, flexible_water
from mts_driver.units import KJ_MOL_EV

EV_A3_GPA = 160.21766208
R = torch.linspace(2.6, 7.0, 12, dtype=torch.float64)
ARGUMENTS = {
    "lennard-jones": {"epsilon_eV": 0.01, "sigma_A": 3.4},
    "soft-core": {"epsilon_eV": 0.01, "sigma_A": 3.4, "softness": 0.4, "coupling": 0.75},
    "double-exponential": {"epsilon_eV": 0.01, "r_min_A": 3.8, "alpha": 16.0, "beta": 5.0},
    "buckingham": {"A_eV": 900.0, "B_per_A": 3.4, "C_eV_A6": 40.0, "wall_A": 2.0},
}
BY_HAND = {
    "lennard-jones": lambda r: 0.04 * ((3.4 / r) ** 12 - (3.4 / r) ** 6),
    "soft-core": lambda r: (
        0.04 * 0.75 * (1 / (0.1 + (r / 3.4) ** 6) ** 2 - 1 / (0.1 + (r / 3.4) ** 6))
    ),
    "double-exponential": lambda r: (
        0.01
        * (
            5.0 * math.exp(16.0) / 11.0 * math.exp(-16.0 * r / 3.8)
            - 16.0 * math.exp(5.0) / 11.0 * math.exp(-5.0 * r / 3.8)
        )
    ),
    "buckingham": lambda r: 900.0 * math.exp(-3.4 * r) - 40.0 / r**6,
}


@pytest.mark.parametrize("form", FORMS)
def test_dimers_have_the_energies_of_the_formulas(form):
    model = PairModel(form, [18, 18], ARGUMENTS[form], cutoff_A=20.0, switch_A=18.0)
    x = torch.zeros(len(R), 2, 3, dtype=torch.float64)
    x[:, 1, 2] = R
    expected = [BY_HAND[form](r) for r in R.tolist()]
    np.testing.assert_allclose(model(x, NO_CELL).energy, expected, rtol=1e-12)


def test_a_cluster_has_the_energy_of_ase():
    x = scattered(20, spread_A=3.7)
    atoms = Atoms("Ar20", x.numpy(), calculator=LennardJones(sigma=3.4, epsilon=0.01, rc=1e4))
    model = lennard_jones([18] * 20, epsilon_eV=0.01, sigma_A=3.4, cutoff_A=99.0)
    found = model(x, NO_CELL)
    assert found.energy.item() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=1e-9, atol=1e-14)


MIXED = {
    "lennard-jones": "4*e*((s/r)^12 - (s/r)^6); e=sqrt(e1*e2); s=(s1+s2)/2",
    "soft-core": "4*0.9*e*(u*u - u); u=1/(0.05 + (r/s)^6); e=sqrt(e1*e2); s=(s1+s2)/2",
    "double-exponential": (
        "e/(16.766-4.427)*(4.427*exp(16.766*(1-r/s)) - 16.766*exp(4.427*(1-r/s)));"
        "e=sqrt(e1*e2); s=(s1+s2)/2"
    ),
    "buckingham": "sqrt(a1*a2)*exp(-2*b1*b2/(b1+b2)*r) - sqrt(c1*c2)/r^6",
}
PARAMETERS = {
    "buckingham": (("a", "A_eV"), ("b", "B_per_A"), ("c", "C_eV_A6")),
    "double-exponential": (("e", "epsilon_eV"), ("s", "r_min_A")),
}
SAME = (("e", "epsilon_eV"), ("s", "sigma_A"))


@pytest.mark.parametrize("form", FORMS)
def test_waters_with_oxygen_have_the_energies_and_forces_of_openmm(form):
    """In eV and Å under OpenMM's names of units: it converts nothing here."""
    openmm = pytest.importorskip("openmm")
    model, x = solution_model(form), solution()
    table, topology = model.table(), model._excluded
    system = openmm.System()
    for _ in SOLUTION:
        system.addParticle(1.0)
    cutoff = table["cutoff_A"]
    alpha = table["damping_per_A"]
    pull = math.erfc(alpha * cutoff) / cutoff**2
    pull += 2 * alpha / math.sqrt(math.pi) * math.exp(-((alpha * cutoff) ** 2)) / cutoff
    coulomb = (
        f"{COULOMB_EV_A}*q1*q2*(erfc({alpha}*r)/r - {math.erfc(alpha * cutoff) / cutoff}"
        f" + {pull}*(r - {cutoff}))"
    )
    names = PARAMETERS.get(form, SAME)
    sized = {k: [v[name] for _, name in names] for k, v in table["van_der_waals"].items()}
    sized["HW"] = [0.0, 1.0, 0.0][: len(names)]  # no energy, and nothing to divide by
    charges = {"OW": (-0.82,), "HW": (0.41,), "O2": (0.0,)}
    for expression, columns, values in (
        (MIXED[form], [short for short, _ in names], sized),
        (coulomb, ["q"], charges),
    ):
        force = openmm.CustomNonbondedForce(expression)
        force.setNonbondedMethod(force.CutoffPeriodic)
        force.setCutoffDistance(cutoff)
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(table["switch_A"])
        for column in columns:
            force.addPerParticleParameter(column)
        for kind in model._types:
            force.addParticle(values[kind])
        for a, b in topology.tolist():
            force.addExclusion(a, b)
        system.addForce(force)
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for force in (bonds, angles):
        force.setUsesPeriodicBoundaryConditions(True)
        system.addForce(force)
    oh, oo = (table["bonds"][key] for key in ("OW-HW", "O2-O2"))
    bend = table["angles"]["HW-OW-HW"]
    for oxygen in range(0, 18, 3):
        first, second = oxygen + 1, oxygen + 2
        for hydrogen in (first, second):
            bonds.addBond(oxygen, hydrogen, oh["bond_length_A"], oh["bond_k_eV_A2"])
        angles.addAngle(first, oxygen, second, bend["angle_rad"], bend["angle_k_eV_rad2"])
    for oxygen in (18, 20):
        bonds.addBond(oxygen, oxygen + 1, oo["bond_length_A"], oo["bond_k_eV_A2"])
    system.setDefaultPeriodicBoxVectors(*SKEW_A.tolist())
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(1.0), platform)
    context.setPositions(x.numpy())
    state = context.getState(getEnergy=True, getForces=True)
    found = model(x, SKEW_A)
    assert found.energy.item() == pytest.approx(state.getPotentialEnergy()._value, rel=1e-9)
    forces = np.array([list(force) for force in state.getForces()._value])
    np.testing.assert_allclose(found.forces, forces, rtol=1e-7, atol=1e-9)


def test_two_waters_have_the_energy_of_spc_fw_by_hand():
    """Both at rest, so that only pairs count, before the switch, and nearly without damping."""
    values = WATER_MODELS["SPC/Fw"]
    half, length = values["angle_rad"] / 2, values["bond_length_A"]
    one = length * torch.tensor(
        [[0, 0, 0], [math.sin(half), math.cos(half), 0], [-math.sin(half), math.cos(half), 0]],
        dtype=torch.float64,
    )
    x = torch.cat((one, one + torch.tensor([0.0, 2.9, 0.3], dtype=torch.float64)))
    table = flexible_water(cutoff_A=200.0, damping_per_A=1e-9)
    distances = torch.cdist(x[:3], x[3:])
    q = torch.tensor([-0.82, 0.41, 0.41], dtype=torch.float64)
    shifted = 1 / distances - 2 / 200.0 + distances / 200.0**2
    expected = 14.399645 * (q[:, None] * q * shifted).sum().item()
    s6 = (3.165492 / distances[0, 0].item()) ** 6
    expected += 4 * 0.1554253 * 4.184 * KJ_MOL_EV * (s6**2 - s6)
    found = MolecularForceField(table, [8, 1, 1] * 2)(x, NO_CELL)
    assert found.energy.item() == pytest.approx(expected, rel=1e-6)


def strained(model, x, cell, strain):
    deform = torch.eye(3, dtype=torch.float64) + strain
    return x @ deform, cell @ deform


def test_silicon_has_the_energy_of_a_sum_over_triples():
    """The formulas of the paper, in its reduced units, for a rattled cluster."""
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=0)
    x = atoms.positions / 2.0951
    distances = np.linalg.norm(x[:, None] - x, axis=-1)
    energy = 0.0
    for i in range(8):
        near = [j for j in range(8) if 0.0 < distances[i, j] < 1.8]
        for j in near:
            r = distances[i, j]
            pair = 7.049556277 * (0.6022245584 / r**4 - 1.0) * math.exp(1.0 / (r - 1.8))
            energy += 0.5 * pair
        for j, k in itertools.combinations(near, 2):
            to_j, to_k = x[j] - x[i], x[k] - x[i]
            cosine = to_j @ to_k / (distances[i, j] * distances[i, k])
            ends = 1.2 / (distances[i, j] - 1.8) + 1.2 / (distances[i, k] - 1.8)
            energy += 21.0 * math.exp(ends) * (cosine + 1.0 / 3.0) ** 2
    found = StillingerWeber(atoms.numbers)(torch.tensor(atoms.positions), NO_CELL)
    assert found.energy.item() == pytest.approx(2.1683 * energy, rel=1e-12)


def test_silicon_has_its_cohesive_energy_and_elastic_constants():
    """Of Stillinger and Weber's silicon at 5.431 Å: −4.3363 eV, 151.4, 76.4 and 56.4 GPa.

    C44 is that of a crystal whose two sublattices are free to shift under the strain.
    """
    atoms = bulk("Si", cubic=True, a=5.431)
    model = StillingerWeber(atoms.numbers)
    x, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
    assert model(x, cell).energy.item() / 8 == pytest.approx(-4.3363, abs=5e-4)

    def stress(strain):
        """GPa, with atoms at rest in the strained cell."""
        deform = torch.eye(3, dtype=torch.float64) + strain

        def energy(flat):
            found = model(torch.tensor(flat).reshape(x.shape), cell @ deform)
            return found.energy.item(), -found.forces.numpy().ravel()

        start = (x @ deform).numpy().ravel()
        rest = minimize(energy, start, jac=True, options={"gtol": 1e-9}).x
        virial = model(torch.tensor(rest).reshape(x.shape), cell @ deform).virial
        return -virial * EV_A3_GPA / torch.linalg.det(cell)

    def constants(*components):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        for a, b in components:
            strain[a, b] = 1.0 / len(components)
        return derivative(lambda t: stress(t * strain), 1e-4)

    stretched, sheared = constants((0, 0)), constants((1, 2), (2, 1))
    assert stretched[0, 0].item() == pytest.approx(151.4, abs=0.2)
    assert stretched[1, 1].item() == pytest.approx(76.4, abs=0.2)
    assert sheared[1, 2].item() == pytest.approx(56.4, abs=0.2)
