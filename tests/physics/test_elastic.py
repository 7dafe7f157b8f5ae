"""Stress and elastic constants of crystals whose values are known, or follow from symmetry."""

import numpy as np
import pytest
import torch
from crystals import DIAMOND, FCC, LennardJones, StillingerWeber, crystal
from snapshot_makers import snapshots

from mts_driver.errors import UserError
from mts_driver.refinement.observables.elastic import elastic_constants
from mts_driver.refinement.observables.stress import kinetic_pressure, potential_stress, pressure
from mts_driver.units import BOLTZMANN_EV_K, EV_A3_GPA

SILICON_A = 5.4309497
UNITY = torch.eye(3, dtype=torch.float64)


def cubic(constants):
    """C11, C12 and C44 of a cubic crystal, whose other constants vanish."""
    c = constants.detach()
    c11, c12, c44 = c[0, 0], c[0, 1], c[3, 3]
    expected = torch.zeros(6, 6, dtype=c.dtype)
    expected[:3, :3] = c12
    expected.diagonal()[:3], expected.diagonal()[3:] = c11, c44
    torch.testing.assert_close(c, expected, atol=1e-6, rtol=1e-6)
    return float(c11), float(c12), float(c44)


@pytest.fixture(scope="module")
def silicon():
    return StillingerWeber().requires_grad_(False)


@pytest.fixture(scope="module")
def argon():
    """Lennard-Jones at zero pressure: potential, positions and cell."""
    potential = LennardJones().requires_grad_(False)
    low, high = 5.0, 5.6
    for _ in range(20):
        middle = 0.5 * (low + high)
        tension = potential_stress(potential.energy, *crystal(FCC, middle))[0, 0]
        low, high = (low, middle) if tension > 0 else (middle, high)
    return potential, *crystal(FCC, middle)


def test_silicon_has_the_constants_that_were_published(silicon):
    x, cell = crystal(DIAMOND, SILICON_A)
    # at rest each bond has the depth of the well
    assert float(silicon.energy(x, cell)) / 8 == pytest.approx(-4.3366, abs=1e-4)
    relaxed, clamped, stress = elastic_constants(silicon.energy, x, cell)
    # Balamane, Halicioglu and Tiller, Phys. Rev. B 1992, 46, 2250, who have ε = 2.315 eV: 161.7,
    # 81.6, 60.3, and 117.2 without relaxation
    scale = 2.1683 / 2.315
    published = np.array([161.7, 81.6, 60.3, 117.2]) * scale
    assert cubic(relaxed) == pytest.approx(published[[0, 1, 2]], abs=0.2)
    assert cubic(clamped) == pytest.approx(published[[0, 1, 3]], abs=0.2)
    assert stress.abs().max() < 0.01
    assert not relaxed.requires_grad


def test_the_internal_strain_is_what_relaxed_atoms_of_a_sheared_cell_do(silicon):
    x, cell = crystal(DIAMOND, SILICON_A)

    def relaxed_energy(shear):
        # a Lagrangian strain of shear / 2 off the diagonal, and of nothing on it
        eta = torch.zeros(3, 3, dtype=torch.float64)
        eta[1, 2] = eta[2, 1] = 0.5 * shear
        values, vectors = torch.linalg.eigh(UNITY + 2 * eta)
        deformation = vectors @ values.sqrt().diag() @ vectors.T
        y, box = (x @ deformation).requires_grad_(), cell @ deformation
        optimiser = torch.optim.LBFGS(
            [y], max_iter=60, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def closure():
            optimiser.zero_grad()
            energy = silicon.energy(y, box)
            energy.backward()
            return energy

        optimiser.step(closure)
        return float(silicon.energy(y.detach(), box))

    step = 0.004
    middle = relaxed_energy(0.0)
    curvature = (relaxed_energy(step) - 2 * middle + relaxed_energy(-step)) / step**2
    found = elastic_constants(silicon.energy, x, cell).relaxed[3, 3]
    expected = curvature * EV_A3_GPA / float(torch.linalg.det(cell))
    assert float(found) == pytest.approx(expected, rel=2e-3)


def test_a_stress_after_a_strain_is_the_clamped_constant(silicon):
    x, cell = crystal(DIAMOND, SILICON_A)
    clamped = elastic_constants(silicon.energy, x, cell).clamped
    step = 1e-4
    strain = torch.zeros(3, 3, dtype=torch.float64)
    strain[0, 1] = strain[1, 0] = 0.5 * step
    strain[0, 0] = 2 * step
    plus, minus = (
        potential_stress(silicon.energy, x @ (UNITY + e), cell @ (UNITY + e))
        for e in (strain, -strain)
    )
    slope = (plus - minus).detach() / (2 * step)
    assert float(slope[0, 0]) == pytest.approx(2 * float(clamped[0, 0]), rel=1e-3)
    assert float(slope[1, 1]) == pytest.approx(2 * float(clamped[0, 1]), rel=1e-3)
    assert float(slope[0, 1]) == pytest.approx(float(clamped[5, 5]), rel=1e-3)


def test_pair_forces_make_c12_and_c44_equal(argon):
    potential, x, cell = argon
    c11, c12, c44 = cubic(elastic_constants(potential.energy, x, cell).relaxed)
    assert c12 == pytest.approx(c44, rel=1e-6)
    # about those of argon at 0 K (ε/σ³ is 42 MPa)
    assert 3 < c11 < 5 and 0.5 < c12 / c11 < 0.65
    # with Lagrangian strain at any pressure
    squeezed = elastic_constants(potential.energy, *crystal(FCC, 5.0))
    assert float(squeezed.stress[0]) < -0.3
    _, c12, c44 = cubic(squeezed.relaxed)
    assert c12 == pytest.approx(c44, rel=1e-6)


def test_a_lattice_of_one_atom_and_a_supercell_have_the_same_constants(argon):
    potential, x, cell = argon
    constant = float(cell[0, 0])
    one = constant * torch.tensor([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]).double()
    expected = cubic(elastic_constants(potential.energy, x, cell).relaxed)
    alone = elastic_constants(potential.energy, torch.zeros(1, 3), one)
    assert cubic(alone.relaxed) == pytest.approx(expected, rel=1e-6)
    pair = torch.cat([x, x + torch.tensor([0, 0, constant], dtype=torch.float64)])
    double = cell * torch.tensor([[1.0], [1.0], [2.0]])
    assert cubic(elastic_constants(potential.energy, pair, double).relaxed) == pytest.approx(
        expected, rel=1e-6
    )


def test_gradients_with_respect_to_parameters_are_those_of_differences():
    x, cell = crystal(DIAMOND, SILICON_A)
    potential = StillingerWeber()

    def fitted():
        relaxed, clamped, stress = elastic_constants(potential.energy, 1.01 * x, 1.01 * cell)
        return relaxed[0, 0] + 2 * relaxed[3, 3] + 0.5 * clamped[3, 3] + 10 * stress[0]

    gradients = torch.autograd.grad(fitted(), tuple(potential.parameters()))
    for parameter, gradient in zip(potential.parameters(), gradients, strict=True):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-4
                ends.append(float(fitted().detach()))
                parameter -= sign * 1e-4
        assert float(gradient) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-6)


