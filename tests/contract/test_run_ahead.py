"""Whole outer steps in a driver with both models, against the torch engine and against i-PI."""

import numpy as np
import pytest
import torch
from analytic import Analytic
from ipi.utils.depend import dstrip
from ipi.utils.units import Constants
from ipi_input import FS, GLE, HELD, LANGEVIN, PILE, advance, forcefield
from zmq_serving import serving

from integrators.bath import Bath
from integrators.engine import conserved_energy, step
from integrators.levels import TwoLevel
from integrators.noise import CounterNoise
from integrators.splitting import respa_baoab
from integrators.state import initial_state
from mts_driver.drivers.counters import Stats
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.drivers.zmq import ipi_pes as zmq_pes
from mts_driver.drivers.zmq.server import Model, Server
from mts_driver.errors import UserError
from mts_driver.units import BOHR_A, HARTREE_EV, HARTREE_PER_BOHR_EV_A

ATOMS, OUTER_FS, N = 6, 2.0, 4
FRICTION = "<hydrogen_friction units='inverseps'>200</hydrogen_friction>"
CLIP = "<force_clip units='ev/ang'>0.2</force_clip>"
BIAS = "<bias><force forcefield='student'/></bias>"
WEIGHTS = (("slow", "[1, 0]"), ("fast", "[-1, 1]"))


def teacher(x):
    return (5.0 * x**2 + 1.1 * x**4).sum((-2, -1))  # eV and Å


def student(x):
    return (4.4 * x**2 + 0.7 * x**4).sum((-2, -1))


@pytest.fixture
def driver(tmp_path):
    """A server of both wells, with its address and the counters of both."""
    models = [
        Model(name, Evaluator(Analytic(well), ATOMS, stats=Stats(name)))
        for name, well in (("ase:teacher", teacher), ("student:well", student))
    ]
    address = f"ipc://{tmp_path}/both"
    with serving(Server(models[0], address, student=models[1])):
        yield address, [model.evaluate.stats for model in models]


@pytest.fixture
def ahead(load, driver):
    """A simulation with <device_steps>."""

    def load_one(steps=5, dynamics=LANGEVIN + FRICTION + CLIP, **options):
        pes = "".join(
            forcefield(name, f"address: {driver[0]}, model: {model}", zmq_pes.__file__)
            for name, model in (("slow", "ase:teacher"), ("fast", "student:well"))
        )
        given = {"fixcom": True, "timestep_fs": OUTER_FS, "verbosity": "low", **options}
        dynamics = f"{dynamics}<device_steps>{steps}</device_steps>"
        return load(extra_ff=pes, weights=WEIGHTS, dynamics=dynamics, **given)

    return load_one


def states(simulation, steps):
    """Positions, momenta, energies and readings behind every outer step."""
    system, found = simulation.syslist[0], []
    for k in range(steps):
        system.motion.step(k)
        found.append(
            (
                np.array(dstrip(system.beads.q)),
                np.array(dstrip(system.beads.p)),
                float(system.ensemble.econs),
                float(system.forces.pot),
                dict(system.motion.integrator.monitor.latest_K),
            )
        )
    return found


def same(a, b, **tolerance):
    for one, other in zip(a, b, strict=True):
        for x, y in zip(one[:4], other[:4], strict=True):
            np.testing.assert_allclose(x, y, **tolerance)
        assert one[4] == pytest.approx(other[4], rel=1e-9)


