"""Shared fixtures; its presence also puts this folder on the path, for the helpers beside it."""

import os
from pathlib import Path

# two tests run at a time: each with a core; before torch reads it
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import numba
import pytest
import torch
from hypothesis import HealthCheck, settings

# the same for kernels of this process; a test may still ask for two
numba.set_num_threads(1)
# numba's threads are OpenMP's as torch's are: with its first call torch takes as many, and what
# waits for a core spins
torch.set_num_threads(1)

# max_examples is what all tests in tests/fuzz share; MTS_FUZZ=thorough takes an hour of one core.
# Derandomised and without deadlines: no outcome may depend on luck or on the clock.
for name, total in (("default", 1_000), ("thorough", 100_000)):
    settings.register_profile(
        name,
        max_examples=total,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
settings.load_profile(os.environ.get("MTS_FUZZ", "default"))

# kernels of training take a minute or two to compile, and are kept: one of two workers does it
TRAINING = ("test_distill.py", "test_distill_fragments.py", "test_budgets.py", "test_training.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of training first, so that they come to the same worker."""
    items.sort(key=lambda item: item.path.name not in TRAINING)


def shared(name: str) -> Path:
    """A folder of what CI has beside the checkout, and the package itself does not need."""
    beside = Path(__file__).parents[2] / "shared" / name
    folder = Path(os.environ.get(f"MTS_{name.upper()}", beside))
    if not folder.is_dir():
        pytest.skip(f"no {name} in {folder}: set MTS_{name.upper()} to the folder that has them")
    return folder


@pytest.fixture(scope="session")
def structures() -> Path:
    """The folder of real systems."""
    return shared("structures")


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of small inputs on which the product failed."""
    return shared("cases")


@pytest.fixture(scope="session")
def measured_data() -> Path:
    """The folder of measured data."""
    return shared("data")
