"""Densities of states of vibrations that are known."""

import numpy as np
import pytest

from mts_driver.analysis.dynamics.motion import compare_motions, motion
from mts_driver.analysis.dynamics.velocities import motion_as_stored
from mts_driver.analysis.run_folder import RunFolder
from mts_driver.analysis.vdos import autocorrelation, density_of_states
from mts_driver.errors import UserError
from mts_driver.units import LIGHT_CM_FS

MASSES = np.array([1.0, 16.0])


def vibrations(wavenumbers, count=4000, interval_fs=1.0, seed=0):
    """Each atom at one frequency with the same kinetic energy."""
    t = interval_fs * np.arange(count)
    phase = np.random.default_rng(seed).uniform(0, 6.28, (len(wavenumbers), 3))
    omega = 2.0 * np.pi * LIGHT_CM_FS * np.array(wavenumbers)
    v = np.cos(omega[:, None] * t[:, None, None] + phase)
    return v / np.sqrt(MASSES)[:, None]


def states(parts, **more):
    return density_of_states(parts, MASSES, **{"interval_fs": 1.0, "longest_fs": 2000.0} | more)


def test_lines_are_where_they_should_be_and_each_atom_counts_alike():
    found = states([vibrations([3700.0, 1600.0])])
    np.testing.assert_allclose(np.sort(found.peaks_cm()), [1600.0, 3700.0], atol=0.5)
    assert np.trapezoid(found.density, found.wavenumbers_cm) == pytest.approx(1.0)
    low = found.wavenumbers_cm < 2500.0
    share = np.trapezoid(found.density[low], found.wavenumbers_cm[low])
    assert share == pytest.approx(0.5, abs=0.01)


def test_the_overlap_is_what_two_have_in_common():
    one, other = states([vibrations([3700.0, 1600.0])]), states([vibrations([3700.0, 1000.0])])
    assert one.overlap(one) == pytest.approx(1.0)
    assert one.overlap(other) == pytest.approx(0.5, abs=0.01)


def test_several_parts_are_taken_and_short_ones_left_out():
    parts = [vibrations([3700.0, 1600.0], seed=k) for k in range(3)]
    found = states([*parts, vibrations([500.0, 500.0], count=100)])
    np.testing.assert_allclose(np.sort(found.peaks_cm()), [1600.0, 3700.0], atol=0.5)
    with pytest.raises(UserError, match=r"longest_fs=2000: the longest .* has 100 fs"):
        states([vibrations([500.0, 500.0], count=100)])


def test_the_autocorrelation_is_that_of_its_definition():
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(n, 2, 3)) for n in (50, 80, 5)]
    found = autocorrelation(parts, MASSES, longest=10)
    sums = np.zeros((2, 11))
    for v in parts[:2]:
        for lag in range(11):
            pairs = len(v) - lag
            sums[0, lag] += (MASSES[:, None] * v[:pairs] * v[lag:]).sum()
            sums[1, lag] += pairs
    expected = sums[0] / sums[1]
    np.testing.assert_allclose(found, expected / expected[0], atol=1e-12)


# --- errors, elements and a reference

SYMBOLS = np.array(["H", "O"])


def kicked(seed, count=4000, wavenumber=1600.0, atoms=1):
    """Oscillators that a thermostat of 5/ps kicks, hydrogens and oxygens in turn, 1 fs apart."""
    rng = np.random.default_rng(seed)
    omega, keep = 2.0 * np.pi * LIGHT_CM_FS * wavenumber, np.exp(-0.005)
    phase = np.exp(1j * omega)
    z = np.empty((count, 2 * atoms, 3), complex)
    z[0] = rng.normal(size=(2 * atoms, 3, 2)) @ [1, 1j]
    for k in range(1, count):
        noise = rng.normal(size=(2 * atoms, 3, 2)) @ [1, 1j]
        z[k] = keep * phase * z[k - 1] + np.sqrt(1 - keep**2) * noise
    return z.real / np.sqrt(np.tile(MASSES, atoms))[:, None]


def motion_of(v):
    atoms = v.shape[1] // 2
    return motion(
        [v], np.tile(MASSES, atoms), np.tile(SYMBOLS, atoms), interval_fs=1.0, frames="made up"
    )


def test_errors_of_a_spectrum_are_its_scatter_from_run_to_run():
    runs = [motion_of(kicked(seed, count=10_001, atoms=4)).density_of_states for seed in range(8)]
    band = runs[0].density > 0.1 * runs[0].density.max()
    scatter = np.std([one.density for one in runs], axis=0, ddof=1)[band].mean()
    claimed = np.mean([one.stderr[band].mean() for one in runs])
    assert len(runs[0].blocks) == 5
    # segments overlap in the whole and not in the blocks, which takes off a little
    assert 0.7 < claimed / scatter < 1.8
    # and two of them have in common what their errors leave them
    pairs = [(runs[k], runs[k + 1]) for k in range(0, 8, 2)]
    overlap = np.mean([a.overlap(b) for a, b in pairs])
    noise = np.mean([a.overlap_of_noise(b) for a, b in pairs])
    assert 1 - overlap == pytest.approx(1 - noise, rel=0.5)
    assert 0 < pairs[0][0].overlap_stderr(pairs[0][1]) < 0.1


