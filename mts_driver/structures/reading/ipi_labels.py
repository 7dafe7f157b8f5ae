"""i-PI's labels of atoms, which also name isotopes, as elements."""

import re

from ase.data import atomic_numbers

_ISOTOPES = {"D": "H", "T": "H", "Z": "H", "H2": "H"}
"""Z is i-PI's atom between H and D."""


def element_of(label: str) -> str | None:
    """Return the symbol of the element that i-PI's label stands for, such as C for C13.

    None for what is no element: an electron, a photon, a label of the user's own.
    """
    symbol = _ISOTOPES.get(label) or re.sub(r"\d+$", "", label)
    return symbol if atomic_numbers.get(symbol, 0) > 0 else None
