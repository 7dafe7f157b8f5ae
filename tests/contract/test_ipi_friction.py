"""<hydrogen_friction> under i-PI against the torch engine with a friction per atom."""

import numpy as np
import pytest
import torch
from analytic import Analytic, Tape
from ipi.utils.depend import dstrip
from ipi.utils.units import Constants, unit_to_internal
from ipi_input import BAROSTAT, FS, LANGEVIN, PILE, advance

from integrators.bath import Bath
from integrators.engine import step
from integrators.levels import TwoLevel
from integrators.splitting import respa_baoab
from integrators.state import initial_state


def hydrogen_friction(per_ps, bath=LANGEVIN):
    return bath + f"<hydrogen_friction units='inverseps'>{per_ps}</hydrogen_friction>"


def test_hydrogen_friction_equals_the_torch_engine_with_a_friction_per_atom(load):
    steps, n, dt, gamma, gamma_H = 10, 4, 2.0, 1.0 / 40.0, 0.5  # 1/fs
    simulation = load(nmts=f"[1, {n}]", timestep_fs=dt, dynamics=hydrogen_friction(1e3 * gamma_H))
    system = simulation.syslist[0]
    x = np.array(dstrip(system.beads.q)).reshape(-1, 3)
    m = np.array(dstrip(system.beads.m))
    v = np.array(dstrip(system.beads.p)).reshape(-1, 3) / m[:, None]
    hydrogen = np.asarray(system.beads.names) == "H"
    rng = np.random.default_rng(7)
    all_atoms = rng.standard_normal((steps * n, 6, 3))
    more = np.zeros_like(all_atoms)
    more[:, hydrogen] = rng.standard_normal((steps * n, hydrogen.sum(), 3))
    tapes = {18: iter(all_atoms), 12: iter(more[:, hydrogen])}
    simulation.prng.gvec = lambda size: next(tapes[size]).flatten()

    q, p = advance(simulation, steps)

    # two steps in a row are one with the sum of frictions and this mixture of noises
    a, b = np.exp(-gamma * dt / n), np.exp(-(gamma_H - gamma) * dt / n)
    mixed = b * np.sqrt(1 - a * a) * all_atoms + np.sqrt(1 - b * b) * more
    noise = np.where(hydrogen[:, None], mixed / np.sqrt(1 - a * a * b * b), all_atoms)
    friction = torch.from_numpy(np.where(hydrogen, gamma_H, gamma) / FS)
    state = initial_state(*map(torch.from_numpy, (x, v, m)))
    levels = TwoLevel(
        Analytic(lambda x: (0.05 * x**2 + 0.005 * x**4).sum((-2, -1))),
        Analytic(lambda x: (0.045 * x**2).sum((-2, -1))),
    )
    kT = Constants.kb * unit_to_internal("temperature", "kelvin", 300.0)
    tape, bath = Tape(torch.from_numpy(noise)), Bath(kT=kT, friction=friction)
    for _ in range(steps):
        state = step(state, levels, respa_baoab(n), timestep=dt * FS, bath=bath, noise=tape)
    np.testing.assert_allclose(q.reshape(-1, 3), state.positions.numpy(), rtol=0, atol=1e-12)
    velocities = p.reshape(-1, 3) / m[:, None]
    np.testing.assert_allclose(velocities, state.velocities.numpy(), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("mode", "bath", "beads"),
    [("nvt", LANGEVIN, 1), ("nvt", PILE, 4), ("npt", LANGEVIN + BAROSTAT, 1)],
)
def test_heat_of_the_hydrogen_friction_is_accounted_for(load, mode, bath, beads):
    dynamics = hydrogen_friction(100, bath)
    simulation = load(mode=mode, dynamics=dynamics, beads=beads, timestep_fs=0.1)
    energies, before = [], simulation.syslist[0].ensemble.eens
    for _ in range(400):
        advance(simulation, 1)
        energies.append(float(simulation.syslist[0].ensemble.econs))
    heat = abs(simulation.syslist[0].ensemble.eens - before)
    assert np.ptp(energies) < 2e-2 * max(heat, 1e-3)


@pytest.mark.parametrize("case", ["less", "nve", "negative", "centroid temperature"])
def test_hydrogen_friction_that_makes_no_sense_is_refused(load, case):
    hot = PILE.replace("</thermostat>", "<pile_centroid_t>0.002</pile_centroid_t></thermostat>")
    options, message = {
        "less": ({"dynamics": hydrogen_friction(10)}, "hydrogens can have more friction"),
        "nve": ({"mode": "nve", "dynamics": hydrogen_friction(10, "")}, "not for nve"),
        "negative": ({"dynamics": hydrogen_friction(-20)}, "hydrogens can have more friction"),
        "centroid temperature": (
            {"dynamics": hydrogen_friction(100, hot), "beads": 2},
            "<pile_centroid_t> gives them another",
        ),
    }[case]
    with pytest.raises(ValueError, match=message):
        load(**options)
