"""Observables of positions against closed forms, freud, and the analysis of runs."""

import math

import numpy as np
import pytest
import torch
from snapshot_makers import gas, snapshots

from mts_driver.analysis.rdf import radial_distribution
from mts_driver.analysis.trajectory import Trajectory
from mts_driver.errors import UserError
from mts_driver.refinement.observables.bond_lengths import (
    bond_length_distribution,
    bond_length_moments,
    bond_lengths,
)
from mts_driver.refinement.observables.coordination import CoordinationNumber
from mts_driver.refinement.observables.estimators import kernel
from mts_driver.refinement.observables.estimators.histogram import smooth_histogram
from mts_driver.refinement.observables.pair_density import PairDensity
from mts_driver.refinement.observables.rdf import RadialDistribution
from mts_driver.refinement.observables.selections import as_atoms, select

TRICLINIC = [[9.0, 0.0, 0.0], [2.0, 8.5, 0.0], [-1.0, 1.5, 10.0]]
EVEN = range(0, 24, 2)


def central(function, x, entries, step=2e-6):
    """Central differences of a number with respect to some entries of x."""
    found = []
    for k in entries:
        ends = []
        for sign in (1, -1):
            moved = x.detach().clone()
            moved.view(-1)[k] += sign * step
            ends.append(float(function(moved)))
        found.append((ends[0] - ends[1]) / (2 * step))
    return torch.tensor(found, dtype=x.dtype)


