"""The natural gradient goes where averages change, however stiff other directions are."""

import pytest
import torch
from analytic import chain_state
from fitted import Fitted, springs

from integrators.bath import Bath
from integrators.levels import SingleLevel
from integrators.reversible import Snapshots
from integrators.splitting import baoab
from integrators.state import initial_state
from mts_driver.errors import UserError
from mts_driver.refinement.fit import FitSettings, fit
from mts_driver.refinement.problem import Estimate, Problem
from mts_driver.refinement.steps.by_ensemble import ByEnsemble

KT = 0.1
STATES = 4000


def seen(x, weights=None):
    """One-dimensional states as snapshots of one atom."""
    positions = torch.zeros(len(x), 1, 1, 3, dtype=torch.float64)
    positions[:, 0, 0, 0] = x
    return Snapshots(
        tuple(range(len(x))),
        positions,
        positions,
        torch.eye(3, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        1.0,
        weights,
    )


BATH = Bath(kT=KT, friction=1.0)


def problem_of(parameters, loss=None, bath=BATH):
    return Problem(
        levels=SingleLevel(Fitted(springs, k=1.0, k4=0.1, well=0.5)),
        splitting=baoab(),
        parameters=parameters,
        loss=loss,
        steps=1,
        snapshots=(1,),
        timestep_fs=0.1,
        bath=bath,
    )


def found_of(states, gradients):
    end = initial_state(*chain_state())
    return Estimate(loss=1.0, gradients=gradients, end=end, steps_run=0, seen=states)


def leaves(**values):
    return {n: torch.tensor(v, dtype=torch.float64, requires_grad=True) for n, v in values.items()}


def test_a_step_is_the_inverse_covariance_of_energies_times_the_gradient():
    torch.manual_seed(0)
    x = torch.randn(STATES, dtype=torch.float64)
    parameters = leaves(soft=0.0, stiff=0.0)

    def energy(positions, cell):
        # two directions that are not independent, one a hundred times the other
        q = positions[..., 0, 0]
        return parameters["soft"] * q + 100.0 * parameters["stiff"] * (q + q.square())

    gradient = {"soft": torch.tensor(0.3).double(), "stiff": torch.tensor(-20.0).double()}
    moves, norm = ByEnsemble(energy)(problem_of(parameters), found_of(seen(x), gradient), 0.5)
    rows = torch.stack((x, 100.0 * (x + x.square())), 1)[:: STATES // 1000] / KT
    rows = rows - rows.mean(0)
    metric = rows.T @ rows / len(rows)
    g = torch.tensor([0.3, -20.0]).double()
    natural = torch.linalg.solve(metric, g)
    length = (g @ natural).sqrt()
    expected = -0.5 * natural / length
    assert norm == pytest.approx(length.item(), rel=1e-9)
    assert moves["soft"].item() == pytest.approx(expected[0].item(), rel=1e-6)
    assert moves["stiff"].item() == pytest.approx(expected[1].item(), rel=1e-6)
    # energies change by the rate, in kT, and with them the ensemble by half its square
    step = torch.stack((moves["soft"], moves["stiff"]))
    assert (step @ metric @ step).sqrt().item() == pytest.approx(0.5, rel=1e-6)


def test_weighted_states_count_as_they_are_weighted():
    x = torch.tensor([-1.0, 0.0, 1.0, 5.0] * 5, dtype=torch.float64)
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0] * 5, dtype=torch.float64).view(-1, 1) / 15.0
    parameters = leaves(k=0.0)

    def energy(positions, cell):
        return parameters["k"] * positions[..., 0, 0]

    gradient = {"k": torch.tensor(1.0).double()}
    for states in (seen(x, weights), seen(x[x < 2.0])):
        moves, _ = ByEnsemble(energy)(problem_of(parameters), found_of(states, gradient), 1.0)
        assert moves["k"].item() == pytest.approx(-KT / (2.0 / 3.0) ** 0.5, rel=1e-9)


def test_a_few_states_allow_a_few_directions():
    torch.manual_seed(1)
    x = torch.randn(20, dtype=torch.float64)
    parameters = {"w": torch.zeros(50, dtype=torch.float64, requires_grad=True)}
    powers = torch.arange(1, 51, dtype=torch.float64)

    def energy(positions, cell):
        return torch.sin(powers * positions[..., 0, 0]) @ parameters["w"]

    gradient = {"w": torch.ones(50, dtype=torch.float64)}
    moves, _ = ByEnsemble(energy)(problem_of(parameters), found_of(seen(x), gradient), 1.0)
    changes = torch.sin(powers * x[:, None]) / KT
    changes = changes - changes.mean(0)
    # within the four principal changes of energies, one for five states
    _, _, right = torch.linalg.svd(changes)
    inside = right[:4].T @ (right[:4] @ moves["w"])
    torch.testing.assert_close(inside, moves["w"], rtol=1e-8, atol=1e-12)


def test_a_fit_finds_a_spring_by_its_ensemble():
    def energy_of(k):
        return lambda positions, cell: 0.5 * k * positions[..., 0, 0].square()

    parameters = leaves(k=4.0)

    class Exact:
        """Averages of the harmonic oscillator: <x²> is to be that of k = 1."""

        def __call__(self, problem, start, seed):
            torch.manual_seed(start.step)
            k = parameters["k"].detach()
            x = torch.randn(500, dtype=torch.float64) * (KT / k).sqrt()
            slope = 2.0 * (KT / k - KT) * (-KT / k.square())
            found = found_of(seen(x), {"k": slope})
            return Estimate(
                loss=(KT / k - KT).square().item(),
                gradients=found.gradients,
                end=start,
                steps_run=1,
                seen=found.seen,
            )

    problem = problem_of(parameters)
    history, _ = fit(
        *(problem, Exact(), initial_state(*chain_state())),
        FitSettings(updates=40, learning_rate=0.4, decay=0.05),
        steps=ByEnsemble(energy_of(parameters["k"])),
    )
    assert history[0].parameters["k"] == 4.0
    assert parameters["k"].item() == pytest.approx(1.0, rel=0.05)


def test_a_metric_of_an_ensemble_needs_a_temperature():
    parameters = leaves(k=1.0)
    problem = problem_of(parameters, bath=None)
    with pytest.raises(UserError, match="metric=ensemble needs a temperature"):
        ByEnsemble(lambda x, c: x.sum())(problem, found_of(seen(torch.ones(3)), {}), 1.0)
