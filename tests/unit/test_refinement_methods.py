"""Ways to a gradient agree where they must, and a fit goes on where it was killed."""

from dataclasses import replace

import pytest
import torch
from analytic import chain_state
from fitted import Fitted, springs

from integrators.bath import Bath
from integrators.levels import SingleLevel, TwoLevel
from integrators.splitting import baoab, respa_baoab
from integrators.state import initial_state
from mts_driver.errors import UserError
from mts_driver.refinement.fit import FitSettings, fit
from mts_driver.refinement.methods.autograd import through_autograd
from mts_driver.refinement.methods.differences import Differences
from mts_driver.refinement.methods.reversible import Reversible
from mts_driver.refinement.methods.reweighting import Reweighting
from mts_driver.refinement.problem import Problem

BATH = Bath(kT=0.1, friction=1.0)


class WithEnergy(Fitted):
    def energy(self, positions, cell):
        return springs(positions, **dict(self.named_parameters()))


def stretch(seen):
    """Mean square of bond lengths, which may be weighted, and its square distance from 0.2."""
    found = (seen.positions[..., 1:, :] - seen.positions[..., :-1, :]).square().sum(-1).mean(-1)
    mean = found.mean() if seen.weights is None else (seen.weights * found).sum()
    return (mean - 0.2) ** 2


def problem_of(potential, **more):
    of = {
        "levels": SingleLevel(potential),
        "splitting": baoab(),
        "parameters": dict(potential.named_parameters()),
        "loss": stretch,
        "steps": 40,
        "snapshots": tuple(range(10, 41, 5)),
        "timestep_fs": 0.1,
        "bath": BATH,
        "settle_steps": 7,
    }
    return Problem(**of | more)


def potential_of(k=1.0):
    return WithEnergy(springs, k=k, k4=0.1, well=0.5)


def test_exact_methods_agree_to_rounding():
    problem, start = problem_of(potential_of()), initial_state(*chain_state((3,)))
    ours, graph, slopes = (
        method(problem, start, 3) for method in (Reversible(), through_autograd, Differences())
    )
    assert ours.loss == pytest.approx(graph.loss, rel=1e-12)
    for name, found in ours.gradients.items():
        assert found.item() == pytest.approx(graph.gradients[name].item(), rel=1e-9)
        assert slopes.gradients[name].item() == pytest.approx(found.item(), rel=1e-5)
    torch.testing.assert_close(ours.end.positions, graph.end.positions)
    assert not graph.end.positions.requires_grad
    assert ours.end.step == 47
    assert (ours.steps_run, graph.steps_run, slopes.steps_run) == (87, 47, 7 + 7 * 40)


def test_differences_leave_parameters_as_they_were():
    potential = potential_of()
    before = [p.item() for p in potential.parameters()]
    Differences()(problem_of(potential), initial_state(*chain_state()), 3)
    assert [p.item() for p in potential.parameters()] == before


@pytest.mark.slow
def test_reweighting_agrees_on_averages_over_an_ensemble():
    """Both estimate the slope of the same average; the error is that of the sampling."""
    potential = potential_of()
    start = initial_state(*chain_state((400,)))
    of = {"steps": 300, "snapshots": tuple(range(20, 301, 20)), "settle_steps": 200}
    problem = problem_of(potential, **of)
    ours, other = (method(problem, start, 3) for method in (Reversible(), Reweighting()))
    assert other.loss == pytest.approx(ours.loss, rel=1e-9)
    for name in ("k", "well"):
        assert other.gradients[name].item() == pytest.approx(ours.gradients[name].item(), rel=0.1)


def test_reweighting_keeps_its_states_while_they_count():
    potential, method = potential_of(), Reweighting()
    problem, start = problem_of(potential), initial_state(*chain_state((3,)))
    first = method(problem, start, 3)
    assert first.told["effective_share"] == pytest.approx(1.0)
    with torch.no_grad():
        potential.k.mul_(1.0001)
    second = method(problem, start, 4)
    assert (first.steps_run, second.steps_run) == (47, 0)
    assert second.told["effective_share"] < 1.0
    with torch.no_grad():
        potential.k.mul_(10.0)
    assert method(problem, start, 5).steps_run == 47


