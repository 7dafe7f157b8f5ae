"""Multiple time steps as one of ASE's dynamics."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength, FixInternals
from ase.io import Trajectory, read
from running import toy_water
from toy_calculators import NoForces, ToyWater

from integrators.bath import Bath
from integrators.engine import step
from integrators.levels import TwoLevel
from integrators.noise import CounterNoise
from integrators.splitting import OU, respa_baoab
from integrators.state import initial_state
from integrators.thermometer import Thermometer
from mts_driver import load_potential, simulate
from mts_driver.errors import UserError
from mts_driver.interfaces.ase import PotentialCalculator, RespaBAOAB
from mts_driver.potentials.ase import AsePotential
from mts_driver.simulation.simulate.random_numbers import RandomNumbers

ROOT = Path(__file__).parents[2]
FS = units.fs


def thermal(atoms, temperature_K, seed):
    """Draw velocities; ASE's own function has another name in every second version."""
    normal = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature_K)
    atoms.set_momenta(normal * spread[:, None])


def start(**options):
    atoms = toy_water(**options)
    thermal(atoms, 300, 5)
    atoms.calc = ToyWater()
    return atoms


def dynamics(atoms, **choices):
    options = {"timestep": 4 * FS, "inner_steps": 4, "student": ToyWater(scale=1.02)}
    options |= {"temperature_K": 300, "friction": 1 / (1000 * FS), "rng": np.random.default_rng(1)}
    return RespaBAOAB(atoms, **options | choices)


@pytest.mark.parametrize(
    ("held", "fixcom", "scale"),
    [((), True, 1.02), ((), False, 1.02), ((0, 4, 5), True, 1.02), ((), True, 4.0)],
)
def test_it_takes_the_steps_of_the_engine_on_the_same_noise(held, fixcom, scale):
    atoms = start()
    atoms.set_constraint(FixAtoms(held) if held else None)
    atoms.set_momenta(atoms.get_momenta())  # those of held atoms become zero
    friction = np.linspace(0.001, 0.05, len(atoms)) / FS
    masses = torch.tensor(atoms.get_masses())
    masses[list(held)] = torch.inf
    state = initial_state(
        torch.tensor(atoms.positions),
        torch.tensor(atoms.get_velocities()),
        masses,
        torch.tensor(atoms.cell.array),
    )
    dyn = dynamics(atoms, friction=friction, fixcom=fixcom, student=ToyWater(scale=scale))
    rng = np.random.default_rng(1)
    levels = TwoLevel(*(AsePotential(ToyWater(s), atoms.numbers) for s in (1.0, scale)))
    hydrogen, moves = torch.tensor(atoms.numbers == 1), masses.isfinite()
    thermometer = Thermometer({"H": hydrogen, "heavy": ~hydrogen}, moves)
    steps = 10 if scale < 2 else 3  # what is clipped all the time is soon chaos
    for _ in range(steps):
        drawn = iter(torch.tensor(rng.standard_normal((4, len(atoms), 3))))
        state = step(
            state,
            levels,
            respa_baoab(4),
            timestep=4 * FS,
            bath=Bath(kT=units.kB * 300, friction=torch.tensor(friction)),
            noise=lambda *_, drawn=drawn: next(drawn),
            on_op=thermometer,
            fixcom=fixcom and not held,
        )
    dyn.run(steps)
    for ours, theirs in (
        (atoms.positions, state.positions),
        (atoms.get_velocities(), state.velocities),
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-11)
    assert dyn.clip_events == int(state.clip_events)
    assert (dyn.clip_events > 0) == (scale > 2)  # the bound is tested too
    assert dyn.max_force_difference_eV_A == pytest.approx(float(state.max_force_difference))
    if held or not fixcom:  # else the engine's thermometer counts the centre of mass
        assert dyn.temperatures_K == pytest.approx(thermometer.temperatures_K)