def test_a_shift_of_the_frequency_is_more_than_noise():
    one, other = (motion_of(kicked(k, 10_001, w, 4)) for k, w in ((1, 1600.0), (2, 1900.0)))
    found = compare_motions(one, other)
    lost = 1 - found["density_of_states_overlap"]
    assert (
        lost
        > 1
        - found["density_of_states_overlap_of_noise_alone"]
        + 3 * (found["density_of_states_overlap_stderr"])
    )


def test_elements_add_up_and_each_has_its_own_line():
    found = motion_of(vibrations([3700.0, 1600.0]))
    states = found.density_of_states
    np.testing.assert_allclose(sum(states.by_element.values()), states.density, atol=1e-15)
    for element, line in (("H", 3700.0), ("O", 1600.0)):
        highest = states.wavenumbers_cm[np.argmax(states.by_element[element])]
        assert highest == pytest.approx(line, abs=5)
        period_fs = 1 / (LIGHT_CM_FS * line)
        of_element = found.autocorrelation_by_element[element]
        expected = np.cos(2 * np.pi * found.lags_fs / period_fs)
        np.testing.assert_allclose(of_element, expected, atol=0.05)
    np.testing.assert_allclose(np.sort(states.clearest_peaks_cm()), [1600.0, 3700.0], atol=5)


def test_short_motion_has_no_errors():
    found = motion_of(vibrations([3700.0, 1600.0], count=400))
    assert np.isnan(found.density_of_states.stderr).all()
    assert np.isnan(found.autocorrelation_stderr).all()
    assert np.isnan(compare_motions(found, found)["density_of_states_overlap_stderr"])


# --- as a run stores them

INPUT = """<simulation><output prefix='simulation'>
<properties filename='out'> [ step, time{picosecond} ] </properties>
<trajectory filename='pos' format='xyz' stride='10'> positions{angstrom} </trajectory>
<trajectory filename='slow' format='xyz' stride='50'> velocities </trajectory>
<trajectory filename='vel' format='xyz' stride='STRIDE'> velocities </trajectory></output>
<system/></simulation>"""


def stored_run(folder, *, stride=1, step_fs=1.0, frames=3000, gap=False):
    """A run that stores two oscillators, and begins once more in its middle."""
    folder.mkdir()
    (folder / "input.xml").write_text(INPUT.replace("STRIDE", str(stride)))
    head = "# column   1     --> step : x\n# column   2     --> time{picosecond} : x\n"
    last = stride * (frames - 1)
    rows = f"0 0\n{last} {1e-3 * step_fs * last}\n"
    (folder / "simulation.out").write_text(head + rows)
    velocities = vibrations([3700.0, 1600.0], count=frames, interval_fs=stride * step_fs)
    texts = [
        "\n".join(["2", f"# CELL(abcABC): 9 9 9 90 90 90 Step: {stride * k} Bead: 0 x"]
                  + [f"{s} " + " ".join(f"{x:.8e}" for x in v)
                     for s, v in zip(SYMBOLS, frame, strict=True)]) + "\n"
        for k, frame in enumerate(velocities)
    ]  # fmt: skip
    again = texts[: frames // 2] + texts[frames // 2 - 5 :]
    if gap:
        del again[-20]
    (folder / "simulation.vel_0.xyz").write_text("".join(again) + texts[-1][:30])
    (folder / "simulation.pos_0.xyz").write_text(texts[0])
    (folder / "start.extxyz").write_text(
        "2\nProperties=species:S:1:pos:R:3:masses:R:1\nH 0 0 0 4.0\nO 0 0 1 16.0\n"
    )
    return RunFolder.find(folder)


def test_velocities_of_a_run_are_taken_as_they_are(tmp_path):
    folder = stored_run(tmp_path / "run", stride=2)
    assert [file.name for file in folder.velocities] == ["simulation.vel_0.xyz"]
    found = motion_as_stored(folder, picoseconds=4.0)
    assert (found.interval_fs, found.frames) == (2.0, "stored every 2 fs")
    assert found.picoseconds == pytest.approx(4.0)
    states = found.density_of_states
    np.testing.assert_allclose(np.sort(states.peaks_cm()), [1600.0, 3700.0], atol=2)
    # by the masses of the start, whose hydrogen is four times as heavy as that which was moved
    shares = [np.trapezoid(d, states.wavenumbers_cm) for d in states.by_element.values()]
    np.testing.assert_allclose(shares, [0.8, 0.2], atol=0.01)


def test_velocities_that_show_no_vibrations_are_refused(tmp_path):
    cases = [
        ({"stride": 4}, "velocities every 4 fs, and vibrations of up to 4500/cm need 3.7 fs"),
        ({"gap": True}, "a gap in its last 2 ps"),
    ]
    for k, (how, words) in enumerate(cases):
        with pytest.raises(UserError, match=words):
            motion_as_stored(stored_run(tmp_path / str(k), **how), picoseconds=2.0)
    none = stored_run(tmp_path / "none")
    none.velocities[0].unlink()
    with pytest.raises(UserError, match="stores no velocities"):
        motion_as_stored(RunFolder.find(none.path), picoseconds=2.0)
