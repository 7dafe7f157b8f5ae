"""Losses and what they are taken of: measured curves, numbers, energies."""

import math

import pytest
import torch
from snapshot_makers import gas, snapshots
from torch import nn

from mts_driver.errors import UserError
from mts_driver.refinement.goals.losses import CurveTarget, ScalarTarget, Term, WeightedSum
from mts_driver.refinement.goals.measured import MeasuredRDF, read_water_rdf
from mts_driver.refinement.observables.energies import (
    enthalpy_of_vaporisation,
    mean_potential_energy,
    potential_energies,
)
from mts_driver.refinement.observables.rdf import RadialDistribution

# --- losses

X = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
Y0 = torch.tensor([0.0, 1.0, 2.0, 1.0], dtype=torch.float64)
SIGMA = torch.tensor([0.0, 0.1, 0.2, 0.4], dtype=torch.float64)


def test_a_curve_deviates_in_units_of_its_uncertainty():
    target = CurveTarget(X, Y0, SIGMA, between=(1.0, 3.0))
    curve = torch.tensor([9.0, 1.2, 2.0, 0.6], dtype=torch.float64, requires_grad=True)
    loss = target(curve)
    assert float(loss.detach()) == pytest.approx((4 + 0 + 1) / 3)
    (gradient,) = torch.autograd.grad(loss, curve)
    expected = torch.tensor([0, 2 * 0.2 / 0.01, 0, 2 * -0.4 / 0.16], dtype=torch.float64) / 3
    torch.testing.assert_close(gradient, expected)
    softer = CurveTarget(X, Y0, SIGMA, least_uncertainty=0.3)
    off = (9**2 / 0.09 + 0.04 / 0.1 + 0.16 / 0.25) / 4
    assert float(softer(curve.detach())) == pytest.approx(off)


def test_numbers_deviate_in_units_of_the_target_or_of_its_uncertainty():
    value = torch.tensor(2.5e-9, dtype=torch.float64)
    assert float(ScalarTarget(2.0e-9)(value)) == pytest.approx(0.0625)
    assert float(ScalarTarget(-4.0)(torch.tensor(-5.0))) == pytest.approx(0.0625)
    assert float(ScalarTarget(0.0, uncertainty=2.0)(torch.tensor([4.0, 0.0]))) == pytest.approx(2.0)


def test_a_sum_shows_its_terms_by_name():
    frames = snapshots(torch.full((2, 3, 3), 2.0, requires_grad=True))
    terms = [
        Term("g(r)", 0.5, lambda s: s.positions.square().mean()),
        Term("D", 3.0, lambda s: s.positions.mean()),
    ]
    total, parts = WeightedSum(terms)(frames)
    assert parts == {"g(r)": 2.0, "D": 6.0}
    assert total.item() == 8.0
    (gradient,) = torch.autograd.grad(total, frames.positions)
    assert torch.allclose(gradient, torch.full((2, 3, 3), (0.5 * 4 + 3) / 18))


