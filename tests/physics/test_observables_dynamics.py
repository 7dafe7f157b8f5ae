"""Correlations in time: motion whose displacement, spectrum or diffusion is known."""

import math

import numpy as np
import pytest
import torch
from snapshot_makers import snapshots

from mts_driver.errors import UserError
from mts_driver.refinement.observables.diffusion import (
    diffusion_coefficient,
    finite_size_correction,
    mean_squared_displacement,
)
from mts_driver.refinement.observables.estimators.correlation import LagCurve
from mts_driver.refinement.observables.velocities import (
    green_kubo_diffusion,
    spectrum,
    velocity_autocorrelation,
)
from mts_driver.units import LIGHT_CM_FS


def normal(*shape, seed=4):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def walkers(steps, count, *, diffusion_A2_fs, spacing_fs, seed=4):
    """Brownian motion: a step has the variance 2 D dt in each direction."""
    size = math.sqrt(2 * diffusion_A2_fs * spacing_fs)
    return 100.0 + size * normal(steps, count, 3, seed=seed).cumsum(0)


# --- displacement


def test_displacements_are_means_over_all_origins():
    x = walkers(30, 6, diffusion_A2_fs=0.1, spacing_fs=2.0).view(30, 2, 3, 3)
    frames = snapshots(x, every=4, timestep=0.5)
    found = mean_squared_displacement(frames, [0, 2], longest_lag_fs=58.0)
    torch.testing.assert_close(found.lags_fs, 2.0 * torch.arange(30, dtype=torch.float64))
    chosen = x[:, :, [0, 2]]
    for lag in range(1, 30):
        direct = (chosen[lag:] - chosen[:-lag]).square().sum(-1).mean()
        torch.testing.assert_close(found.values[lag], direct, rtol=1e-10, atol=0)
    assert abs(float(found.values[0])) < 1e-9


def test_freud_finds_the_same():
    import freud

    x = walkers(64, 20, diffusion_A2_fs=0.1, spacing_fs=1.0)
    found = mean_squared_displacement(snapshots(x), range(20), longest_lag_fs=63.0)
    theirs = freud.msd.MSD(mode="window").compute((x - x[0]).numpy()).msd
    np.testing.assert_allclose(found.values.numpy(), theirs, rtol=1e-4, atol=1e-5)


def test_brownian_walkers_diffuse_as_they_should():
    x = walkers(300, 200, diffusion_A2_fs=2.3e-4, spacing_fs=10.0)
    displacement = mean_squared_displacement(snapshots(x, timestep=10.0), range(200),
                                             longest_lag_fs=300.0)  # fmt: skip
    found = diffusion_coefficient(displacement, window_fs=(50.0, 300.0))
    # water's, in SI units; the error of 200 walks of 3 µs over windows of 300 fs is below 3 %
    assert float(found) == pytest.approx(2.3e-9, rel=0.05)


def test_a_drift_is_removed_and_molecules_are_followed_by_their_centres():
    masses = torch.tensor([16.0, 1.0, 1.0] * 5, dtype=torch.float64)
    molecules = np.arange(15) // 3
    centres = walkers(40, 5, diffusion_A2_fs=0.01, spacing_fs=1.0)
    inner = normal(40, 5, 3, 3, seed=5)
    share = masses[:3] / 18
    inner -= (share[:, None] * inner).sum(-2, keepdim=True)
    drift = torch.arange(40.0, dtype=torch.float64)[:, None] * torch.tensor([3.0, -1.0, 2.0])
    x = (centres[:, :, None] + inner + drift[:, None, None]).flatten(1, 2)
    frames = snapshots(x, masses=masses)
    asked = {"longest_lag_fs": 20.0, "remove_drift": True}
    found = mean_squared_displacement(frames, range(15), molecules=molecules, **asked)
    still = centres - centres.mean(1, keepdim=True)
    expected = mean_squared_displacement(snapshots(still), range(5), longest_lag_fs=20.0)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-9)
    atoms = mean_squared_displacement(frames, range(15), **asked)
    assert (atoms.values[1:] > found.values[1:] + 1.0).all()
    ballistic = mean_squared_displacement(frames, range(15), longest_lag_fs=20.0)
    assert float(ballistic.values[20]) == pytest.approx(14 * 20**2, rel=0.02)


