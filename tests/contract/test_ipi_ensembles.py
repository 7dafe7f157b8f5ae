"""Averages under i-PI in every ensemble, on potentials for which they are known.

All atoms are alike and independent, so that a snapshot holds as many samples as there are
coordinates. Deviations are in standard errors from blocks in time.
"""

import numpy as np
import pytest
from ipi.engine.simulation import Simulation
from ipi.utils.depend import dstrip
from ipi.utils.units import Constants, unit_to_internal
from ipi_input import (
    BAROSTAT,
    GLE,
    HERE,
    LANGEVIN,
    PILE,
    REFERENCE_CELL,
    forcefield,
    simulation_xml,
)

from integrators.ipi import plugin as ipi_plugin

KT = Constants.kb * unit_to_internal("temperature", "kelvin", 300.0)
STIFF, QUARTIC = 0.10, 10.0
TEACHER = f"k: {STIFF}, q: {QUARTIC}"
STUDENT = "k: 0.09, q: 8.0"
SVR = LANGEVIN.replace("langevin", "svr")
PILE_G = PILE.replace("pile_l", "pile_g")


def gas(n, box=20.0, element="H"):
    """``n`` atoms at the origin of a cubic box, bohr."""
    cell = f"# CELL(abcABC): {box} {box} {box} 90 90 90 positions{{atomic_unit}}"
    rows = "\n".join(f"{element} 0.0 0.0 0.0" for _ in range(n))
    return f"{n}\n{cell} cell{{atomic_unit}}\n{rows}\n"


def sample(simulation, observe, *, equilibrate, steps, stride=5, blocks=10):
    """Mean and standard error of each of the numbers that ``observe(system)`` returns."""
    system = simulation.syslist[0]
    seen = []
    for k in range(equilibrate + steps):
        system.motion.step()
        if k >= equilibrate and k % stride == 0:
            seen.append(observe(system))
    parts = np.array([block.mean(axis=0) for block in np.array_split(np.array(seen), blocks)])
    return parts.mean(axis=0), parts.std(axis=0, ddof=1) / np.sqrt(blocks)


def assert_equal(found, exact, bound=4.5):
    mean, error = found
    deviation = np.abs(mean - exact) / error
    assert np.all(deviation < bound), (mean, exact, error)
    assert np.all(error < 0.02 * np.abs(exact)), (error, exact)  # the test could have failed


def quadrature(stiff=STIFF, quartic=QUARTIC):
    """<x²> and <x⁴> of one coordinate."""
    x = np.linspace(-1.5, 1.5, 6001)
    p = np.exp(-(0.5 * stiff * x**2 + 0.25 * quartic * x**4) / KT)
    return np.array([(p * x**k).sum() / p.sum() for k in (2, 4)])


def moments(system):
    q = dstrip(system.beads.q)
    return (q**2).mean(), (q**4).mean()


@pytest.mark.parametrize(
    "bath",
    [
        LANGEVIN.replace(">40<", ">10<"),
        PILE,
        GLE,
        SVR + "<hydrogen_friction units='inverseps'>100</hydrogen_friction>",
    ],
    ids=["langevin", "pile_l", "gle", "svr and hydrogen friction"],
)
def test_nvt_is_canonical_in_an_anharmonic_well(load, bath):
    options = {"teacher": TEACHER, "student": STUDENT, "xyz": gas(300), "dynamics": bath}
    simulation = load(nmts="[1, 3]", timestep_fs=0.9, **options)
    found = sample(simulation, moments, equilibrate=150, steps=900)
    assert_equal(found, quadrature())


def virial(system):
    """-x F of the teacher, which is kT in any stationary state whose atoms have 3 kT/2."""
    q = dstrip(system.beads.q)
    return [(q * (STIFF * q + QUARTIC * q**3)).mean()]


@pytest.mark.parametrize("bath", [SVR, PILE_G], ids=["svr", "pile_g"])
def test_global_thermostats_keep_the_temperature(load, bath):
    # they do not mix independent wells, so that only the sum over all of them is known
    options = {"teacher": TEACHER, "student": STUDENT, "xyz": gas(300), "dynamics": bath}
    simulation = load(nmts="[1, 3]", timestep_fs=0.9, **options)
    found = sample(simulation, virial, equilibrate=400, steps=1500)
    assert_equal(found, KT)


