"""For tests of what stays on a device: where they run, a guard, and a small system."""

import os

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from torch.utils._python_dispatch import TorchDispatchMode

from integrators.device.launches import Launches
from mts_driver.potentials.so3lr.attention import PlainAttention
from mts_driver.potentials.so3lr.potential import packaged_model

DEVICE = os.environ.get("MTS_TEST_DEVICE", "cpu")
"""Where the tests of `backend=device` run; tests/gpu runs them again on a GPU."""

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default")
"""Operations of torch whose result, or its shape, the host must know."""


class NoWaiting(TorchDispatchMode):
    """Fails on every operation that would wait for a GPU, or copy from one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        assert not any(f".{wait}" in name for wait in WAITS), name
        if name.startswith(("aten._to_copy", "aten.copy_")):
            devices = {t.device for t in args if hasattr(t, "device")}
            assert len(devices) == 1 and not (kwargs or {}).get("device"), name
        return func(*args, **(kwargs or {}))


VIEWS = (
    *("view", "reshape", "expand", "slice", "select", "unsqueeze", "squeeze", "transpose"),
    *("t.default", "permute", "detach", "alias", "unbind", "split", "as_strided", "empty"),
)
"""Operations of torch that launch nothing."""


class Counting(TorchDispatchMode):
    """Counts what a GPU would be asked to launch: operations of torch, and kernels of Warp."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.number, run = 0, Launches.run

        def counted(launches):
            self.number += len(launches)
            run(launches)

        monkeypatch.setattr(Launches, "run", counted)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += not any(str(func).startswith(f"aten.{view}") for view in VIEWS)
        return func(*args, **(kwargs or {}))


def plain_attention(dtype):
    """The attention of SO3LR's layers in plain torch."""
    packaged = packaged_model(torch.device("cpu"), dtype)[0]
    blocks = [layer.euclidean_attention_block for layer in packaged.euclidean_transformers]
    return [PlainAttention(block, packaged.radial_embedding) for block in blocks]


def few_waters():
    """Eight molecules in a skew cell, held neither too near nor far apart."""
    rng = np.random.default_rng(5)
    atoms = Atoms(cell=[[6.4, 0, 0], [1.0, 6.2, 0], [-1.0, 1.0, 6.3]], pbc=True)
    for site in np.ndindex(2, 2, 2):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.translate(np.array(site) @ np.array(atoms.cell) / 2)
        atoms += water
    return atoms
