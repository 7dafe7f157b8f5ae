"""The versions of i-PI whose internals the plugin replaces and ``mts run`` relies on."""

from __future__ import annotations

import re

OLDEST, FIRST_UNTESTED = (3, 3), (3, 4)
"""From the first on, up to the second; the dependency in pyproject.toml says the same."""


def requirement() -> str:
    """Return what pip is to install."""
    oldest, untested = (".".join(map(str, v)) for v in (OLDEST, FIRST_UNTESTED))
    return f"ipi>={oldest},<{untested}"


def is_supported(version: str) -> bool:
    """Whether a version such as 3.3.1 is between the two."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and OLDEST <= tuple(map(int, match.groups())) < FIRST_UNTESTED
