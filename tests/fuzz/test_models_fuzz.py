"""Whatever a server asks a real model about: the pairs that there are, the same results always."""

from functools import cache
from itertools import product

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st
from strategies import cases, cells, numbers

from mts_driver.drivers.counters import Stats
from mts_driver.drivers.evaluator import Evaluator
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.structures.neighbors import VerletList
from mts_driver.units import BOHR_A

WATERS = np.array(
    [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [3, 0, 0], [3.96, 0, 0], [2.76, 0, 1]]
)
CUTOFF_A = 3.0


@st.composite
def clouds(draw: st.DrawFn) -> np.ndarray:
    """Positions (N, 3) of few atoms, in a line, in a plane, all over the place, or far from 0."""
    x = draw(numbers(draw(st.integers(1, 8)), 3, odd=False))
    x = x * [draw(st.sampled_from([0.0, 1.0, 1.0, 30.0, 1e3, 1e5])) for _ in range(3)]
    if draw(st.booleans()):
        x[draw(st.integers(0, len(x) - 1))] += draw(st.sampled_from([100.0, 1e4, -1e6]))
    return x + draw(st.sampled_from([0.0, 0.0, 1e3, -1e6]))


def all_pairs(x: np.ndarray, cell: np.ndarray) -> list[tuple[int, int]]:
    """Every pair within the cutoff, found by looking at all."""
    most = 0
    if cell.any():
        x = x - np.floor(x @ np.linalg.inv(cell)) @ cell
        most = int(CUTOFF_A * np.linalg.norm(np.linalg.inv(cell), axis=0).max()) + 1
    found = []
    for shift in product(range(-most, most + 1), repeat=3):
        d = np.linalg.norm(x[None] + np.array(shift) @ cell - x[:, None], axis=-1)
        found += [(int(i), int(j)) for i, j in zip(*np.nonzero(d < CUTOFF_A), strict=True)]
    found = [(i, j) for i, j in found if i <= j]
    for i in range(len(x)):
        found.remove((i, i))  # the atom itself; of its images one half
    own = [(i, j) for i, j in found if i == j]
    return sorted([(i, j) for i, j in found if i < j] + sorted(own)[::2])


@cases(30)
@given(clouds=st.lists(clouds(), min_size=1, max_size=3), cell=cells(odd=False))
def test_pairs_are_those_that_there_are(clouds, cell):
    number = len(clouds[0])
    kept = VerletList(cutoff_A=CUTOFF_A, skin_A=0.5)
    for x in (x for x in clouds if len(x) == number):
        cell_A = cell * BOHR_A
        try:
            found = kept.pairs(x, cell_A)
        except UserError as error:
            assert "cells apart" in str(error) and np.ptp(x, axis=0).max() > 60 * 7
            event("too far")
            continue
        assert list(zip(found.i.tolist(), found.j.tolist(), strict=True)) == all_pairs(x, cell_A)
        assert (found.distances < CUTOFF_A).all()
        event(f"{min(len(found.i), 3)} pairs, {'cell' if cell.any() else 'none'}")


@cache
def student() -> Evaluator:
    model = load_potential("student:water", [8, 1, 1, 8, 1, 1])
    return Evaluator(model, 6, stats=Stats("water"))


@cache
def waters() -> tuple[np.ndarray, ...]:
    """Two molecules alone, as they always are."""
    return student()(WATERS[None] / BOHR_A, np.zeros((1, 3, 3)))


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Positions (B, 6, 3) and cells (B, 3, 3), Bohr: molecules that were moved, or worse."""
    batch = draw(st.integers(1, 3))
    q = WATERS / BOHR_A + 0.05 * draw(numbers(batch, 6, 3, odd=draw(st.booleans())))
    change = draw(st.sampled_from(["none"] * 4 + ["wide", "twice", "far", "all"]))
    at = draw(st.integers(0, 5))
    if change == "wide":
        q[:, at] += 10.0 ** draw(st.integers(1, 12))
    elif change == "twice":
        q[:, at] = q[:, at - 1]
    elif change == "far":
        q += 10.0 ** draw(st.integers(1, 6))
    elif change == "all":
        q[:] = 0.0
    odd = change == "none" and draw(st.booleans())
    return q, np.stack([draw(cells(odd=odd)) for _ in range(batch)])


@cases(20)
@given(asked=st.lists(questions(), min_size=1, max_size=3))
def test_a_student_answers_rightly_or_says_what_is_wrong(asked):
    """One that has been asked anything before says the same as one that is asked first."""
    evaluate = student()
    for q, cell in asked:
        try:
            together = evaluate(q, cell)
        except UserError:
            event("refused")
            continue
        event("answered")
        assert all(np.isfinite(a).all() for a in together)
        for k in range(len(q)):
            evaluate.potential._lists = []
            evaluate.potential._builds = 0
            alone = evaluate(q[k : k + 1], cell[k : k + 1])
            for a, b in zip(together, alone, strict=True):
                np.testing.assert_allclose(a[k], b[0], rtol=1e-4, atol=1e-6)
    for now, before in zip(
        evaluate(WATERS[None] / BOHR_A, np.zeros((1, 3, 3))), waters(), strict=True
    ):
        np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-7)