def assert_gradient(function, x, count=12):
    """Autograd against central differences, in entries taken evenly from all."""
    x = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x), x)
    entries = torch.arange(0, x.numel(), max(1, x.numel() // count))
    expected = central(function, x, entries.tolist())
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient.view(-1)[entries], expected, rtol=1e-6, atol=1e-7)


# --- kernel


def test_the_kernel_is_a_density_with_its_integral_and_slope():
    u = torch.linspace(-5, 5, 5001, dtype=torch.float64)
    k = kernel.density(u)
    assert torch.trapezoid(k, u).item() == pytest.approx(1, abs=1e-9)
    running = torch.cumulative_trapezoid(k, u)
    torch.testing.assert_close(running, kernel.cumulative(u)[1:], atol=1e-6, rtol=0)
    inside = u.clone().requires_grad_()
    (slope,) = torch.autograd.grad(kernel.density(inside).sum(), inside)
    torch.testing.assert_close(kernel.slope(inside), slope)
    # of the width that is promised, but for what the cut takes
    assert torch.trapezoid(k * u**2, u).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("width", [0.05, 0.4])
def test_a_shell_is_what_uniform_density_puts_into_the_histogram(width):
    r = torch.tensor([0.0, 0.03, 0.1, 0.5, 1.5, 3.0], dtype=torch.float64)
    edges = torch.linspace(0, 6, 20001, dtype=torch.float64)
    d = 0.5 * (edges[1:] + edges[:-1])
    volumes = 4 / 3 * math.pi * (edges[1:] ** 3 - edges[:-1] ** 3)
    rows = torch.zeros(len(d), dtype=torch.int64)
    found = smooth_histogram(d, volumes, rows, r, width=width, n_rows=1)[0]
    torch.testing.assert_close(found, kernel.shell_A2(r, width), rtol=1e-5, atol=0)


def test_a_histogram_is_the_sum_of_kernels_in_rows_on_uneven_points():
    generator = torch.Generator().manual_seed(1)
    values = 3 * torch.rand(40, generator=generator, dtype=torch.float64)
    weights = torch.rand(40, generator=generator, dtype=torch.float64)
    rows = torch.randint(0, 3, (40,), generator=generator)
    points = torch.tensor([0.0, 0.01, 0.5, 0.55, 0.6, 1.7, 2.0, 2.9], dtype=torch.float64)
    dense = weights[:, None] * kernel.density((points - values[:, None]) / 0.2) / 0.2
    expected = torch.zeros(3, 8, dtype=torch.float64).index_add(0, rows, dense)
    found = smooth_histogram(values, weights, rows, points, width=0.2, n_rows=3)
    torch.testing.assert_close(found, expected)
    torch.autograd.gradcheck(
        lambda v: smooth_histogram(v, weights, rows, points, width=0.2, n_rows=3),
        values.requires_grad_(),
        eps=1e-6,
        atol=1e-7,
    )


# --- radial distribution


@pytest.mark.parametrize(
    ("first", "second", "molecules"),
    [
        (range(24), range(24), None),
        (range(10), range(10, 24), None),
        (range(16), range(8, 24), None),
        (range(24), range(24), [k // 3 for k in range(24)]),
        (range(0, 24, 3), range(1, 24, 3), [k // 3 for k in range(24)]),
    ],
    ids=["like", "unlike", "overlapping", "like-between-molecules", "unlike-between-molecules"],
)
def test_an_ideal_gas_is_one_everywhere(first, second, molecules):
    frames = gas(144, 24, TRICLINIC)
    r = torch.linspace(0, 3.4, 18)
    rdf = RadialDistribution(first, second, r_A=r, width_A=0.15, molecules=molecules)
    each = rdf.of_each(frames)
    assert each.shape == (144, 18)
    error = each.std(0) / 12
    assert (((each.mean(0) - 1) / error).abs() < 4).all()
    # where shells are large: to a percent, enough to miss one pair in 24
    shells = r.double() ** 2
    assert float((shells * each.mean(0)).sum() / shells.sum()) == pytest.approx(1, abs=0.02)


def test_freud_finds_the_same_with_narrow_kernels():
    import freud

    frames = gas(3, 120, TRICLINIC)
    edges = np.linspace(0, 4.0, 9)
    r = torch.linspace(0, 4.0, 40001, dtype=torch.float64)
    ours = RadialDistribution(range(50), range(50, 120), r_A=r, width_A=2e-4)(frames).numpy()
    box = freud.box.Box.from_matrix(np.array(TRICLINIC).T)
    theirs = freud.density.RDF(bins=8, r_max=4.0)
    for x in frames.positions.numpy():
        points = box.wrap(x)
        theirs.compute((box, points[:50]), query_points=points[50:], reset=False)
    shells = 4 * np.pi / 3 * np.diff(edges**3)
    counts = [
        np.trapezoid((4 * np.pi * r.numpy() ** 2 * ours)[k : k + 5001], r[k : k + 5001])
        for k in range(0, 40000, 5000)
    ]
    pair = float(torch.linalg.det(frames.cell)) / (50 * 70 * 3)
    assert max(counts) > 1000 * pair
    # but for those that the kernel takes across an edge
    np.testing.assert_allclose(counts, theirs.rdf * shells, rtol=0, atol=1.5 * pair)


def test_the_report_of_a_run_finds_the_same():
    # a loose lattice, so that there are peaks
    generator = torch.Generator().manual_seed(2)
    grid = 2.5 * torch.cartesian_prod(*[torch.arange(4.0, dtype=torch.float64)] * 3)
    x = grid + 0.2 * torch.randn(10, 64, 3, generator=generator, dtype=torch.float64)
    frames = snapshots(x, cell=10 * torch.eye(3, dtype=torch.float64))
    trajectory = Trajectory(
        np.array(["O"] * 64), np.arange(10), x.numpy(), frames.cell.expand(10, 3, 3).numpy()
    )
    theirs = radial_distribution(trajectory, r_max=4.5)
    rdf = RadialDistribution(range(64), range(64), r_A=theirs.r, width_A=0.02)
    # freud counts an atom among its neighbours' number
    ours = rdf(frames).numpy() * 63 / 64
    assert np.abs(ours - theirs.g).mean() < 0.05 < theirs.g.max() / 20


def test_gradients_of_g_are_those_of_differences():
    frames = gas(2, 20, TRICLINIC)
    r = torch.linspace(0.1, 3.2, 12)
    molecules = [k // 2 for k in range(20)]
    rdf = RadialDistribution(range(12), range(6, 20), r_A=r, width_A=0.2, molecules=molecules)
    target = torch.linspace(0, 2, 12, dtype=torch.float64)
    assert_gradient(
        lambda x: (rdf(frames._replace(positions=x)) - target).square().sum(), frames.positions
    )
    cell = frames.cell
    # the density, too, is a function of the cell
    assert_gradient(lambda c: (rdf(frames._replace(cell=c)) - target).square().sum(), cell, 9)


def test_replicas_and_single_precision():
    frames = gas(4, 20, TRICLINIC)
    rdf = RadialDistribution(range(20), range(20), r_A=[1.0, 2.0, 3.0], width_A=0.2)
    each = rdf.of_each(frames)
    pairs = frames._replace(
        steps=(0, 1),
        positions=frames.positions.view(2, 2, 20, 3),
        velocities=frames.velocities.view(2, 2, 20, 3),
    )
    assert torch.equal(rdf.of_each(pairs), each.view(2, 2, 3))
    assert torch.equal(rdf(pairs), rdf(frames))
    single = rdf(frames._replace(positions=frames.positions.float(), cell=frames.cell.float()))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), rdf(frames), rtol=1e-4, atol=1e-5)


def test_nothing_in_reach_is_zero_with_a_gradient_of_zero():
    x = torch.tensor([[[0.0, 0, 0], [4, 4, 4]]] * 2, dtype=torch.float64, requires_grad=True)
    frames = snapshots(x, cell=9 * torch.eye(3, dtype=torch.float64))
    g = RadialDistribution([0], [1], r_A=[1.0, 2.0], width_A=0.1)(frames)
    assert g.tolist() == [0.0, 0.0]
    (gradient,) = torch.autograd.grad(g.sum(), x)
    assert not gradient.any()


# --- neighbours


def test_a_coordination_number_is_the_integral_of_the_pair_density():
    frames = gas(2, 30, TRICLINIC)
    r = torch.linspace(0, 3.4, 3401, dtype=torch.float64)
    density = PairDensity(range(30), range(30), r_A=r, width_A=0.1)(frames)
    number = CoordinationNumber(range(30), range(30), within_A=3.0, width_A=0.1)
    upto = r <= 3.0
    assert float(number(frames)) == pytest.approx(
        float(torch.trapezoid(density[upto], r[upto])), rel=1e-5
    )
    assert number.of_each(frames).shape == (2,)
    assert_gradient(lambda x: number(frames._replace(positions=x)), frames.positions)


def test_a_cluster_has_neighbours_without_a_cell():
    triangle = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 0.75**0.5, 0], [9, 9, 9]]).double()
    frames = snapshots(triangle[None])
    number = CoordinationNumber([0, 1, 2], range(4), within_A=1.5, width_A=0.1)
    assert float(number(frames)) == pytest.approx(2.0)
    assert float(PairDensity([0], range(4), r_A=[1.0], width_A=0.1)(frames)[0]) == pytest.approx(
        2 * float(kernel.density(torch.tensor(0.0))) / 0.1
    )


# --- bonds


def test_bonds_across_the_cell_and_their_moments():
    cell = torch.tensor(TRICLINIC, dtype=torch.float64)
    start = torch.tensor([[0.1, 0.2, 0.3], [1.1, 0.2, 0.3], [4.0, 4, 4], [4, 5.2, 4]]).double()
    torn = start.clone()
    torn[1] += 2 * cell[0] - cell[1] + cell[2]
    frames = snapshots(torch.stack([start, torn]), cell=cell)
    bonds = [(1, 0), (2, 3)]
    expected = torch.tensor([[1.0, 1.2], [1.0, 1.2]]).double()
    torch.testing.assert_close(bond_lengths(frames, bonds), expected, rtol=0, atol=1e-6)
    mean, variance = bond_length_moments(frames, bonds)
    assert (float(mean), float(variance)) == pytest.approx((1.1, 0.01), rel=1e-5)
    assert_gradient(
        lambda x: bond_length_moments(frames._replace(positions=x), bonds).variance_A2,
        frames.positions,
    )


def test_a_distribution_of_lengths_is_normalised_with_the_right_width():
    generator = torch.Generator().manual_seed(3)
    lengths = 0.97 + 0.05 * torch.randn(4000, generator=generator, dtype=torch.float64)
    x = torch.zeros(4000, 2, 3, dtype=torch.float64)
    x[:, 1, 2] = lengths
    r = torch.linspace(0.6, 1.4, 161, dtype=torch.float64)
    density = bond_length_distribution(snapshots(x), [(0, 1)], r_A=r, width_A=0.02)
    assert float(torch.trapezoid(density, r)) == pytest.approx(1, abs=1e-6)
    spread = math.hypot(0.05, 0.02)
    exact = torch.exp(-0.5 * ((r - 0.97) / spread) ** 2) / (spread * math.sqrt(2 * math.pi))
    assert float((density - exact).abs().max()) < 0.06 * float(exact.max())
    assert_gradient(
        lambda x: (
            bond_length_distribution(snapshots(x), [(0, 1)], r_A=r[::8], width_A=0.02)
            .square()
            .sum()
        ),
        x[:20] + 0.1 * torch.randn(20, 2, 3, generator=generator, dtype=torch.float64),
    )


# --- selections and bad input


def test_atoms_are_selected_by_their_elements():
    symbols = ["O", "H", "H", "C", "O"]
    assert select(symbols, "O").tolist() == [0, 4]
    assert select(symbols, "H", "C").tolist() == [1, 2, 3]
    for wrong, message in ((("N",), "'N'.*C, H, O"), ((), "at least one")):
        with pytest.raises(UserError, match=message):
            select(symbols, *wrong)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        ([], "at least one atom"),
        ([[0, 1]], "shape"),
        ([0, 0], "repeated"),
        ([-1, 2], "negative"),
        (np.array([True, False]), "mask.nonzero"),
        ([0.0, 1.0], "type"),
    ],
)
def test_selections_are_indices(atoms, message):
    with pytest.raises(UserError, match=message):
        as_atoms(atoms, "first")
    with pytest.raises(UserError, match=message):
        RadialDistribution([0], atoms, r_A=[1.0], width_A=0.1)