# --- pressure


def test_the_pressure_is_minus_the_slope_of_the_energy_with_the_volume(argon):
    potential, x, cell = argon
    frames = snapshots(torch.stack([0.96 * x] * 2)[:, None].expand(-1, 3, -1, -1), cell=0.96 * cell)
    found = pressure(potential.energy, frames)
    assert found.shape == (2,)
    ends = [
        (float(potential.energy(s * x, s * cell)), float(torch.linalg.det(s * cell)))
        for s in (0.9601, 0.9599)
    ]
    slope = (ends[0][0] - ends[1][0]) / (ends[0][1] - ends[1][1])
    assert float(found[0]) == pytest.approx(-slope * EV_A3_GPA, rel=1e-5)
    assert float(found[0]) > 0.3


def test_an_ideal_gas_has_its_pressure():
    # equipartition made exact: ± the thermal speed in each direction
    masses = torch.tensor([100.0, 400.0, 100.0, 400.0, torch.inf], dtype=torch.float64)
    speed = (BOLTZMANN_EV_K * 300 / masses).sqrt()[:, None]
    signs = torch.tensor([[1, 1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, -1], [0, 0, 0]]).double()
    x = torch.zeros(1, 5, 3, dtype=torch.float64)
    frames = snapshots(x, velocities=(signs * speed)[None], masses=masses, cell=20 * UNITY)
    found = torch.einsum("kaa->k", kinetic_pressure(frames)) / 3
    in_pascal = 4 * 1.380649e-23 * 300 / (20e-10) ** 3
    assert float(found) * 1e9 == pytest.approx(in_pascal, rel=1e-6)
    still = pressure(lambda x, cell: 0.0 * (x.sum((-2, -1)) + cell.sum()), frames)
    assert float(still) == pytest.approx(float(found))


def test_gradients_of_a_pressure_reach_positions_and_parameters(argon):
    _, x, cell = argon
    potential = LennardJones()
    moved = x + 0.1 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()

    def of(moved, epsilon, sigma):
        potential.epsilon_eV.data, potential.sigma_A.data = epsilon.data, sigma.data
        return pressure(potential.energy, snapshots(moved[None], cell=cell))[0]

    inputs = (moved.requires_grad_(), potential.epsilon_eV, potential.sigma_A)
    start = [t.detach().clone() for t in inputs]
    gradients = torch.autograd.grad(of(*inputs), inputs)
    for which, gradient in enumerate(gradients):
        for k in range(min(4, gradient.numel())):
            ends = []
            for sign in (1, -1):
                changed = [t.clone() for t in start]
                changed[which].view(-1)[k] += sign * 1e-5
                ends.append(float(of(*changed).detach()))
            assert float(gradient.view(-1)[k]) == pytest.approx(
                (ends[0] - ends[1]) / 2e-5, rel=1e-6
            )


# --- bad input


def test_bad_input(silicon):
    x, cell = crystal(DIAMOND, SILICON_A)
    shaken = x + 0.05 * torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).double()
    for energy, positions, box, message in (
        (silicon.energy, x, 0 * cell, "no volume"),
        (silicon.energy, x[None], cell, r"shape \(1, 8, 3\)"),
        (silicon.energy, shaken, cell, r"not at rest.*largest_force_eV_A"),
        (lambda x, cell: silicon.energy(x, cell.detach()), x, cell, "graph to the cell"),
        (lambda x, cell: silicon.energy(x, cell).detach(), x, cell, "graph to the cell"),
        (lambda x, cell: -silicon.energy(x, cell), x, cell, "no minimum"),
        (lambda x, cell: silicon.energy(x[:8], cell), torch.cat([x, x[:1]]), cell, "no minimum"),
    ):
        with pytest.raises(UserError, match=message):
            elastic_constants(energy, positions, box)
    with pytest.raises(UserError, match="graph to the cell"):
        potential_stress(lambda x, cell: silicon.energy(x, cell.detach()), x, cell)
    with pytest.raises(UserError, match="no volume"):
        pressure(silicon.energy, snapshots(np.zeros((1, 4, 3))))