def test_a_loss_of_g_has_a_gradient_towards_its_target():
    frames = gas(3, 40, 9.0 * torch.eye(3))
    frames = frames._replace(positions=frames.positions.requires_grad_())
    r = torch.linspace(1.0, 4.0, 31, dtype=torch.float64)
    rdf = RadialDistribution(range(40), range(40), r_A=r, width_A=0.1)
    target = CurveTarget(r, torch.ones_like(r), torch.full_like(r, 0.1))
    loss = WeightedSum([Term("g", 1.0, lambda s: target(rdf(s)))])
    total, _ = loss(frames)
    (gradient,) = torch.autograd.grad(total, frames.positions)
    step = 1e-3 / float(gradient.norm())
    less, _ = loss(frames._replace(positions=frames.positions.detach() - step * gradient))
    expected = total.item() - step * float(gradient.square().sum())
    assert less.item() == pytest.approx(expected, rel=1e-3)
    assert less.item() < total.item()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CurveTarget(X, Y0, SIGMA), "uncertainty not positive"),
        (lambda: CurveTarget(X, Y0, SIGMA, least_uncertainty=-0.1), "least_uncertainty"),
        (lambda: CurveTarget(X, Y0 / 0, SIGMA, least_uncertainty=0.1), "not finite"),
        (lambda: CurveTarget(X, Y0[1:], SIGMA), "shapes"),
        (lambda: CurveTarget(X, Y0, SIGMA, between=(4.0, 5.0)), "between is 4 to 5, x from 0 to 3"),
        (lambda: CurveTarget(X[:0], X[:0], X[:0]), "x is empty"),
        (lambda: CurveTarget(X, Y0, SIGMA, between=(1, 2))(X[:3]), r"shape \(3,\)"),
        (lambda: ScalarTarget(0.0), "target is 0"),
        (lambda: ScalarTarget(math.inf), "target is inf"),
        (lambda: ScalarTarget(1.0, uncertainty=0.0), "uncertainty 0"),
        (lambda: WeightedSum([]), "at least one"),
        (lambda: WeightedSum([Term("a", 1.0, len), Term("a", 1.0, len)]), "own name"),
        (lambda: WeightedSum([Term("", 1.0, len)]), "own name"),
        (lambda: WeightedSum([Term("a", 0.0, len)]), "weight of term 'a' is 0"),
        (lambda: WeightedSum([Term("a", math.nan, len)]), "weight of term 'a' is nan"),
        (lambda: WeightedSum([Term("a", 1.0, lambda s: X / 0)])(None), "term 'a' is"),
        (lambda: WeightedSum([Term("a", 1.0, lambda s: X[0] / 0)])(None), "term 'a' is nan"),
    ],
)
def test_bad_losses(make, message):
    with pytest.raises(UserError, match=message):
        make()


# --- energies


class Springs(nn.Module):
    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def energy(self, positions, cell):
        return 0.5 * self.k * positions.square().sum((-2, -1))


def test_energies_carry_gradients_to_parameters_and_positions():
    springs = Springs()
    x = torch.randn(3, 2, 4, 3, generator=torch.Generator().manual_seed(1)).double()
    frames = snapshots(x.requires_grad_())
    energies = potential_energies(springs.energy, frames)
    assert energies.shape == (3, 2)
    mean = mean_potential_energy(springs.energy, frames)
    by_k, by_x = torch.autograd.grad(mean, (springs.k, x))
    torch.testing.assert_close(by_k, 0.5 * x.detach().square().sum() / 6)
    torch.testing.assert_close(by_x, springs.k.detach() * x.detach() / 6)
    # a heat of vaporisation: with the right sign of both parts
    liquid, gas_eV = -0.43 * 64 + 0.1 * x.detach()[:, 0, 0, 0], torch.tensor([0.02, 0.0])
    liquid = liquid - liquid.mean() - 0.43 * 64
    heat = enthalpy_of_vaporisation(liquid, gas_eV, molecules=64, temperature_K=298.15)
    assert float(heat) == pytest.approx(0.44 * 96.4853 + 2.4790, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"molecules": 0}, "molecules is 0"),
        ({"temperature_K": -1.0}, "temperature_K is -1"),
        ({"liquid_eV": X[:0]}, "liquid_eV is empty"),
        ({"gas_eV": X[:0]}, "gas_eV is empty"),
    ],
)
def test_bad_input_of_vaporisation(change, message):
    given = {"liquid_eV": X, "gas_eV": X, "molecules": 4, "temperature_K": 300.0} | change
    with pytest.raises(UserError, match=message):
        enthalpy_of_vaporisation(given.pop("liquid_eV"), given.pop("gas_eV"), **given)


def test_bad_energies():
    frames = snapshots(torch.zeros(2, 3, 4, 3))
    with pytest.raises(UserError, match=r"shape \(\)"):
        potential_energies(lambda x, cell: x.sum(), frames)
    with pytest.raises(UserError, match="not finite"):
        potential_energies(lambda x, cell: x.sum((-2, -1)) / 0, frames)


# --- measured g(r)


