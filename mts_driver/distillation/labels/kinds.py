"""The kinds of labels: where a frame comes from, which decides what it is good for."""

from enum import StrEnum


class Kind(StrEnum):
    """Of a label, as its ``info["kind"]`` has it."""

    EQUIL = "equil"
    MD = "md"
    WARM = "warm"
    HOT = "hot"
    SHAKEN = "shaken"
    CONTACTS = "contacts"
    CONTACTS_TEST = "contacts-test"
    STRETCHED = "stretched"
    STIFF = "stiff"
    STIFF_TEST = "stiff-test"
    HOLE = "hole"
    HARD = "hard"


WHAT = {
    Kind.EQUIL: "dynamics before it counts as equilibrated",
    Kind.MD: "dynamics at the target temperature",
    Kind.WARM: "dynamics at 1.5 times the temperature",
    Kind.HOT: "dynamics at 2.2 times the temperature",
    Kind.SHAKEN: "displaced frames",
    Kind.CONTACTS: "close contacts",
    Kind.CONTACTS_TEST: "close contacts to test with",
    Kind.STRETCHED: "stretched bonds",
    Kind.STIFF: "force constants",
    Kind.STIFF_TEST: "force constants to test with",
    Kind.HOLE: "frames at which a student was wrong",
    Kind.HARD: "frames at which it was almost",
}
"""In words, as progress bars have them."""

DYNAMICS = (Kind.EQUIL, Kind.MD, Kind.WARM, Kind.HOT)
PAIRS, TESTS = (Kind.STIFF, Kind.STIFF_TEST), (Kind.CONTACTS_TEST, Kind.STIFF_TEST)
PLAIN = tuple(kind for kind in Kind if kind not in (*PAIRS, *TESTS))
"""Frames whose forces are trained on, one by one."""
MAY_FAIL = tuple(kind for kind in Kind if kind not in (*DYNAMICS, Kind.HARD))
"""Frames so far from equilibrium that a teacher may fail on some of them."""