def rdf(frames=None, first=range(20), second=range(20), r_A=(1.0, 2.0), width_A=0.1, **more):
    frames = gas(2, 20, TRICLINIC) if frames is None else frames
    return RadialDistribution(first, second, r_A=list(r_A), width_A=width_A, **more)(frames)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"r_A": (2.0, 4.0)}, r"reaches to 4\.4 Å.*up to 4\.\d+ Å"),
        ({"r_A": (2.0, 1.0)}, "ascend"),
        ({"r_A": ()}, "ascend"),
        ({"r_A": (-1.0, 1.0)}, "ascend"),
        ({"r_A": (1.0, math.nan)}, "ascend"),
        ({"width_A": 0.0}, "width_A is 0"),
        ({"first": [20]}, "names atom 20, but there are only 20"),
        ({"first": [3], "second": [3]}, "no pair"),
        ({"molecules": [0] * 20}, "no pair"),
        ({"molecules": range(21)}, "molecules are of 21 atoms"),
        ({"molecules": range(19)}, "names atom 19"),
        ({"frames": gas(2, 20, TRICLINIC)._replace(cell=torch.zeros(3, 3))}, "no volume"),
        ({"frames": gas(2, 20, TRICLINIC)._replace(cell=torch.eye(4))}, r"cell has shape \(4, 4\)"),
        ({"frames": gas(2, 20, TRICLINIC)._replace(steps=(1,))}, "for 1 steps"),
        ({"frames": gas(2, 20, TRICLINIC)._replace(steps=())}, "empty"),
        ({"frames": gas(2, 20, TRICLINIC)._replace(masses=torch.ones(3))}, "same atoms"),
    ],
)
def test_bad_input_of_a_radial_distribution(wrong, message):
    with pytest.raises(UserError, match=message):
        rdf(**wrong)