def test_it_takes_the_steps_of_the_engine(ahead, driver, capfd):
    simulation = ahead(steps=5)
    assert "outer steps are taken in the driver, 5 a message" in capfd.readouterr().out
    system = simulation.syslist[0]
    integrator, prng = system.motion.integrator, simulation.prng
    before = prng.state
    seeds = [int(prng.u * 2**53) for _ in range(12)]
    prng.state = before

    def in_atomic_units(well):
        def potential(x, cell):
            found = Analytic(well)(x * BOHR_A, cell)
            return found._replace(
                energy=found.energy / HARTREE_EV, forces=found.forces / HARTREE_PER_BOHR_EV_A
            )

        return potential

    both = in_atomic_units(teacher), in_atomic_units(student)
    levels = TwoLevel(*both, clip=integrator.force_clip)
    masses = torch.from_numpy(np.array(dstrip(system.beads.m)))
    q, p = (np.array(dstrip(a)).reshape(ATOMS, 3) for a in (system.beads.q, system.beads.p))
    state = initial_state(
        torch.from_numpy(q),
        torch.from_numpy(p) / masses[:, None],
        masses,
        torch.zeros(3, 3).double(),
    )
    friction = torch.full((ATOMS,), 1.0 / (40.0 * FS), dtype=torch.float64)
    friction[integrator.hydrogen_friction.atoms] = integrator.hydrogen_friction.friction
    bath = Bath(kT=Constants.kb * float(system.ensemble.temp), friction=friction)
    found = states(simulation, 12)
    conserved = []
    for seed, (x, momenta, *_) in zip(seeds, found, strict=True):
        noise = CounterNoise(seed)
        state = step(
            state,
            levels,
            respa_baoab(N),
            timestep=OUTER_FS * FS,
            bath=bath,
            noise=lambda _, k, like, noise=noise: noise(0, k, like),
            fixcom=True,
        )
        np.testing.assert_allclose(x.reshape(-1, 3), state.positions, rtol=1e-9, atol=1e-9)
        expected = masses[:, None] * state.velocities
        np.testing.assert_allclose(momenta.reshape(-1, 3), expected, rtol=1e-9, atol=1e-8)
        conserved.append(float(conserved_energy(state)))
    assert integrator.monitor.clip_events == int(state.clip_events) > 0
    assert integrator.monitor.ou_steps == 12 * N
    # three messages of five steps, a fourth that was asked for meanwhile, and the first structure
    ahead_of_ipi = integrator.run_ahead
    ahead_of_ipi._student.finish_run(ahead_of_ipi._begun[0])
    assert [one.structures for one in driver[1]] == [20 + 1, 20 * N + 1]
    # the heat is booked: a bound on forces that is reached lets the energy drift, here and there
    ours = np.array([energy for _, _, energy, *_ in found])
    np.testing.assert_allclose(ours - ours[0], np.array(conserved) - conserved[0], atol=1e-9)
    assert abs(float(state.heat)) > 1e-2


CASES = {
    "nve": {"mode": "nve", "dynamics": ""},
    "beads, nve": {"mode": "nve", "dynamics": "", "beads": 3},
    "constraints, nve": {"mode": "nve", "dynamics": HELD},
}


