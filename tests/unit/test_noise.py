"""The numbers of the thermostat: known answers, their distribution, and the same everywhere."""

import numpy as np
import pytest
import torch
from on_device import DEVICE
from scipy import stats

from integrators import noise as noise_module
from integrators.device.numbers import RandomNumbers
from integrators.noise import Counter, CounterNoise
from integrators.splitting import OU, respa_baoab

LIKE = torch.empty(7, 5, 3, dtype=torch.float64)
# counter, key and result of Philox4x32-10: the known answers of Random123
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (4 * (0xFFFFFFFF,), 2 * (0xFFFFFFFF,), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    assert noise_module._philox(*counter, *key) == expected


def test_numbers_are_normal_and_independent():
    numbers = CounterNoise(5)(3, 2, torch.empty(300_001, dtype=torch.float64)).numpy()
    assert stats.kstest(numbers, "norm").pvalue > 1e-3
    assert (
        stats.kstest(np.square(numbers[:-1:2]) + np.square(numbers[1::2]), "chi2", (2,))[1] > 1e-3
    )
    few = [CounterNoise(5)(step, op, LIKE).flatten() for step in (0, 1) for op in range(50)]
    off = np.corrcoef(np.array(few)) - np.eye(100)
    assert np.abs(off).max() < 5.0 / np.sqrt(LIKE.numel())


def test_seed_step_and_operation_tell_draws_apart():
    draws = [
        CounterNoise(seed)(step, op, LIKE)
        for seed in (0, 1, 2**32, 2**53 - 1)
        for step in (0, 1, 2**32)
        for op in (0, 1)
    ]
    assert len({d.numpy().tobytes() for d in draws}) == len(draws)
    assert torch.equal(draws[0], CounterNoise(0)(0, 0, LIKE))


@pytest.mark.parametrize("size", [1, 2, 105])
def test_a_device_draws_the_same(size):
    pytest.importorskip("warp")
    numbers = RandomNumbers(respa_baoab(3), torch.device(DEVICE))
    numbers.allocate((size,))
    assert numbers.send(Counter(2**64 - 7, 2**33 + 1))
    numbers.draw()
    ops = [k for k, op in enumerate(respa_baoab(3)) if isinstance(op, OU)]
    like = torch.empty(size, dtype=torch.float64)
    for k, op in enumerate(ops):
        expected = CounterNoise(2**64 - 7)(2**33 + 1, op, like)
        torch.testing.assert_close(numbers.values[k].cpu(), expected, rtol=0, atol=1e-13)


def test_some_atoms_get_their_own_numbers():
    all_of_them = CounterNoise(4)(2, 1, LIKE).numpy()
    for atoms in (np.array([3, 0, 4]), np.arange(5), np.array([], np.int64)):
        some = CounterNoise(4).of_atoms(2, 1, (7, 5, 3), atoms)
        np.testing.assert_array_equal(some, all_of_them[:, atoms])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range(seed):
    with pytest.raises(ValueError, match="zero or positive"):
        CounterNoise(seed)
