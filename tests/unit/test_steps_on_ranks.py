"""Whole outer steps whose atoms several ranks move are those of one process."""

from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from thread_ranks import on_ranks

from mts_driver.drivers.counters import Stats
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.propagator import Propagator
from mts_driver.drivers.steps_on_ranks import OwnSteps
from mts_driver.potentials import load_potential
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.units import BOHR_A

WATER64 = Path(__file__).parents[2] / "inputs" / "water64" / "start.extxyz"
DALTON, FS = 1822.888486, 41.341374575751
BOTH = ("student:general", "student:water")


def request(*, beads=1, thermostat=True):
    """64 waters at 300 K, atomic units, with momenta that do not add up to zero."""
    atoms, rng = read(WATER64), np.random.default_rng(3)
    masses = DALTON * repartitioned_masses(atoms, 4.0)
    shape = (beads, len(atoms), 3)
    q = atoms.positions / BOHR_A + 0.05 * rng.normal(size=shape) * (beads > 1)
    hydrogen = atoms.numbers == 1
    modes = np.linalg.qr(np.c_[np.ones(beads), rng.normal(size=(beads, beads - 1))])[0].T
    friction = np.where(hydrogen, 20.0, 1.0) / (1000 * FS) * np.ones((beads, 1))
    return atoms, {
        "q": q,
        "p": np.sqrt(masses * 9.5e-4)[:, None] * rng.normal(size=shape),
        "masses": masses,
        "cell": atoms.cell.array / BOHR_A,
        "friction": friction if thermostat else np.zeros(0),
        "groups": np.array([hydrogen, ~hydrogen]),
        "modes": modes if beads > 1 else np.zeros(0),
        "omega": 1e-3 * np.arange(beads) if beads > 1 else np.zeros(0),
    }


def options(steps, *, fixcom, first=0):
    seeds = list(range(first, first + steps))
    return {
        "seeds": seeds,
        "n": 3,
        "timestep": 4 * FS,
        "kT": 9.5e-4,
        "fixcom": fixcom,
        "clip": 2e-3,
    }


def alone(atoms, arrays, steps, fixcom):
    numbers = atoms.numbers.tolist()
    teacher, student = (
        Evaluator(load_potential(spec, numbers, dtype="float64"), len(atoms), stats=Stats(spec))
        for spec in BOTH
    )
    return Propagator(student, teacher, natoms=len(atoms)).run(
        arrays, **options(steps, fixcom=fixcom)
    )


def own_steps(ranks, atoms):
    both = [
        load_potential(spec, atoms.numbers.tolist(), dtype="float64", ranks=ranks) for spec in BOTH
    ]
    return OwnSteps(*both, ranks, periodic=True)


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize(
    ("beads", "thermostat", "fixcom"),
    [
        (1, True, True),
        pytest.param(1, True, False, marks=pytest.mark.slow),
        pytest.param(1, False, True, marks=pytest.mark.slow),
        pytest.param(3, True, True, marks=pytest.mark.slow),
    ],
)
def test_steps_of_ranks_are_those_of_one_process(size, beads, thermostat, fixcom):
    """Positions, momenta, forces of both models, energies, heat and kinetic energies."""
    atoms, arrays = request(beads=beads, thermostat=thermostat)
    wanted = alone(atoms, arrays, 4, fixcom)

    def work(ranks):
        steps = own_steps(ranks, atoms)
        steps.share_out(arrays["q"], arrays["cell"])
        return steps.run(arrays, options(4, fixcom=fixcom))

    for found in on_ranks(size, work):
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.slow
def test_atoms_leave_their_bricks():
    """For as long as lists have to be built anew, and atoms cross borders that stay theirs."""
    atoms, arrays = request()
    arrays["p"] += 3 * arrays["masses"][:, None] * np.array([1.0, 0.5, 0.2]) * 2e-3
    wanted = alone(atoms, arrays, 30, False)

    def work(ranks):
        steps = own_steps(ranks, atoms)
        steps.share_out(arrays["q"], arrays["cell"])
        return steps.run(arrays, options(30, fixcom=False))

    assert np.abs(wanted["q"][-1] - arrays["q"]).max() * BOHR_A > 3.0
    for found in on_ranks(4, work):
        np.testing.assert_allclose(found["q"], wanted["q"], atol=1e-6)


def test_a_request_goes_on_where_the_last_one_ended_without_a_new_call():
    atoms, arrays = request()
    wanted = alone(atoms, arrays, 4, True)

    def work(ranks):
        steps = own_steps(ranks, atoms)
        steps.share_out(arrays["q"], arrays["cell"])
        first = steps.run(arrays, options(2, fixcom=True))
        on = {**arrays, "q": first["q"][-1], "p": first["p"][-1]}
        second = steps.run(on, options(2, fixcom=True, first=2))
        return second, [one.calls for one in steps.evaluators]

    for found, calls in on_ranks(2, work):
        np.testing.assert_allclose(found["q"], wanted["q"][2:], rtol=1e-9)
        assert calls == [1 + 4, 1 + 4 * 3]