def test_measured_water_has_its_neighbours_and_no_bonds(measured_data):
    measured = read_water_rdf(measured_data / "soper_2013_water_rdf.txt")
    assert set(measured) == {"O–O", "O–H", "H–H"}
    oxygen, hydrogen = measured["O–O"], measured["O–H"]
    assert float(oxygen.r_A[oxygen.g.argmax()]) == pytest.approx(2.79)
    assert float(oxygen.g.max()) == pytest.approx(2.4953)
    # no peak at 0.97 Å: hydrogen bonds only, 1.8 an oxygen
    assert not hydrogen.g[hydrogen.r_A < 1.05].any()
    to = hydrogen.r_A < 2.4
    shells = 4 * math.pi * hydrogen.r_A**2 * hydrogen.g
    count = 2 * 0.0334 * torch.trapezoid(shells[to], hydrogen.r_A[to])
    assert float(count) == pytest.approx(1.84, abs=0.02)
    assert not measured["H–H"].g[measured["H–H"].r_A < 1.05].any()
    assert float(measured["H–H"].g[-1]) == pytest.approx(1.0, abs=0.01)


def test_a_measured_curve_is_smoothed_as_the_simulated_one_is():
    r = torch.linspace(0, 8, 801, dtype=torch.float64)
    bump = 1 + 2 * torch.exp(-0.5 * ((r - 3) / 0.1) ** 2)
    measured = MeasuredRDF(r, bump, 0.1 * bump)
    flat = MeasuredRDF(r, torch.ones_like(r), torch.zeros_like(r))
    where = [0.0, 0.05, 2.8, 3.0]
    assert torch.allclose(flat.smoothed(where, width_A=0.1).g, torch.ones(4).double())
    found = measured.smoothed(where, width_A=0.1)
    # Gaussians add their variances; the sphere's curvature moves little
    assert float(found.g[3]) == pytest.approx(1 + 2 / math.sqrt(2), rel=5e-3)
    torch.testing.assert_close(found.error, 0.1 * found.g)
    # distances of pairs of that g(r), through the histogram of a simulation
    from mts_driver.refinement.observables.estimators.histogram import smooth_histogram
    from mts_driver.refinement.observables.estimators.kernel import shell_A2

    d = torch.linspace(0.0005, 6.9995, 7000, dtype=torch.float64)
    weights = 4 * math.pi * d**2 * measured.at(d).g * 1e-3
    rows, points = torch.zeros(7000, dtype=torch.int64), torch.tensor(where).double()
    counted = smooth_histogram(d, weights, rows, points, width=0.1, n_rows=1)[0]
    torch.testing.assert_close(found.g, counted / shell_A2(points, 0.1), rtol=1e-4, atol=0)
    assert float(measured.at([3.005]).g[0]) == pytest.approx(float(bump[300:302].mean()))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.at([9.0]), "measured from 0 to 8"),
        (lambda m: m.at([-0.1]), "measured from 0 to 8"),
        (lambda m: m.smoothed([7.8], width_A=0.1), r"0\.4 Å beyond"),
        (lambda m: m.smoothed([2.0, 1.0], width_A=0.1), "ascend"),
        (lambda m: m.smoothed([2.0], width_A=-0.1), "width_A"),
    ],
)
def test_nothing_is_said_beyond_what_was_measured(ask, message):
    r = torch.linspace(0, 8, 81, dtype=torch.float64)
    with pytest.raises(UserError, match=message):
        ask(MeasuredRDF(r, torch.ones_like(r), torch.ones_like(r)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("r g\n1 2\n", "not a table"),
        ("0 1 0 1 0 1\n1 1 0 1 0 1\n", "6 numbers"),
        ("0 1 0 1 0 1 0\n", "1 rows"),
        ("", "0 rows"),
        ("1 1 0 1 0 1 0\n0 1 0 1 0 1 0\n", "ascend"),
        ("0 1 0 1 0 1 0\n1 1 0 1 0 -1 0\n", "negative"),
        ("0 1 0 1 0 1 0\n1 1 0 1 0 nan 0\n", "not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_bad_tables(tmp_path, text, message):
    path = tmp_path / "g.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_water_rdf(path)
