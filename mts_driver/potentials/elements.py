"""Which elements a model knows."""

from collections.abc import Sequence

from ase.data import chemical_symbols

from mts_driver.errors import UserError


def check_elements(numbers: Sequence[int], known: Sequence[str], *, model: str) -> None:
    """Raise a `UserError` that names the first element of ``numbers`` that is not ``known``."""
    try:
        found = sorted({int(z) for z in numbers})
    except (TypeError, ValueError) as error:
        raise UserError(
            f"numbers={numbers!r} are no atomic numbers: give those of the atoms, atoms.numbers."
        ) from error
    for z in found:
        symbol = chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"Z={z}"
        if symbol not in known:
            raise UserError(
                f"element {symbol} is in the structure, but {model} knows only "
                f"{', '.join(known)}: remove these atoms or use a model trained for them."
            )
