"""The tests of everything that stays on a device, again on a GPU, and what only a GPU has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use"),
]
UNIT = Path(__file__).parents[1] / "unit"
AGAIN = ("noise", "neighbor_matrix", "device_student", "device_so3lr", "device_steps")


@pytest.mark.parametrize("name", AGAIN)
def test_again_on_a_gpu(name):
    """In a process of its own, whose device is set before the tests are read."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", str(UNIT / f"test_{name}.py")],
        env={**os.environ, "MTS_TEST_DEVICE": "cuda:0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_a_recorded_graph_is_what_it_records():
    """The second call records, and from then on the graph runs."""
    from integrators.device.recorded import Recorded

    total, one = (torch.zeros(3, device="cuda") for _ in range(2))
    one += 1.0
    step = Recorded(lambda: total.add_(one), torch.device("cuda"))
    for _ in range(5):
        step()
    assert total.tolist() == [5.0] * 3 and step._graph is not None