def test_a_slab_has_no_nearest_images():
    frames = gas(1, 20, TRICLINIC)._replace(cell=torch.diag(torch.tensor([9.0, 9.0, 0.0])).double())
    with pytest.raises(UserError, match="periodic in three directions"):
        PairDensity(range(20), range(20), r_A=[1.0], width_A=0.1)(frames)


@pytest.mark.parametrize(
    ("bonds", "message"),
    [
        (np.zeros((0, 2), int), "at least one bond"),
        ([0, 1], "shape"),
        ([(0.0, 1.0)], "type"),
        ([(0, 0)], "itself"),
        ([(0, -1)], "negative"),
        ([(0, 4)], "names atom 4"),
        ([(0, 1)], "6.062 Å long"),
    ],
)
def test_bad_bonds(bonds, message):
    x = torch.tensor([[0.0, 0, 0], [3.5, 3.5, 3.5], [1, 0, 0], [2, 0, 0]]).double()
    with pytest.raises(UserError, match=message):
        bond_lengths(snapshots(x[None], cell=8 * torch.eye(3).double()), bonds)


def test_a_step_has_room_for_its_width():
    with pytest.raises(UserError, match=r"within_A is 0\.3"):
        CoordinationNumber([0], [1], within_A=0.3, width_A=0.1)
