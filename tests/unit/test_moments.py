"""Steps along noisy gradients, and losses of noisy averages, where the exact answer is known."""

import math

import pytest
import torch

from integrators.reversible import Snapshots
from mts_driver.refinement.goals.goal import Goal, Observable, average, each_replica
from mts_driver.refinement.steps import moments
from mts_driver.refinement.steps.moments import Moments

VALLEY = math.sqrt(0.5) * torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
CURVATURES = torch.tensor([1e3, 1.0], dtype=torch.float64)


def walked(steps=300, rate=0.01):
    """Distance along a narrow valley of a quadratic loss whose noise is that of a fit."""
    noise = torch.Generator().manual_seed(3)
    x, taken = VALLEY @ torch.tensor([0.0, 1.0], dtype=torch.float64), Moments(2)
    for _ in range(steps):
        along = VALLEY.T @ x
        xi = torch.randn(2, generator=noise, dtype=torch.float64)
        x = x + rate * taken.step(VALLEY @ (CURVATURES * along + 3.0 * CURVATURES.sqrt() * xi))
    return 1.0 - (VALLEY.T @ x)[1].item()


def test_a_narrow_valley_is_walked_along(monkeypatch):
    whole = walked()
    monkeypatch.setattr(moments, "FEW", 0)
    assert whole > 0.4 and walked() < 0.2 * whole


@pytest.mark.parametrize("few", [0, 64])
def test_the_first_step_is_one_against_every_number(monkeypatch, few):
    monkeypatch.setattr(moments, "FEW", few)
    step = Moments(3).step(torch.tensor([2.0, -1e-6, 0.0], dtype=torch.float64))
    assert step[2] == 0 and step[0] < 0 < step[1]
    assert step[:2].abs().min() > 0.5 and step[:2].abs().max() <= 1.0


def test_goes_on_with_the_same_numbers():
    gradients = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()
    one, other = Moments(4), Moments(4)
    for g in gradients[:3]:
        one.step(g)
    other.load_state_dict(one.state_dict())
    for g in gradients[3:]:
        assert torch.equal(one.step(g), other.step(g))


def seen(values, weights=None):
    """States (K, R) of one atom, whose x is a number."""
    x = values[..., None, None] * torch.tensor([1.0, 0.0, 0.0]).double()
    ones = torch.ones(1, dtype=torch.float64)
    steps = tuple(range(len(values)))
    return Snapshots(steps, x, torch.zeros_like(x), torch.eye(3).double(), ones, 1.0, weights)


def goal(target):
    found = Observable("x", lambda s: average(s.positions[..., 0, 0][..., None], s)[0])
    target = torch.tensor(target, dtype=torch.float64)
    return Goal(found, target, torch.zeros_like(target), 1.0)


def test_noise_of_replicas_adds_nothing_to_a_loss():
    noise = torch.Generator().manual_seed(2)
    off, losses = 0.3, {1: [], 4: []}
    for _ in range(4000):
        values = torch.randn(1, 4, generator=noise, dtype=torch.float64)
        losses[4].append(goal(off).term().loss(seen(values)))
        losses[1].append(goal(off).term().loss(seen(values[:, :1])))
    mean = {n: torch.stack(found).mean().item() for n, found in losses.items()}
    assert mean[4] == pytest.approx(off**2, abs=0.03)
    assert mean[1] == pytest.approx(off**2 + 1.0, abs=0.1)


def test_a_replica_is_weighted_among_its_own():
    values = torch.arange(6, dtype=torch.float64).reshape(3, 2)
    weights = torch.tensor([[0.1, 0.0], [0.1, 0.0], [0.2, 0.6]], dtype=torch.float64)
    first, second = each_replica(seen(values, weights))
    assert first.weights.tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert goal(0.0).observable(first).item() == pytest.approx(2.5)
    assert goal(0.0).observable(second).item() == pytest.approx(5.0)