@pytest.mark.parametrize("case", CASES)
def test_without_a_thermostat_it_takes_the_steps_of_ipi(ahead, case):
    options = CASES[case]
    ours, native = ahead(steps=4, **options), ahead(steps=0, **options)
    same(states(ours, 10), states(native, 10), rtol=1e-9, atol=1e-9)
    ours, native = (s.syslist[0].motion.integrator.monitor for s in (ours, native))
    largest = native.max_force_difference_eV_A
    assert ours.max_force_difference_eV_A == pytest.approx(largest, rel=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"beads": 3, "dynamics": PILE},
        {"dynamics": GLE},
        {"dynamics": LANGEVIN + HELD},
        {"dynamics": GLE + HELD},
    ],
    ids=["beads", "coloured noise", "constraints", "both"],
)
def test_the_number_of_steps_a_message_changes_nothing(ahead, options):
    runs = [states(ahead(steps=k, **options), 7) for k in (1, 3, 7)]
    for run in runs[1:]:
        same(run, runs[0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "dynamics",
    [LANGEVIN + FRICTION + CLIP, GLE, LANGEVIN + HELD, GLE + HELD],
    ids=["white noise", "coloured noise", "constraints", "both"],
)
def test_a_restart_in_the_middle_of_a_message_is_the_uninterrupted_run(ahead, dynamics):
    whole = states(ahead(steps=5, dynamics=dynamics), 9)
    first = ahead(steps=5, dynamics=dynamics)
    states(first, 3)
    # what RESTART keeps: positions, momenta (extra ones too) and random numbers
    second = ahead(steps=5, dynamics=dynamics)
    if dynamics.startswith(GLE):
        before, after = (s.syslist[0].motion.thermostat for s in (first, second))
        after.s[:] = np.array(before.s)
    for name in ("q", "p"):
        beads = [s.syslist[0].beads for s in (first, second)]
        getattr(beads[1], name)[:] = dstrip(getattr(beads[0], name))
    second.prng.state = first.prng.state
    rest = states(second, 6)
    for (q, p, *_), (x, v, *_) in zip(rest, whole[3:], strict=True):
        np.testing.assert_allclose(q, x, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(p, v, rtol=1e-12, atol=1e-12)


def test_what_changes_the_state_in_between_counts(ahead):
    simulation, other = ahead(steps=6), ahead(steps=1)
    states(simulation, 2)
    here, there = (s.syslist[0].beads for s in (simulation, other))
    here.p[:] = -2.0 * dstrip(here.p)  # as an exchange of replicas would
    there.q[:], there.p[:] = np.array(dstrip(here.q)), np.array(dstrip(here.p))
    other.prng.state = simulation.prng.state
    for (q, p, *_), (x, v, *_) in zip(states(simulation, 8), states(other, 8), strict=True):
        np.testing.assert_allclose(q, x, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(p, v, rtol=1e-13, atol=1e-13)


def test_it_stops_running_ahead_where_that_is_in_vain(ahead, driver, capfd):
    simulation = ahead(steps=6)
    for _ in range(5):  # as a second system does, which draws from the same random numbers
        states(simulation, 1)
        float(simulation.prng.u)
    assert "one a message from now on" in capfd.readouterr().out
    # the first message, the one begun meanwhile, the one instead of both, and single steps; the
    # first structure, and the one where the driver has gone on too far to remember it
    assert driver[1][0].structures == 3 * 6 + 3 + 2


def test_steps_before_a_failure_are_taken(ahead, driver):
    """A model that fails in the third step of five lets i-PI see the first two."""
    simulation = ahead(steps=5)
    failing, calls = driver[1][0], []
    count = failing.count

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) > 3:  # the first structure, and two steps
            raise UserError("overlapping atoms")
        count(*arguments)

    failing.count = fail
    states(simulation, 2)
    with pytest.raises(UserError, match="overlapping atoms"):
        states(simulation, 1)


def test_a_ramp_of_the_temperature_counts(ahead):
    ramped, other = ahead(steps=6), ahead(steps=1)
    for simulation in (ramped, other):
        states(simulation, 2)
        simulation.syslist[0].ensemble.temp = 2.0 * simulation.syslist[0].ensemble.temp
    same(states(ramped, 3), states(other, 3), rtol=1e-12, atol=1e-12)


OBSTACLES = {
    "bias": ({"bias": BIAS}, WEIGHTS, "there is a bias"),
    "another driver": ({}, (("teacher", "[1, 0]"), ("fast", "[-1, 1]")), "one ZeroMQ driver"),
    "thermostat": ({"dynamics": LANGEVIN.replace("langevin", "svr")}, WEIGHTS, "not 'langevin'"),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_what_cannot_be_had_is_said(load, driver, case, capfd):
    options, weights, reason = OBSTACLES[case]
    pes = "".join(
        forcefield(name, f"address: {driver[0]}, model: {model}", zmq_pes.__file__)
        for name, model in (("slow", "ase:teacher"), ("fast", "student:well"))
    )
    dynamics = options.get("dynamics", LANGEVIN) + "<device_steps>4</device_steps>"
    given = {**options, "dynamics": dynamics, "verbosity": "low"}
    simulation = load(extra_ff=pes, weights=weights, **given)
    said = capfd.readouterr().out
    assert "outer steps are taken not in a driver, since" in said and reason in said
    assert simulation.syslist[0].motion.integrator.run_ahead is None
    advance(simulation, 2)


def test_a_negative_number_of_steps_is_refused(ahead):
    with pytest.raises(ValueError, match="<device_steps> is -1"):
        ahead(steps=-1)