class SeedBySeed:
    """Noise of `simulate`, an outer step at a time."""

    def __init__(self, seed, natoms, inner_steps):
        self._random = RandomNumbers(seed)
        self._random.velocities(np.ones(natoms), 1.0)
        self._places = [k for k, op in enumerate(respa_baoab(inner_steps)) if isinstance(op, OU)]

    def standard_normal(self, size):
        noise = CounterNoise(self._random.seed())
        like = torch.empty(size[1:], dtype=torch.float64)
        return np.stack([noise(0, k, like).numpy() for k in self._places])


def test_it_takes_the_steps_of_simulate(tmp_path):
    """And `simulate` those of `mts run`, so that all three have one trajectory."""
    models = {"teacher": ToyWater(), "student": ToyWater(scale=1.02)}
    options = {"outer_fs": 4.0, "hydrogen_friction_per_ps": 5.0, "seed": 7, "progress": False}
    file = tmp_path / "t.extxyz"
    found = simulate(toy_water(), steps=12, trajectory=file, **models, **options)
    atoms = read(file, 0)
    atoms.calc = ToyWater()
    friction = np.where(atoms.numbers == 1, 5.0, 1.0) / (1000 * FS)
    dyn = dynamics(atoms, friction=friction, rng=SeedBySeed(7, len(atoms), 4))
    dyn.run(12)
    # the file has eight digits
    np.testing.assert_allclose(atoms.positions, found.atoms.positions, rtol=0, atol=1e-5)
    assert dyn.temperatures_K == pytest.approx(found.temperatures_K, rel=1e-4)


def test_loggers_trajectories_and_observers_are_those_of_ase(tmp_path):
    atoms, log, seen = start(), io.StringIO(), []
    file = tmp_path / "t.traj"
    dyn = dynamics(atoms, trajectory=str(file), logfile=log, loginterval=2)
    dyn.attach(lambda: seen.append(atoms.get_potential_energy()), interval=3)
    dyn.run(6)
    assert atoms.calc.calls == 7  # one a step: whoever asks at its end gets what is known
    assert len(log.getvalue().splitlines()) == 1 + 4 and len(seen) == 3
    frames = Trajectory(file)
    assert len(frames) == 4
    np.testing.assert_array_equal(frames[-1].positions, atoms.positions)
    np.testing.assert_array_equal(frames[-1].get_forces(), atoms.get_forces())
    assert frames.description["inner_steps"] == 4
    assert dyn.get_time() == pytest.approx(24 * FS)


def test_what_is_done_to_the_atoms_between_two_steps_counts():
    """Velocities that are drawn again, and atoms that are held from now on."""
    atoms = start()
    dyn = dynamics(atoms)
    dyn.run(2)
    atoms.set_constraint(FixAtoms([3]))
    atoms.set_momenta(np.zeros((len(atoms), 3)))
    before = atoms.positions.copy()
    dyn.run(1)
    moved = np.abs(atoms.positions - before).max(axis=1)
    assert moved[3] == 0 and np.delete(moved, 3).max() > 0
    assert np.delete(moved, 3).max() < 0.05  # not as far as with the velocities from before


def test_constant_energy_without_friction():
    atoms, energies = start(), []
    atoms.set_momenta(atoms.get_momenta() - atoms.get_momenta().mean(axis=0))
    dyn = dynamics(atoms, friction=0.0, timestep=1 * FS, inner_steps=2, fixcom=False)
    dyn.attach(lambda: energies.append(atoms.get_total_energy()))
    dyn.run(60)
    assert np.ptp(energies) < 0.01 * atoms.get_kinetic_energy()