def test_gradients_of_diffusion_are_those_of_differences():
    x = walkers(7, 5, diffusion_A2_fs=0.1, spacing_fs=1.0)
    masses = torch.linspace(1, 5, 5, dtype=torch.float64)

    def diffusion(x):
        frames = snapshots(x, masses=masses)
        found = mean_squared_displacement(
            frames, [0, 1, 4], longest_lag_fs=5.0, molecules=[0, 0, 1, 1, 2],
            remove_drift=True,
        )  # fmt: skip
        return 1e5 * diffusion_coefficient(found, window_fs=(2.0, 5.0))

    assert torch.autograd.gradcheck(diffusion, x.requires_grad_(), eps=1e-5, atol=1e-7)


def test_the_correction_of_yeh_and_hummer():
    # 512 waters, 0.895 mPa s: 0.245e-9 m²/s
    cell = 24.84 * torch.eye(3)
    found = finite_size_correction(cell, temperature_K=298.15, viscosity_Pa_s=8.95e-4)
    by_hand = 1.380649e-23 * 298.15 * 2.837297 / (6 * math.pi * 8.95e-4 * 24.84e-10)
    assert found == pytest.approx(by_hand, rel=1e-6)
    assert 2.7e-10 < found < 2.9e-10
    turned = torch.linalg.qr(normal(3, 3))[0].float() * 24.84
    again = finite_size_correction(turned, temperature_K=298.15, viscosity_Pa_s=8.95e-4)
    assert again == pytest.approx(found, rel=1e-5)


# --- velocities


@pytest.mark.parametrize("wavenumber", [400.0, 1650.0])
def test_an_oscillator_peaks_at_its_frequency(wavenumber):
    spacing = 4.0
    time = spacing * torch.arange(1200, dtype=torch.float64)
    phases = 2 * math.pi * torch.rand(1, 8, 1, generator=torch.Generator().manual_seed(1))
    waves = torch.cos(2 * math.pi * LIGHT_CM_FS * wavenumber * time[:, None, None] + phases)
    v = 0.01 * waves * torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
    frames = snapshots(torch.zeros_like(v), velocities=v, timestep=spacing)
    correlation = velocity_autocorrelation(frames, range(8), longest_lag_fs=2000.0)
    nu = torch.linspace(0, 4100, 4101, dtype=torch.float64)
    found = spectrum(correlation, nu)
    assert abs(float(nu[found.argmax()]) - wavenumber) <= 1.0
    # all of it, and in the line
    total = torch.trapezoid(found, nu)
    assert float(total) == pytest.approx(float(correlation.values[0]), rel=2e-3)
    line = (nu - wavenumber).abs() < 2 / (LIGHT_CM_FS * 2000)
    assert float(torch.trapezoid(found[line], nu[line]) / total) == pytest.approx(1, abs=0.02)
    assert float(correlation.values[0]) == pytest.approx(1e-4, rel=0.01)


def test_correlations_of_velocities_are_means_over_all_origins():
    v = normal(20, 2, 4, 3)
    frames = snapshots(torch.zeros_like(v), velocities=v, timestep=2.0)
    found = velocity_autocorrelation(frames, [1, 3], longest_lag_fs=38.0)
    for lag in range(20):
        direct = (v[lag:, :, [1, 3]] * v[: 20 - lag, :, [1, 3]]).sum(-1).mean()
        torch.testing.assert_close(found.values[lag], direct, rtol=1e-9, atol=1e-12)


def test_green_kubo_and_einstein_agree_for_langevin_particles():
    # free particles with friction: D = <v²>/3γ
    friction, spacing, speed = 0.1, 0.5, 0.02
    decay = math.exp(-friction * spacing)
    noise = speed * normal(2000, 300, 3)
    v = [noise[0]]
    for kick in noise[1:]:
        v.append(decay * v[-1] + math.sqrt(1 - decay**2) * kick)
    v = torch.stack(v)
    x = spacing * (0.5 * (v[1:] + v[:-1])).cumsum(0)
    frames = snapshots(x, velocities=v[1:], timestep=spacing)
    correlation = velocity_autocorrelation(frames, range(300), longest_lag_fs=100.0)
    kubo = green_kubo_diffusion(correlation, until_fs=60.0)
    displacement = mean_squared_displacement(frames, range(300), longest_lag_fs=100.0)
    einstein = diffusion_coefficient(displacement, window_fs=(40.0, 100.0))
    exact = speed**2 / friction * 1e-5
    assert float(kubo) == pytest.approx(exact, rel=0.05)
    assert float(einstein) == pytest.approx(float(kubo), rel=0.04)


