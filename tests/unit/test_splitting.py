from dataclasses import FrozenInstanceError
from fractions import Fraction

import pytest

from integrators.splitting import OU, Drift, Kick, Splitting, baoab, obabo, respa_baoab

HALF = Fraction(1, 2)


def test_one_inner_step_reads_as_the_paper():
    slow, fast, drift, ou = Kick("slow", HALF), Kick("fast", HALF), Drift(HALF), OU(Fraction(1))
    assert tuple(respa_baoab(1)) == (slow, fast, drift, ou, drift, fast, slow)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
def test_respa_baoab_keeps_neighbouring_kicks_apart(n):
    splitting = respa_baoab(n)
    assert len(splitting) == 2 + 5 * n
    assert splitting.levels == ("slow", "fast")
    kicks = [op.weight for op in splitting if isinstance(op, Kick) and op.level == "fast"]
    assert kicks == [Fraction(1, 2 * n)] * (2 * n)
    assert [op.weight for op in splitting if isinstance(op, OU)] == [Fraction(1, n)] * n


@pytest.mark.parametrize("splitting", [baoab(), obabo(), respa_baoab(3)], ids=lambda s: s.name)
def test_without_ou_keeps_everything_else(splitting):
    nve = splitting.without_ou()
    assert splitting.has_ou and not nve.has_ou
    assert tuple(nve) == tuple(op for op in splitting if not isinstance(op, OU))


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ((Kick("fast", Fraction(1)), Drift(Fraction(1))), "palindrome"),
        ((Drift(HALF), OU(HALF), Drift(HALF)), "OU steps .* 1/2"),
        ((Drift(HALF), OU(Fraction(2)), Drift(HALF)), "OU steps .* 2"),
        ((Drift(HALF),), "drifts .* 1/2"),
        ((OU(Fraction(1)),), "drifts .* 0"),
        ((Kick("fast", Fraction(1)), Drift(Fraction(1)), Kick("fast", Fraction(1))), "'fast'.* 2"),
        ((Drift(0.5), Drift(0.5)), "weight 0.5"),
        ((Drift(Fraction(-1)), Drift(Fraction(3)), Drift(Fraction(-1))), "weight Fraction"),
        (("B",), "operation 0"),
    ],
)
def test_bad_splittings_are_refused(operations, message):
    with pytest.raises(ValueError, match=message):
        Splitting(operations, "bad")


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "3"])
def test_bad_n_is_refused(n):
    with pytest.raises(ValueError, match="integer of at least 1"):
        respa_baoab(n)


def test_splittings_are_frozen_and_comparable():
    assert respa_baoab(2) == respa_baoab(2) != respa_baoab(3)
    with pytest.raises(FrozenInstanceError):
        respa_baoab(2).name = "other"
