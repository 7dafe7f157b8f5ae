"""Coloured noise and held distances in requests to take steps: what is wrong is said."""

import numpy as np
import pytest

from mts_driver.drivers.step_requests import beside, check, draws
from mts_driver.errors import UserError


def request(beads=1, **more):
    """Three atoms; what is given replaces or joins what they need."""
    return {
        "q": np.zeros((beads, 3, 3)),
        "p": np.zeros((beads, 3, 3)),
        "masses": np.ones(3),
        "cell": np.zeros((3, 3)),
        "friction": np.zeros(0),
        "groups": np.ones((1, 3), bool),
        "modes": np.eye(beads) if beads > 1 else np.zeros(0),
        "omega": np.ones(beads) if beads > 1 else np.zeros(0),
        **more,
    }


NOISE = {"drift": np.eye(2), "extra": np.zeros((1, 1, 3, 3))}
HELD = {"held": np.array([[0.0, 1.0]]), "lengths": np.ones(1)}
WRONG = {
    "noise and friction": ({**NOISE, "friction": np.ones((1, 3))}, "friction of shape"),
    "no extra momenta": ({"drift": np.eye(2)}, "without its extra momenta"),
    "other extra momenta": ({**NOISE, "extra": np.zeros((2, 1, 3, 3))}, "extra of shape"),
    "too many": ({"drift": np.eye(40)}, "at most 30"),
    "no matrix": ({**NOISE, "drift": np.ones((2, 3))}, "drift of shape"),
    "not finite": ({**NOISE, "drift": np.eye(2) * np.nan}, "drift that is not finite"),
    "beads": ({**NOISE, "beads": 2}, "for 2 beads"),
    "half an atom": ({**HELD, "held": np.array([[0.0, 1.5]])}, "no whole numbers"),
    "no length": ({**HELD, "lengths": np.zeros(0)}, "not one length"),
    "three atoms": ({**HELD, "held": np.zeros((1, 3))}, "held of shape"),
}
IMPOSSIBLE = {
    "no equilibrium": ({**NOISE, "drift": np.array([[1.0, 3.0], [3.0, 1.0]])}, "negative"),
    "no such atom": ({**HELD, "held": np.array([[0.0, 7.0]])}, "outside 0..2"),
    "the same atom": ({**HELD, "held": np.array([[1.0, 1.0]])}, "same atom"),
    "frictions": ({**HELD, "friction": np.array([[1.0, 2.0, 1.0]])}, "frictions that differ"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_are_wrong_are_refused(case):
    more, said = WRONG[case]
    with pytest.raises(UserError, match=said):
        check(request(**more), 1, 3)


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_is_refused(case):
    more, said = IMPOSSIBLE[case]
    arrays = request(**more)
    check(arrays, 1, 3)
    with pytest.raises(UserError, match=said):
        beside(arrays)


def test_what_is_right_is_taken():
    assert check(request(**NOISE), 1, 3) and not check(request(**HELD), 1, 3)
    coloured, extra, none = beside(request(**NOISE))
    assert coloured is not None and extra.shape == (1, 1, 3, 3) and none is None
    none, _, constraints = beside(request(**HELD))
    assert none is None and constraints.count == 1
    coloured, _, constraints = beside(request(**NOISE, **HELD))
    assert coloured is not None and constraints.count == 1


def test_noise_has_a_row_for_every_momentum_and_one_for_what_is_held():
    rows = [draws(request(**more)) for more in ({}, HELD, NOISE, {**NOISE, **HELD})]
    assert rows == [(), (), (2,), (3,)]
    right, wrong = (np.zeros((1, k, 1, 3, 3)) for k in (3, 2))
    assert check(request(**NOISE, **HELD, noise=right), 1, 3, "noise")
    with pytest.raises(UserError, match=r"noise of shape .* where \(1, 3, 1, 3, 3\)"):
        check(request(**NOISE, **HELD, noise=wrong), 1, 3, "noise")