def test_an_exponential_has_a_lorentzian_for_its_spectrum():
    friction = 0.02
    lags = 0.25 * torch.arange(4000, dtype=torch.float64)
    correlation = LagCurve(lags, 3.0 * torch.exp(-friction * lags))
    nu = torch.linspace(0, 1500, 16, dtype=torch.float64)
    omega = 2 * math.pi * LIGHT_CM_FS * nu
    exact = 4 * LIGHT_CM_FS * 3.0 * friction / (friction**2 + omega**2)
    # the window takes a little off the slow part
    torch.testing.assert_close(spectrum(correlation, nu), exact, rtol=0.02, atol=0)
    assert float(green_kubo_diffusion(correlation, until_fs=999.75)) == pytest.approx(
        1e-5 / friction, rel=1e-4
    )


def test_gradients_of_a_spectrum_are_those_of_differences():
    v = normal(8, 3, 3).requires_grad_()

    def bands(v):
        frames = snapshots(torch.zeros_like(v), velocities=v, timestep=5.0)
        correlation = velocity_autocorrelation(frames, [0, 2], longest_lag_fs=30.0)
        return spectrum(correlation, [0.0, 800.0, 2500.0]), green_kubo_diffusion(
            correlation, until_fs=20.0
        ) * 1e5

    assert torch.autograd.gradcheck(bands, v, eps=1e-5, atol=1e-7)


# --- bad input


def diffuse(x=None, steps=None, atoms=(0, 1), longest_lag_fs=5.0, window_fs=None, **more):
    frames = snapshots(normal(10, 4, 3) if x is None else x)
    frames = frames._replace(steps=steps or frames.steps, masses=more.pop("masses", frames.masses))
    found = mean_squared_displacement(frames, list(atoms), longest_lag_fs=longest_lag_fs, **more)
    return diffusion_coefficient(found, window_fs=window_fs or (1.0, 5.0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": (*range(9), 10)}, r"\[1, 2\] steps apart"),
        ({"steps": tuple(range(10, 0, -1))}, "even distances"),
        ({"x": normal(1, 4, 3)}, "number 1"),
        ({"longest_lag_fs": 10.0}, "span 9 fs"),
        ({"longest_lag_fs": 0.5}, "1 fs apart"),
        ({"longest_lag_fs": math.nan}, "nan"),
        ({"atoms": (4,)}, "atom 4"),
        ({"atoms": ()}, "at least one atom"),
        ({"window_fs": (2.0, 6.0)}, "window_fs is 2 to 6"),
        ({"window_fs": (2.5, 3.4)}, "1 of the lags"),
        ({"window_fs": (-1.0, 3.0)}, "window_fs is -1"),
        ({"molecules": [0, 1]}, "4 atoms"),
        ({"masses": torch.tensor([1, 1, 1, torch.inf]), "remove_drift": True}, "remove_drift"),
        ({"masses": torch.tensor([torch.inf, 1, 1, 1]), "molecules": [0, 0, 1, 1]}, "molecules"),
    ],
)
def test_bad_input_of_diffusion(wrong, message):
    assert diffuse().isfinite()
    with pytest.raises(UserError, match=message):
        diffuse(**wrong)


@pytest.mark.parametrize(
    ("cell", "temperature", "viscosity", "message"),
    [
        (torch.diag(torch.tensor([9.0, 9.0, 9.1])), 300.0, 1e-3, "not cubic"),
        (torch.tensor([[9.0, 0, 0], [0.1, 9, 0], [0, 0, 9]]), 300.0, 1e-3, "not cubic"),
        (torch.zeros(3, 3), 300.0, 1e-3, "no volume"),
        (torch.eye(3), 0.0, 1e-3, "temperature_K is 0"),
        (torch.eye(3), 300.0, -1.0, "viscosity_Pa_s is -1"),
    ],
)
def test_bad_input_of_the_correction(cell, temperature, viscosity, message):
    with pytest.raises(UserError, match=message):
        finite_size_correction(cell, temperature_K=temperature, viscosity_Pa_s=viscosity)


def test_bad_input_of_spectra():
    curve = LagCurve(torch.arange(5.0) * 4, torch.ones(5))
    for nu in ([4170.0], [-1.0], [], [math.nan], [[1.0]]):
        with pytest.raises(UserError, match=r"between 0 and 4169\.55"):
            spectrum(curve, nu)
    for until in (3.0, 17.0, math.nan):
        with pytest.raises(UserError, match="until_fs"):
            green_kubo_diffusion(curve, until_fs=until)
