"""The plugin against i-PI's own integrators, Algorithm 1 and the torch engine."""

import numpy as np
import pytest
import torch
from algorithm1 import algorithm1
from analytic import Analytic, Tape
from ipi.engine import barostats
from ipi.inputs.motion import motion as motion_input
from ipi.utils.depend import dstrip
from ipi.utils.units import Constants, unit_to_internal
from ipi_input import (
    BAROSTAT,
    FS,
    GLE,
    LANGEVIN,
    NM_GLE,
    ONE_LEVEL,
    PILE,
    REFERENCE_CELL,
    advance,
)

from integrators.bath import Bath
from integrators.engine import step
from integrators.ipi import plugin as ipi_plugin
from integrators.levels import TwoLevel
from integrators.splitting import respa_baoab
from integrators.state import initial_state

EV_ANG = unit_to_internal("force", "ev/ang", 1.0)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_plugin_equals_algorithm_1_and_the_torch_engine_on_the_same_noise(load, n):
    steps, dt, tau = 12, 2.0, 40.0
    simulation = load(nmts=f"[1, {n}]", timestep_fs=dt)
    system = simulation.syslist[0]
    x = np.array(dstrip(system.beads.q)).reshape(-1, 3)
    m = np.array(dstrip(system.beads.m))
    v = np.array(dstrip(system.beads.p)).reshape(-1, 3) / m[:, None]
    rng = np.random.default_rng(7)
    noise = rng.standard_normal((steps * n, 6, 3))
    tape = iter(noise)
    simulation.prng.gvec = lambda size: next(tape).flatten()
    kT = Constants.kb * unit_to_internal("temperature", "kelvin", 300.0)
    gamma = 1.0 / (tau * FS)

    q, p = advance(simulation, steps)

    literal = algorithm1(
        x,
        v,
        m,
        lambda x: -0.10 * x - 0.02 * x**3,
        lambda x: -0.09 * x,
        dt=dt * FS,
        n=n,
        gamma=gamma,
        kT=kT,
        steps=steps,
        noise=iter(noise),
    )
    np.testing.assert_allclose(q.reshape(-1, 3), literal[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(p.reshape(-1, 3) / m[:, None], literal[1], rtol=0, atol=1e-14)

    state = initial_state(*map(torch.from_numpy, (x, v, m)))
    levels = TwoLevel(
        Analytic(lambda x: (0.05 * x**2 + 0.005 * x**4).sum((-2, -1))),
        Analytic(lambda x: (0.045 * x**2).sum((-2, -1))),
    )
    torch_tape, bath = Tape(torch.from_numpy(noise)), Bath(kT=kT, friction=gamma)
    for _ in range(steps):
        state = step(state, levels, respa_baoab(n), timestep=dt * FS, bath=bath, noise=torch_tape)
    np.testing.assert_allclose(state.positions.numpy(), literal[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(state.velocities.numpy(), literal[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "nve"},
        {"mode": "nvt"},
        {"mode": "nvt", "fixcom": True},
        {"mode": "nvt", "beads": 4, "dynamics": PILE, "fixcom": True},
        {"mode": "nvt", "dynamics": GLE, "fixcom": True},
        {"mode": "nvt", "dynamics": NM_GLE, "beads": 4, "fixcom": True},
        {"mode": "npt", "dynamics": LANGEVIN + BAROSTAT},
        {"mode": "npt", "dynamics": PILE + BAROSTAT, "beads": 4},
        {"mode": "npt", "dynamics": LANGEVIN + BAROSTAT.replace("isotropic", "flexible")},
        {"mode": "npt", "dynamics": LANGEVIN + REFERENCE_CELL},
        {"mode": "nst", "dynamics": LANGEVIN + REFERENCE_CELL},
    ],
    ids=[
        "nve",
        "nvt",
        "fixcom",
        "pimd",
        "gle",
        "nm_gle",
        "npt",
        "npt-pimd",
        "flexible",
        "anisotropic",
        "nst",
    ],
)
@pytest.mark.parametrize(
    "levels", [{"nmts": "[1]", "weights": ONE_LEVEL}, {"nmts": "[1, 1]"}], ids=["[1]", "[1,1]"]
)
def test_one_inner_step_is_bitwise_native_baoab(load, options, levels):
    options = options | levels
    native, ours = load(splitting="baoab", **options), load(splitting="respa-baoab", **options)
    for _ in range(3):
        for found, expected in zip(advance(ours, 7), advance(native, 7), strict=True):
            assert np.array_equal(found, expected)
        assert ours.syslist[0].ensemble.econs == native.syslist[0].ensemble.econs
        assert np.array_equal(dstrip(ours.syslist[0].cell.h), dstrip(native.syslist[0].cell.h))
    kinds = [type(sim.syslist[0].motion.integrator).__name__ for sim in (native, ours)]
    assert kinds[1] == "Respa" + kinds[0]


def test_two_levels_conserve_energy_to_second_order(load):
    spreads = [spread(load(mode="nve", dynamics="", timestep_fs=dt), dt)[0] for dt in (0.4, 0.2)]
    assert 3.6 < spreads[0] / spreads[1] < 4.4


@pytest.mark.parametrize(
    ("mode", "dynamics", "beads"),
    [("nvt", LANGEVIN, 1), ("nvt", PILE, 4), ("npt", LANGEVIN + BAROSTAT, 1)],
)
def test_heat_is_accounted_for(load, mode, dynamics, beads):
    # not to second order: the slow force does work on velocities that the thermostat changes
    # between two of its kicks
    simulation = load(mode=mode, dynamics=dynamics, beads=beads, timestep_fs=0.2)
    energy, heat = spread(simulation, 0.2)
    assert energy < 2e-3 * heat


def spread(simulation, dt):
    """Range of the conserved energy, and of the heat, over 60 fs."""
    energies, heats = [], []
    for _ in range(int(60 / dt)):
        advance(simulation, 1)
        energies.append(float(simulation.syslist[0].ensemble.econs))
        heats.append(float(simulation.syslist[0].motion.thermostat.ethermo))
    return np.ptp(energies), np.ptp(heats)


def test_teacher_once_and_student_n_times_per_outer_step(load):
    simulation = load(nmts="[1, 6]")
    advance(simulation, 10)
    assert simulation.fflist["teacher"].driver.calls == 10 + 1
    assert simulation.fflist["student"].driver.calls == 60 + 1


def test_equal_teacher_and_student_is_single_stepping(load):
    same = {"teacher": "k: 0.1", "student": "k: 0.1"}
    respa = load(nmts="[1, 4]", timestep_fs=2.0, **same)
    single = load(nmts="[1]", weights=ONE_LEVEL, splitting="baoab", timestep_fs=0.5, **same)
    for found, expected in zip(advance(respa, 10), advance(single, 40), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_fixed_atoms_stay_even_when_clipped(load):
    clip = "<force_clip units='ev/ang'>0.001</force_clip>"
    simulation = load(dynamics=LANGEVIN + clip, fixatoms="<fixatoms>[1]</fixatoms>")
    before = np.array(dstrip(simulation.syslist[0].beads.q))[0, 3:6]
    after, momenta = advance(simulation, 5)
    assert np.array_equal(after[0, 3:6], before)
    assert not momenta[0, 3:6].any()


def test_clip_bounds_the_slow_force_of_each_atom_and_counts(load):
    clip = "<force_clip units='ev/ang'>0.5</force_clip>"
    simulation = load(mode="nve", dynamics=clip, student="k: 0.0, q: 0.0", timestep_fs=1e-3)
    system = simulation.syslist[0]
    q, p = (np.array(dstrip(a)) for a in (system.beads.q, system.beads.p))
    slow = (-0.10 * q - 0.02 * q**3).reshape(-1, 3)
    norms = np.linalg.norm(slow, axis=1)
    bounded = slow * np.minimum(1.0, 0.5 * EV_ANG / norms)[:, None]
    assert (norms > 0.5 * EV_ANG).sum() > 0

    _, momenta = advance(simulation, 1)

    kick = (momenta - p).reshape(-1, 3) / (1e-3 * FS)
    np.testing.assert_allclose(kick, bounded, rtol=1e-3)
    (monitor,) = ipi_plugin.monitors(simulation)
    n_clipped = int((norms > 0.5 * EV_ANG).sum())
    assert monitor.clip_events == 2 * n_clipped  # at the start and at the end of the step
    assert monitor.max_force_difference_eV_A == pytest.approx(norms.max() / EV_ANG, rel=1e-3)
    advance(simulation, 3)
    assert monitor.clip_events == 5 * n_clipped
    assert monitor.temperatures_K == {}  # nve has no thermostat


@pytest.mark.parametrize("clip", ["", "<force_clip>0</force_clip>"])
def test_default_clip_is_150_kcal_per_mol_per_angstrom_and_zero_is_none(load, clip):
    simulation = load(dynamics=LANGEVIN + clip, teacher="k: 1.0", timestep_fs=1e-3)
    advance(simulation, 1)
    (monitor,) = ipi_plugin.monitors(simulation)
    assert monitor.max_force_difference_eV_A > 6.5046
    assert (monitor.clip_events == 0) == bool(clip)
    default = simulation.syslist[0].motion.force_clip
    assert default == pytest.approx(0.0 if clip else 6.5046 * EV_ANG)


@pytest.mark.parametrize(
    ("beads", "dynamics", "fixcom"), [(1, LANGEVIN, False), (1, LANGEVIN, True), (4, PILE, True)]
)
def test_monitor_reads_unbiased_temperatures_of_groups(load, beads, dynamics, fixcom):
    fast_bath = dynamics.replace(">40<", ">2<")
    simulation = load(
        beads=beads, dynamics=fast_bath, fixcom=fixcom, nmts="[1, 6]", timestep_fs=3.0
    )
    (monitor,) = ipi_plugin.monitors(simulation)
    advance(simulation, 10)
    monitor.reset()
    readings = []
    for _ in range(250):
        advance(simulation, 1)
        readings.append([monitor.latest_K[name] for name in ("all", "H", "heavy")])
    assert monitor.ou_steps == 1500
    mean, error = np.mean(readings, axis=0), np.std(readings, axis=0) / np.sqrt(len(readings))
    assert np.all(np.abs(mean - 300) < 4 * error)
    assert set(monitor.temperatures_K) == {"all", "H", "heavy"}
    assert monitor.temperatures_K["all"] == pytest.approx(300, abs=4 * error[0])


BAD_INPUTS = {
    "level count": ({"nmts": "[1]"}, r"<nmts> \[1\] has 1 level\(s\).* have 2.*\[-1, 1\]"),
    "one force level": ({"weights": ONE_LEVEL}, r"<nmts> \[1, 4\] has 2 level\(s\).* have 1"),
    "four levels": ({"nmts": "[1, 2, 2, 2]"}, r"<nmts> .* has 4 level"),
    "no inner step": ({"nmts": "[1, 0]"}, r"<nmts> is \[1, 0\]"),
    "outer count of one level": (
        {"nmts": "[6]", "weights": ONE_LEVEL},
        r"<nmts> is \[6\]",
    ),
    "swapped": (
        {"weights": (("teacher", "[0, 1]"), ("student", "[1, -1]"))},
        r"teacher: \[0.0, 1.0\].*student: \[1.0, -1.0\].*needs <mts_weights> \[1, 0\]",
    ),
    "plain sum": (
        {"weights": (("teacher", "[1, 0]"), ("student", "[0, 1]"))},
        r"add up to \[1.0, 1.0\].*\[-1, 1\]",
    ),
    "no student": ({"weights": (("teacher", "[1, 0]"),)}, r"add up to \[1.0, 0.0\]"),
    "clip": ({"dynamics": LANGEVIN + "<force_clip>-1</force_clip>"}, "<force_clip> is -1.0"),
    "suzuki-chin": ({"mode": "sc"}, "mode='sc'.*works with nve, nvt, npt, nst"),
    "suzuki-chin npt": ({"mode": "scnpt"}, "mode='scnpt'"),
    "centroid": ({"mode": "nvt-cc"}, "mode='nvt-cc'"),
    "stochastic rescaling": (
        {
            "mode": "npt",
            "dynamics": LANGEVIN
            + "<barostat mode='stochastic-rescaling'><tau units='femtosecond'>200</tau>"
            "<compressibility units='bar^-1'>4.5e-5</compressibility></barostat>",
        },
        "BaroSCR would call the teacher at every inner step",
    ),
    "splitting": ({"splitting": "respa"}, "respa is not a valid option.*respa-baoab"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_inputs_are_refused_with_the_remedy(load, case):
    if case == "stochastic rescaling" and not hasattr(barostats, "BaroSCR"):
        pytest.skip("this i-PI has no stochastic cell rescaling")
    options, message = BAD_INPUTS[case]
    with pytest.raises(ValueError, match=message):
        load(**options)


@pytest.mark.parametrize("version", ["3.3.0", "3.3.1", "3.3.2", "3.3.1.dev2"])
def test_supported_versions(version):
    ipi_plugin.check_version(version)


@pytest.mark.parametrize("version", ["3.1.9", "2.6.3", "3.2.0", "3.4.0", "4.0", "unknown"])
def test_other_versions_are_refused_before_anything_is_replaced(version, monkeypatch):
    monkeypatch.setattr(ipi_plugin.ipi, "__version__", version)
    untouched = object()
    monkeypatch.setattr(motion_input, "Dynamics", untouched)
    with pytest.raises(RuntimeError, match=f"i-PI {version} is not supported.*ipi>=3.3,<3.4"):
        ipi_plugin.register()
    assert motion_input.Dynamics is untouched


def test_registering_twice_changes_nothing():
    ipi_plugin.register()
    before = motion_input.Dynamics, motion_input.InputMotion.fields["dynamics"]
    ipi_plugin.register()
    assert (motion_input.Dynamics, motion_input.InputMotion.fields["dynamics"]) == before
    options = ipi_plugin.native_input.InputDynamics.attribs["splitting"][1]["options"]
    assert options == ["obabo", "baoab", "respa-baoab"]


@pytest.mark.parametrize("mode", ["npt", "nve"])
def test_a_student_without_energies_is_refused_or_warned_about(load, mode, capfd):
    options = {"student": "k: 0.09, energies: 0", "mode": mode}
    if mode == "npt":
        simulation = load(dynamics=LANGEVIN + BAROSTAT, **options)
        with pytest.raises(ValueError, match="no virial: it is for <dynamics mode='nvt'>"):
            advance(simulation, 1)
    else:
        advance(load(dynamics="", verbosity="low", **options), 1)
        assert "do not expect 'nve' to keep the energy" in capfd.readouterr().out


@pytest.mark.parametrize(
    "levels", [{}, {"nmts": "[1]", "weights": ONE_LEVEL}], ids=["two levels", "one level"]
)
@pytest.mark.parametrize("mode", ["npt", "nst"])
def test_a_teacher_without_a_virial_is_refused_at_the_first_step(load, mode, levels):
    barostat = BAROSTAT if mode == "npt" else REFERENCE_CELL
    options = {"mode": mode, "dynamics": LANGEVIN + barostat, **levels}
    advance(load(**options), 1)
    simulation = load(teacher="k: 0.10, virial: 0", **options)
    with pytest.raises(ValueError, match="the teacher gives forces, but no virial: it is for"):
        advance(simulation, 1)
