"""The one exception that users are meant to see, and what it is raised for most often."""

from numbers import Integral, Real
from typing import Any


class UserError(Exception):
    """Something the user can put right: bad input, a missing file, a port in use.

    The message names the argument, its value, what is allowed and the remedy. The command line
    prints it without a traceback and exits with status 2.
    """


class RankFailed(Exception):
    """What went wrong on one process while others wait for it, so that all have to end."""


def whole_number(value: Any, *, name: str, least: int, most: int | None = None) -> int:
    """Return a whole number of Python or numpy as one of Python.

    Raises
    ------
    UserError
        If it is something else, or out of range.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        allowed = f"{least} or above" if most is None else f"from {least} to {most}"
        raise UserError(f"{name}={value!r}: give a whole number, {allowed}.")
    return int(value)


def require_number(value: Any, *, name: str) -> None:
    """Refuse what is no number; its range is another question.

    Raises
    ------
    UserError
        If it is a text, an array or None.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise UserError(f"{name}={value!r}: give a number.")