def test_argon_keeps_its_temperature():
    rng = np.random.default_rng(2)
    grid = np.array(list(np.ndindex(3, 3, 3))) * 3.8
    atoms = Atoms("Ar27", grid + rng.normal(scale=0.05, size=(27, 3)), cell=[11.4] * 3, pbc=True)
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0103, rc=5.0)
    thermal(atoms, 90, 3)
    dyn = dynamics(
        atoms,
        timestep=12 * FS,
        inner_steps=2,
        student=LennardJones(sigma=3.38, epsilon=0.0103, rc=5.0),
        temperature_K=90,
        friction=1 / (50 * FS),
    )
    dyn.run(150)
    # 1.8 ps of 78 degrees of freedom and 20/ps exchange 36 energies each
    assert abs(dyn.temperatures_K["all"] - 90) < 4 * 90 * np.sqrt(2 / (78 * 36))


def test_hydrogens_become_heavy_and_no_atom_is_heated():
    atoms = start()
    kinetic = np.square(atoms.get_momenta()).sum(1) / atoms.get_masses()
    total = atoms.get_masses().sum()
    dynamics(atoms, hydrogen_mass_Da=4)
    assert (atoms.get_masses()[atoms.numbers == 1] == 4).all()
    assert atoms.get_masses().sum() == pytest.approx(total)
    np.testing.assert_allclose(np.square(atoms.get_momenta()).sum(1) / atoms.get_masses(), kinetic)


def test_a_teacher_that_fails_leaves_the_atoms_as_they_were():
    atoms = start()
    dyn = dynamics(atoms)
    dyn.run(2)
    before, atoms.calc = atoms.positions.copy(), ToyWater(nan_after=1)
    with pytest.raises(UserError, match="not finite"):
        dyn.run(3)
    assert np.isfinite(atoms.positions).all()
    assert np.abs(atoms.positions - before).max() < 0.5


@pytest.mark.parametrize(
    ("change", "choice", "named"),
    [
        ({"calc": None}, {}, "atoms.calc is None"),
        ({"calc": NoForces()}, {}, "gives no forces"),
        ({"constraints": [FixBondLength(0, 1)]}, {}, "FixBondLength"),
        ({"constraints": [FixInternals(bonds=[(0.96, [0, 1])])]}, {}, "FixInternals"),
        ({"pbc": (True, True, False)}, {}, "periodic along"),
        ({}, {"inner_steps": 0}, "inner_steps=0"),
        ({}, {"timestep": -1.0}, "timestep=-1.0"),
        ({}, {"temperature_K": 0}, "temperature_K=0"),
        ({}, {"friction": -0.1}, "friction=-0.1"),
        ({}, {"student": "none"}, "student='none'"),
        ({}, {"student": "nobody"}, "nobody"),
        ({}, {"student": ToyWater}, "student="),
        ({}, {"hydrogen_mass_Da": 12.0}, "hydrogen_mass_Da=12"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_its_parameter(change, choice, named):
    atoms = start()
    for name, value in change.items():
        atoms.set_constraint(value) if name == "constraints" else setattr(atoms, name, value)
    before = atoms.get_masses(), atoms.get_momenta()
    with pytest.raises(UserError) as refused:
        dynamics(atoms, **choice)
    assert named in str(refused.value)
    assert np.array_equal(before[0], atoms.get_masses())
    assert np.array_equal(before[1], atoms.get_momenta())


def test_water_in_three_lines(tmp_path):
    """The shipped student beside a calculator of the shipped general one, as in the example."""
    atoms = read(ROOT / "inputs/water64/start.extxyz")
    atoms.calc = PotentialCalculator(load_potential("student:general", atoms.numbers))
    thermal(atoms, 300, 1)
    dyn = RespaBAOAB(
        atoms,
        timestep=6 * units.fs,
        inner_steps=6,
        student="water",
        temperature_K=300,
        friction=1 / (1000 * units.fs),
        rng=np.random.default_rng(1),
    )
    dyn.run(30)
    assert dyn.clip_events == 0 and dyn.max_force_difference_eV_A < 1.5
    # of 573 degrees of freedom, and of what a friction of 1/ps exchanges in 0.18 ps
    assert abs(dyn.temperatures_K["all"] - 300) < 4 * 300 * np.sqrt(2 / 573)
