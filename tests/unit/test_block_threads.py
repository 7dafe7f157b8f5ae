"""Kernels in C++ with blocks of threads as on a GPU find what one thread a block finds."""

import numpy as np
import pytest
import torch
from block_threads import compiler, emulated
from on_device import few_waters

from mts_driver import simulate
from mts_driver.potentials import load_potential

pytest.importorskip("nvalchemiops")
pytest.importorskip("so3krates_torch")
from integrators.device import fetched, moves, program
from mts_driver.potentials.so3lr.device import attention, contrast, geometry, longrange, pairs
from mts_driver.potentials.student.device import evaluator

pytestmark = pytest.mark.skipif(not compiler(), reason="no C++ compiler that has barriers")

WATERS = few_waters()


def found(spec, atoms):
    """Of two replicas."""
    model = load_potential(f"{spec}?backend=device", atoms.numbers.tolist(), dtype="float64")
    x, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
    return model(torch.stack((x, x + 0.02 * torch.sin(5.0 * x))), cell)


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("threads", [64, 128])
@pytest.mark.parametrize("spec", ["student:water", "student:general"])
def test_students(spec, threads, monkeypatch):
    expected = found(spec, WATERS)
    emulated(monkeypatch)
    monkeypatch.setattr(evaluator, "threads_of", lambda device, atoms: threads)
    assert_same(found(spec, WATERS), expected)


def test_so3lr(monkeypatch):
    """One molecule and its images: threads of the CPU wait for each other slowly."""
    expected = found("so3lr", WATERS[:3])
    emulated(monkeypatch, attention, contrast, geometry, longrange, pairs)
    for module, name in (
        (attention, "attention_kernels"),
        (longrange, "longrange_kernel"),
        (pairs, "pair_kernels"),
    ):
        of_gpu = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *how, of=of_gpu: of(*how[:-1], "cuda"))
    assert_same(found("so3lr", WATERS[:3]), expected)


@pytest.mark.parametrize("block", [program.Block(program.GROUPS, False), program.Block(32, True)])
@pytest.mark.parametrize("held", [False, True])
def test_operations_between_two_forces(held, block, monkeypatch):
    """Those of white noise, and those of coloured noise and held bonds."""

    def end():
        how = {"constrain_hydrogens": True, "bond_lengths_A": {"O-H": 0.97}} if held else {}
        found = simulate(
            WATERS,
            teacher="student:general?backend=device",
            student="student:water?backend=device",
            **{"outer_fs": 8.0, "inner_fs": 2.0, "steps": 2, "stride": 1, "dtype": "float64"},
            **{"thermostat": "high-pass" if held else "langevin", "progress": False, **how},
        )
        return found.atoms.positions, found.atoms.get_momenta()

    expected = end()
    emulated(monkeypatch, fetched)
    monkeypatch.setattr(moves, "block_of", lambda device, groups: block)
    of_gpu = fetched.ending_kernel
    monkeypatch.setattr(fetched, "ending_kernel", lambda device: of_gpu("cuda"))
    np.testing.assert_allclose(end(), expected, rtol=1e-9, atol=1e-9)
    assert np.abs(expected[0] - WATERS.positions).max() > 0.1
