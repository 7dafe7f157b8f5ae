"""Whole outer steps whose atoms several ranks move are those of one process."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read
from test_student import random_model
from thread_ranks import on_ranks

from integrators.constraints import Constraints, Distances
from mts_driver.drivers.counters import Stats
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.propagator import Propagator
from mts_driver.drivers.steps_on_ranks import OwnSteps, held_of
from mts_driver.potentials import load_potential
from mts_driver.potentials.student.potential import Student
from mts_driver.potentials.student.shared import SharedStudent
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.units import BOHR_A

WATER64 = Path(__file__).parents[2] / "inputs" / "water64" / "start.extxyz"
DALTON, FS = 1822.888486, 41.341374575751
PACKAGED = ("student:general", "student:water")
RANDOM = (random_model(), random_model())  # once: threads would draw from one generator
for model, scale in zip(RANDOM, (0.03, 0.02), strict=True):
    model.w3.data *= scale


def both(kind, atoms, ranks=None):
    """Teacher and student: packaged ones, or small ones of random weights, of known kernels."""
    numbers = atoms.numbers.tolist()
    if kind != "random":
        specs = [f"{spec}?backend={kind}" for spec in PACKAGED] if ranks else PACKAGED
        return [load_potential(spec, numbers, dtype="float64", ranks=ranks) for spec in specs]
    if ranks is None:
        return [Student(model, numbers, dtype="float64") for model in RANDOM]
    return [SharedStudent(model, numbers, ranks) for model in RANDOM]


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


def alone(atoms, arrays, steps, fixcom, kind="random"):
    teacher, student = (
        Evaluator(potential, len(atoms), stats=Stats("")) for potential in both(kind, atoms)
    )
    return Propagator(student, teacher, natoms=len(atoms)).run(
        arrays, **options(steps, fixcom=fixcom)
    )


def own_steps(ranks, atoms, kind="random"):
    return OwnSteps(*both(kind, atoms, ranks), ranks, periodic=True)


def assert_ranks_take(wanted, atoms, arrays, size, *, fixcom, kind="random", rtol=1e-9):
    """All that several ranks have behind four steps is what one process has."""

    def work(ranks):
        steps = own_steps(ranks, atoms, kind)
        steps.share_out(arrays["q"], arrays["cell"], held_of(arrays))
        return steps.run(arrays, options(4, fixcom=fixcom))

    for found in on_ranks(size, work):
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=rtol, atol=1e-9, err_msg=name)


def coloured_noise(atoms, rng):
    """A drift matrix, and extra momenta of 300 K."""
    extra = rng.normal(size=(1, 1, len(atoms), 3)) * 9.5e-4**0.5
    return {"drift": np.array([[51.0, 110.0], [110.0, 280.0]]) / (1000 * FS), "extra": extra}


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize(
    "kind",
    ["random", *(pytest.param(backend, marks=pytest.mark.slow) for backend in ("cpu", "device"))],
)
@pytest.mark.parametrize(
    ("beads", "thermostat", "fixcom"),
    [(1, True, True), (1, True, False), (1, False, True), (3, True, True)],
)
def test_steps_of_ranks_are_those_of_one_process(size, kind, beads, thermostat, fixcom):
    """Positions, momenta, forces of both models, energies, heat and kinetic energies."""
    atoms, arrays = request(beads=beads, thermostat=thermostat)
    wanted = alone(atoms, arrays, 4, fixcom, kind)
    assert_ranks_take(wanted, atoms, arrays, size, fixcom=fixcom, kind=kind)


@pytest.mark.parametrize("fixcom", [False, True])
def test_coloured_noise_is_that_of_one_process(fixcom):
    """Every rank has the extra momenta and the noise of its own atoms."""
    atoms, arrays = request(thermostat=False)
    arrays |= coloured_noise(atoms, np.random.default_rng(4))
    wanted = alone(atoms, arrays, 4, fixcom)
    assert np.abs(wanted["extra"][-1] - arrays["extra"]).max() > 1e-3
    assert_ranks_take(wanted, atoms, arrays, 3, fixcom=fixcom)


@pytest.mark.parametrize("rigid", [False, True])
@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("size", [3, 50])
def test_distances_that_are_held_are_those_of_one_process(rigid, coloured, size):
    """Molecules across the border of the cell too, and ranks with one molecule or two."""
    atoms, arrays = request(thermostat=False)
    oxygen = np.flatnonzero(atoms.numbers == 8)
    pairs = [(o, o + k) for o in oxygen for k in (1, 2)]
    pairs += [(o + 1, o + 2) for o in oxygen] if rigid else []
    held, lengths = np.array(pairs), np.array([0.98] * 128 + [1.57] * 64)[: len(pairs)] / BOHR_A
    x = torch.from_numpy(arrays["q"][0])
    masses = torch.from_numpy(arrays["masses"])
    made = Constraints.of(Distances(held, lengths), arrays["masses"], x.numpy(), arrays["cell"])
    x = made.onto(x, masses)
    p = torch.from_numpy(arrays["p"][0])
    p = made.tangent(x, p / masses[:, None], masses) * masses[:, None]
    # as far as i-PI may hand them over: wrapped, atom by atom
    wrapped = x.numpy() - np.floor(x.numpy() @ np.linalg.inv(arrays["cell"])) @ arrays["cell"]
    arrays |= {"q": wrapped[None], "p": p.numpy()[None], "held": 1.0 * held, "lengths": lengths}
    if coloured:
        arrays |= coloured_noise(atoms, np.random.default_rng(5))
    else:
        arrays["friction"] = np.full((1, len(atoms)), 1 / (1000 * FS))
    wanted = alone(atoms, arrays, 4, True)
    apart = wanted["q"][-1, 0][held[:, 0]] - wanted["q"][-1, 0][held[:, 1]]
    apart -= np.rint(apart @ np.linalg.inv(arrays["cell"])) @ arrays["cell"]
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), lengths, rtol=1e-10)
    assert_ranks_take(wanted, atoms, arrays, size, fixcom=True, rtol=1e-8)


def test_atoms_leave_their_bricks():
    """For as long as lists have to be built anew, and atoms cross borders that stay theirs."""
    atoms, arrays = request()
    arrays["p"] += 3 * arrays["masses"][:, None] * np.array([1.0, 0.5, 0.2]) * 2e-3
    wanted = alone(atoms, arrays, 30, False)

    def work(ranks):
        steps = own_steps(ranks, atoms)
        steps.share_out(arrays["q"], arrays["cell"], held_of(arrays))
        return steps.run(arrays, options(30, fixcom=False))

    assert np.abs(wanted["q"][-1] - arrays["q"]).max() * BOHR_A > 3.0
    for found in on_ranks(4, work):
        np.testing.assert_allclose(found["q"], wanted["q"], atol=1e-6)


def test_a_request_goes_on_where_the_last_one_ended_without_a_new_call():
    atoms, arrays = request()
    wanted = alone(atoms, arrays, 4, True)

    def work(ranks):
        steps = own_steps(ranks, atoms)
        steps.share_out(arrays["q"], arrays["cell"], held_of(arrays))
        first = steps.run(arrays, options(2, fixcom=True))
        on = {**arrays, "q": first["q"][-1], "p": first["p"][-1]}
        second = steps.run(on, options(2, fixcom=True, first=2))
        return second, [one.calls for one in steps.evaluators]

    for found, calls in on_ranks(2, work):
        np.testing.assert_allclose(found["q"], wanted["q"][2:], rtol=1e-9)
        assert calls == [1 + 4, 1 + 4 * 3]