def test_what_reweighting_cannot_do_is_said():
    potential, start = potential_of(), initial_state(*chain_state())
    dual = TwoLevel(potential_of(), potential, clip=None)
    with pytest.raises(UserError, match="use the reversible method"):
        Reweighting()(problem_of(potential, levels=dual, splitting=respa_baoab(2)), start, 1)
    nve = problem_of(potential, splitting=baoab().without_ou(), bath=None)
    with pytest.raises(UserError, match="needs a temperature"):
        Reweighting()(nve, start, 1)
    idle = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match="idle touches neither energies nor the loss"):
        Reweighting()(problem_of(potential, parameters={"idle": idle}), start, 1)


def test_reweighting_takes_a_model_whose_energy_is_elsewhere():
    potential, start = potential_of(), initial_state(*chain_state((3,)))
    forces_only = Fitted(springs, k=1.0, k4=0.1, well=0.5)
    with pytest.raises(UserError, match=r"energy\(positions, cell\)"):
        Reweighting()(problem_of(forces_only), start, 1)
    problem = problem_of(forces_only, parameters=dict(potential.named_parameters()))
    found = Reweighting(energy=potential.energy)(problem, start, 1)
    whole = Reweighting()(problem_of(potential), start, 1)
    assert found.gradients["k"].item() == pytest.approx(whole.gradients["k"].item(), rel=1e-12)


def test_a_fit_goes_on_as_if_it_had_not_stopped(tmp_path):
    start = initial_state(*chain_state((4,)))

    def run(updates, folder, **identity):
        potential = potential_of(k=1.5)
        history, end = fit(
            *(problem_of(potential), Reversible(), start),
            FitSettings(updates=updates, learning_rate=0.02),
            folder=folder,
            identity={"model": "springs"} | identity,
        )
        return [p.item() for p in potential.parameters()], history, end

    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, history, end = run(6, tmp_path / "whole")
    run(3, tmp_path / "parts")
    parts, again, ended = run(6, tmp_path / "parts")
    assert parts == whole
    assert torch.equal(end.positions, ended.positions)
    assert [u.loss for u in history] == [u.loss for u in again]
    with pytest.raises(UserError, match="was made with model='springs', not 'others'"):
        run(6, tmp_path / "parts", model="others")


def test_a_fit_lowers_its_loss():
    potential, start = potential_of(k=3.0), initial_state(*chain_state((50,)))
    problem = problem_of(potential, parameters={"k": potential.k}, settle_steps=60)
    history, _ = fit(problem, Reversible(), start, FitSettings(updates=30, learning_rate=0.1))
    assert max(update.loss for update in history[-3:]) < 0.3 * history[0].loss


def test_a_fit_returns_a_mean_over_its_updates():
    """Noise of gradients moves parameters to the end; the mean counts late ones more."""
    potential, start = potential_of(k=1.5), initial_state(*chain_state((4,)))
    problem = problem_of(potential, parameters={"k": potential.k})
    history, _ = fit(problem, Reversible(), start, FitSettings(updates=9, learning_rate=0.05))
    after = [update.parameters["k"] for update in history[1:]]
    last = history[-1].averaged["k"]
    assert potential.k.item() == last
    # the step of the last update is the one that no update shows as its start
    weights = [0.0] * 9
    for k in range(9):
        share = 5.0 / (5.0 + k)
        weights = [w * (1.0 - share) for w in weights]
        weights[k] = share
    final = (last - sum(w * k for w, k in zip(weights, after, strict=False))) / weights[-1]
    assert abs(final / after[-1] - 1.0) < 0.1
    assert history[0].averaged["k"] == after[0]


def test_a_trajectory_that_blows_up_names_the_update():
    start = initial_state(*chain_state())
    problem = problem_of(potential_of(), timestep_fs=1e6)
    with pytest.raises(UserError, match=r"update 0: .*blew up"):
        fit(problem, Reversible(anchor_every=5), start, FitSettings(updates=2))
    with pytest.raises(UserError, match="updates=0"):
        FitSettings(updates=0)
    with pytest.raises(UserError, match="learning_rate=0"):
        FitSettings(updates=1, learning_rate=0)
    with pytest.raises(UserError, match="seed=-1"):
        FitSettings(updates=1, seed=-1)


def test_no_method_changes_where_it_starts():
    start = initial_state(*chain_state())
    kept = replace(start, positions=start.positions.clone(), velocities=start.velocities.clone())
    for method in (Reversible(), through_autograd, Differences(), Reweighting()):
        method(problem_of(potential_of()), start, 2)
        assert torch.equal(start.positions, kept.positions)
        assert torch.equal(start.velocities, kept.velocities)