@pytest.mark.parametrize("kicks", [0, 2])
def test_a_slow_kick_that_is_missing_or_doubled_is_noticed(load, kicks):
    options = {"teacher": TEACHER, "student": STUDENT, "xyz": gas(300)}
    simulation = load(nmts="[1, 3]", timestep_fs=0.9, **options)
    integrator = simulation.syslist[0].motion.integrator
    native = integrator.pstep

    def wrong(level=0):
        for _ in range(kicks if level == 0 else 1):
            native(level)

    integrator.pstep = wrong
    mean, error = sample(simulation, moments, equilibrate=150, steps=900)
    assert np.all(np.abs(mean - quadrature()) > 4.5 * error)


def test_three_levels_are_canonical(load):
    weights = (("teacher", "[1, 0, 0]"), ("middle", "[-1, 1, 0]"), ("student", "[0, -1, 1]"))
    simulation = load(
        extra_ff=forcefield("middle", "k: 0.09, q: 9.0"),
        weights=weights,
        nmts="[1, 2, 2]",
        teacher=TEACHER,
        student=STUDENT,
        xyz=gas(300),
        timestep_fs=1.0,
    )
    found = sample(simulation, moments, equilibrate=150, steps=800)
    assert_equal(found, quadrature())
    calls = {name: ff.driver.calls for name, ff in simulation.fflist.items()}
    assert calls == {"teacher": 951, "middle": 2 * 950 + 1, "student": 4 * 950 + 1}


def test_bias_acts_on_the_slow_level(load):
    simulation = load(
        extra_ff=forcefield("bias", "k: 0.05"),
        bias="<bias><force forcefield='bias'/></bias>",
        nmts="[1, 3]",
        teacher=TEACHER,
        student=STUDENT,
        xyz=gas(300),
        timestep_fs=0.6,
    )
    found = sample(simulation, moments, equilibrate=200, steps=1200)
    assert_equal(found, quadrature(stiff=STIFF + 0.05))
    assert simulation.fflist["bias"].driver.calls == 1401


def ring_polymer(n_beads, stiffness):
    """Exact <x²> of a bead of H at finite P; ``stiffness`` is one number a normal mode."""
    mass = unit_to_internal("mass", "dalton", 1.0) * 1.00794
    modes = np.arange(n_beads)
    omega = 2.0 * n_beads * KT / Constants.hbar * np.sin(np.pi * modes / n_beads)
    return (KT / (mass * omega**2 + np.asarray(stiffness))).sum()


def test_path_integral_of_a_harmonic_well_is_exact_for_its_beads(load):
    simulation = load(
        beads=4,
        dynamics=PILE,
        teacher="k: 0.10",
        student="k: 0.09",
        xyz=gas(100),
        nmts="[1, 3]",
        timestep_fs=0.6,
    )
    found = sample(simulation, lambda s: moments(s)[:1], equilibrate=200, steps=1200)
    exact = ring_polymer(4, 0.10)
    assert exact > 1.3 * KT / 0.10  # quantum
    assert_equal(found, exact)


def test_contracted_teacher_moves_only_the_modes_that_it_sees(load):
    """Teacher - student on the centroid, the student on all beads."""
    simulation = load(
        beads=4,
        dynamics=PILE,
        teacher="k: 0.12",
        student="k: 0.06",
        weights=(("teacher", "[1, 0]"), ("student", "[-1, 0]"), ("student", "[0, 1]")),
        nbeads=(1, 1, 4),
        xyz=gas(100),
        nmts="[1, 3]",
        timestep_fs=0.6,
    )
    found = sample(simulation, lambda s: moments(s)[:1], equilibrate=200, steps=1200)
    assert_equal(found, ring_polymer(4, [0.12, 0.06, 0.06, 0.06]))
    # one bead an outer step for the teacher; the student has that one and four an inner step
    assert simulation.fflist["teacher"].driver.calls == 1401
    assert simulation.fflist["student"].driver.calls == 1401 + 4 * (3 * 1400 + 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "steps", "bound"),
    [("isotropic", 60000, 0.02), ("flexible", 20000, 0.035), ("anisotropic", 20000, 0.035)],
)
def test_volume_of_an_ideal_gas_in_a_long_run(load, mode, steps, bound):
    check_volume(load, mode, steps, bound)


