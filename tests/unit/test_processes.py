"""What processes are told before they load torch and numba."""

import os
import subprocess
import sys

import pytest

from mts_driver.processes import use_threads

COUNT = "import numba, torch; print(torch.get_num_threads(), numba.get_num_threads())"


@pytest.mark.parametrize(
    ("given", "told", "expected"),
    [(3, "2", 3), (0, "2", 2), (0, "2,4", 2), (0, "", os.cpu_count()), (0, "all", os.cpu_count())],
)
def test_threads_are_those_of_the_option_then_of_the_environment(
    given, told, expected, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "7")  # what is set for numba alone stays
    assert use_threads(given) == expected
    assert os.environ["OMP_NUM_THREADS"] == str(expected)
    assert os.environ["NUMBA_NUM_THREADS"] == (str(given) if given else "7")


def test_torch_and_numba_take_as_many():
    code = f"from mts_driver.processes import use_threads; use_threads(); {COUNT}"
    told = {k: v for k, v in os.environ.items() if k != "NUMBA_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**told, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.split() == ["1", "1"]
