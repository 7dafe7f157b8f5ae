"""Networks that fill gaps: what they see, that they learn, that a kill costs nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mts_driver.distillation.training.budget import TrainingBudget
from mts_driver.errors import UserError
from mts_driver.super_resolution.compare import errors, errors_of_splines
from mts_driver.super_resolution.frames import Frames, gaps
from mts_driver.super_resolution.networks.body_frame import BodyFrames
from mts_driver.super_resolution.networks.file import (
    is_network,
    read_network,
    require_fits,
    save_network,
)
from mts_driver.super_resolution.networks.recurrences import NETWORKS, Hamiltonian, network
from mts_driver.super_resolution.networks.training import TrainingSettings, train_network

STRIDE = 10


def turned(rng, x):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return x @ (q * np.sign(np.linalg.det(q))).T


@pytest.fixture(scope="module")
def vibrations():
    """Three atoms on springs of two frequencies, which fly and turn; 0.5 fs."""
    rng, t = np.random.default_rng(1), 0.5 * np.arange(1500)
    rest = np.array([[0.0, 0, 0], [1.0, 0, 0], [0.0, 1.2, 0]])
    x, v = np.repeat(rest[None], len(t), 0), np.zeros((len(t), 3, 3))
    for atom, axis, period, size in ((1, 0, 11.0, 0.05), (2, 1, 17.0, 0.08), (0, 2, 29.0, 0.03)):
        w, phase = 2.0 * np.pi / period, rng.uniform(0, 6.28)
        x[:, atom, axis] += size * np.sin(w * t + phase)
        v[:, atom, axis] += size * w * np.cos(w * t + phase)
    x, v = turned(rng, x), turned(np.random.default_rng(1), v)
    rng = np.random.default_rng(5)
    x, v = turned(rng, x), turned(np.random.default_rng(5), v)
    drift = np.array([1e-3, 0.0, -2e-3])
    return Frames(np.array([8, 1, 1]), 0.5, x + drift * t[:, None, None], v + drift)


def trained(frames, tmp_path, updates=60, **choices):
    how = {"stride": STRIDE, "hidden": 32, "batch": 16, "network": "lstm"} | choices
    settings = TrainingSettings(**how)
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / "training.pt"
    return train_network([frames], settings, TrainingBudget(updates=updates), checkpoint=file)[0]


def error(fill, frames, window=1):
    between, truth = gaps(frames, STRIDE, window)
    return errors([fill(between)], [truth]).mean_error_A


def test_axes_of_a_body_do_not_see_where_it_is_or_how_it_is_turned():
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2, 1, 4, 3))
    masses = np.array([1.0, 12.0, 16.0, 1.0])
    reference = x[0] - (masses[:, None] * x[0]).sum(0) / masses.sum()
    own = BodyFrames.of(x, v, masses, reference).inwards(x[None], v[None], np.zeros(1))
    for seed in range(5):
        move, push = rng.normal(size=(2, 3))
        a, b = (turned(np.random.default_rng(seed), one) for one in (x, v))
        axes = BodyFrames.of(a + move, b + push, masses, reference)
        assert np.linalg.det(axes.turn[0]) == pytest.approx(1.0)
        seen = axes.inwards((a + move)[None], (b + push)[None], np.zeros(1))
        for mine, theirs in zip(own, seen, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_learns_to_fill_gaps(kind, vibrations, tmp_path):
    if kind in ("ode", "hamiltonian"):
        pytest.importorskip("torchdiffeq")
    before = error(trained(vibrations, tmp_path / "a", updates=1, network=kind), vibrations)
    after = error(trained(vibrations, tmp_path / "b", updates=100, network=kind), vibrations)
    # Hamilton's equations begin with a motion of their own
    assert after < (0.9 if kind == "hamiltonian" else 0.7) * before


def test_both_ways_are_better_than_one_and_than_lines(vibrations, tmp_path):
    both = error(trained(vibrations, tmp_path / "a", updates=150), vibrations)
    one = error(trained(vibrations, tmp_path / "b", updates=150, both_ways=False), vibrations)
    line = errors_of_splines([vibrations], STRIDE)["linear"].mean_error_A
    assert both < 0.5 * one and both < 0.5 * line


def test_what_is_filled_moves_with_the_molecule_and_turns_with_time(vibrations, tmp_path):
    """Neither a rotation of everything nor another sense of time is noticed."""
    fill = trained(vibrations, tmp_path, updates=20)
    between, _ = gaps(vibrations, STRIDE)
    here = fill(between)
    moved = replace(
        vibrations,
        positions_A=turned(np.random.default_rng(3), vibrations.positions_A) + 5.0,
        velocities_A_fs=turned(np.random.default_rng(3), vibrations.velocities_A_fs),
    )
    there = fill(gaps(moved, STRIDE)[0])
    np.testing.assert_allclose(there, turned(np.random.default_rng(3), here) + 5.0, atol=2e-5)
    np.testing.assert_allclose(fill(between.turned())[::-1], here, atol=2e-5)


def test_a_window_shows_more_frames_and_wants_them(vibrations, tmp_path):
    fill = trained(vibrations, tmp_path, updates=20, window=3)
    between, truth = gaps(vibrations, STRIDE, 3)
    assert fill(between).shape == truth.shape
    # frames that lie further out than the window are not looked at
    np.testing.assert_allclose(
        fill(gaps(vibrations.part(2, 1500), STRIDE, 3)[0]),
        fill(gaps(vibrations, STRIDE, 5)[0]),
        atol=1e-6,
    )
    with pytest.raises(UserError, match=r"wants 3 frames of 0\.5 fs at each end of a gap, and 1"):
        fill(gaps(vibrations, STRIDE)[0])


def test_a_killed_training_goes_on_to_the_last_bit(vibrations, tmp_path, monkeypatch):
    settings = TrainingSettings(stride=STRIDE, hidden=16, batch=8)
    budget, file = TrainingBudget(updates=12), tmp_path / "training.pt"

    class Killed(Exception):
        pass

    def kill(what, done, total):
        if done == 7:
            raise Killed

    whole, _ = train_network([vibrations], settings, budget, checkpoint=tmp_path / "whole.pt")
    monkeypatch.setattr("mts_driver.super_resolution.networks.training.SAVE_EVERY_S", 0.0)
    with pytest.raises(Killed):
        train_network([vibrations], settings, budget, checkpoint=file, report=kill)
    again, cost = train_network([vibrations], settings, budget, checkpoint=file)
    assert cost["updates"] == 12
    for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(UserError, match="was made with hidden=16, not 8: give another --output"):
        train_network([vibrations], replace(settings, hidden=8), budget, checkpoint=file)


def test_a_file_gives_the_same_model_back_and_other_atoms_are_refused(vibrations, tmp_path):
    fill, path = trained(vibrations, tmp_path, updates=5), tmp_path / "model.safetensors"
    save_network(fill, path, {"command": "here"})
    assert is_network(path) and not is_network(tmp_path / "training.pt")
    back, record = read_network(path)
    assert record == {"command": "here"}
    between, _ = gaps(vibrations, STRIDE)
    np.testing.assert_array_equal(back(between), fill(between))
    require_fits(back, vibrations)
    for change, message in (
        ({"numbers": np.array([8, 1, 6])}, "this model is of a molecule with the atomic numbers"),
        ({"numbers": np.array([1, 8, 1])}, "in the order"),
        ({"masses": np.array([16.0, 4.0, 1.0])}, "other masses"),
        ({"cell_A": np.eye(3)}, "the frames are periodic"),
    ):
        with pytest.raises(UserError, match=message):
            require_fits(back, replace(vibrations, **change))
    with pytest.raises(UserError, match="fills gaps of 5 fs, the frames are 4 fs apart"):
        back(gaps(vibrations, 8)[0])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read"):
        read_network(path)


def test_what_cannot_be_trained_on_is_said(vibrations, tmp_path):
    for runs, message in (
        ([replace(vibrations, cell_A=np.eye(3))], "is periodic: use a student"),
        ([vibrations, replace(vibrations, numbers=np.array([1, 8, 1]))], "another order"),
        ([vibrations, replace(vibrations, timestep_fs=1.0)], "every 0.5 fs and every 1 fs"),
        ([replace(vibrations, masses=np.array([1.0, np.inf, 1.0]))], "of this one are held"),
        ([replace(vibrations, velocities_A_fs=None)], "needs velocities"),
        ([vibrations.part(0, 20)], "no gap of 10 to train on"),
    ):
        with pytest.raises(UserError, match=message):
            train_network(
                runs,
                TrainingSettings(stride=STRIDE),
                TrainingBudget(updates=1),
                checkpoint=tmp_path / "x.pt",
            )
    with pytest.raises(UserError, match="stride=1: give 2 or more"):
        TrainingSettings(stride=1)
    with pytest.raises(UserError, match="use lstm, rnn, ode, hamiltonian"):
        network("transformer", 6, 8)


def test_hamiltons_equations_keep_the_hamiltonian():
    """Of a fixed network and a small step, to the order of the integrator."""
    pytest.importorskip("torchdiffeq")
    torch.manual_seed(0)
    net = Hamiltonian(4, 16).double()
    state = torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad():
        change, _ = net(state, None)
        before, after = net.energy(state), net.energy(state + change)
    assert float((after - before).abs().max()) < 1e-4 < 100 * float(change.abs().max())