def test_volume_of_an_ideal_gas_is_distributed_as_it_should(load):
    check_volume(load, "isotropic", steps=5000, bound=0.06)


def check_volume(load, mode, steps, bound):
    """p(V) ~ V^N exp(-P V / kT), where most of P comes from teacher and student."""
    n, box = 16, 20.0
    target = box**3
    pressure = (n + 1) * KT / target
    units = unit_to_internal("pressure", "bar", 1.0)
    barostat = REFERENCE_CELL if mode == "anisotropic" else BAROSTAT.replace("isotropic", mode)
    barostat = barostat.replace(">200<", ">20<").replace(">40<", ">20<")
    if mode != "isotropic":
        barostat = barostat.replace("<thermostat", "<hfix>[offdiagonal]</hfix><thermostat")
    simulation = load(
        mode="npt",
        dynamics=LANGEVIN.replace(">40<", ">10<") + barostat,
        pes=HERE / "volume_pes.py",
        teacher=f"pressure: {pressure - units}",  # the ensemble adds 1 bar
        student=f"pressure: {0.7 * pressure}",
        xyz=gas(n, box),
        nmts="[1, 2]",
        timestep_fs=1.0,
    )

    def volume(system):
        v = float(system.cell.V)
        return v, v * v

    mean, error = sample(simulation, volume, equilibrate=500, steps=steps)
    scale = KT / pressure
    exact = np.array([(n + 1) * scale, (n + 1) * (n + 2) * scale**2])
    assert np.all(np.abs(mean - exact) < 4.5 * error), (mean, exact, error)
    assert error[0] < bound * exact[0]


def test_replica_exchange_accepts_as_often_as_it_should(tmp_path, monkeypatch):
    hot_K, stiff, attempts = 450.0, 0.10, 2500
    monkeypatch.chdir(tmp_path)
    ipi_plugin.register()
    text = simulation_xml(
        tmp_path,
        teacher=f"k: {stiff}",
        student="k: 0.09",
        nmts="[1, 2]",
        timestep_fs=1.0,
        xyz=gas(6),
        dynamics=LANGEVIN.replace(">40<", ">5<"),
    )
    system = text[text.index("<system>") : text.index("</system>") + len("</system>")]
    hot = system.replace("<temperature units='kelvin'>300", f"<temperature units='kelvin'>{hot_K}")
    exchange = "<smotion mode='remd'><remd><stride>1</stride></remd></smotion>"
    both = system.replace("<system>", "<system prefix='cold'>")
    both += hot.replace("<system>", "<system prefix='hot'>") + exchange
    simulation = Simulation.load_from_xml(text.replace(system, both))
    remd, accepted, squares = simulation.smotion, [], {300.0: [], hot_K: []}
    for k in range(attempts):
        before = list(remd.repindex)
        for replica in simulation.syslist:
            replica.motion.step()
            kelvin = replica.ensemble.temp / unit_to_internal("temperature", "kelvin", 1.0)
            squares[round(kelvin, 6)].append(float((dstrip(replica.beads.q) ** 2).mean()))
        remd.step(k)
        accepted.append(list(remd.repindex) != before)

    def mean_and_error(values, blocks=10):
        means = [np.mean(block) for block in np.array_split(np.asarray(values, float), blocks)]
        return np.mean(means), np.std(means, ddof=1) / np.sqrt(blocks)

    rng = np.random.default_rng(1)
    energy = {K: KT * K / 300 * rng.chisquare(18, 400_000) / 2 for K in squares}
    beta = {K: 300 / (KT * K) for K in squares}
    gain = (beta[300.0] - beta[hot_K]) * (energy[300.0] - energy[hot_K])
    exact = np.minimum(1.0, np.exp(gain)).mean()
    found, error = mean_and_error(accepted)
    assert 0.2 < exact < 0.9 and error < 0.04
    assert abs(found - exact) < 4.5 * error, (found, exact, error)
    for kelvin, values in squares.items():
        found, error = mean_and_error(values)
        assert abs(found - KT * kelvin / 300 / stiff) < 4.5 * error
