"""Shared fixtures; its presence also puts this folder on the path, for the helpers beside it."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def structures() -> Path:
    """The folder of real systems, which the package itself does not need."""
    beside = Path(__file__).parents[2] / "shared" / "structures"
    folder = Path(os.environ.get("MTS_STRUCTURES", beside))
    if not folder.is_dir():
        pytest.skip(f"no structures in {folder}: set MTS_STRUCTURES to the folder that has them")
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """The smallest inputs of faults that users of other programs report."""
    beside = Path(__file__).parents[2] / "shared" / "cases"
    folder = Path(os.environ.get("MTS_CASES", beside))
    if not folder.is_dir():
        pytest.skip(f"no cases in {folder}: set MTS_CASES to the folder that has them")
    return folder
