"""The numbers of the thermostat: known answers, their distribution, and the same everywhere."""

import numpy as np
import pytest
import torch
from on_device import DEVICE
from scipy import stats

from integrators import noise as noise_module
from integrators.noise import Counter, CounterNoise, drawn_on_device

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
    assert noise_module._compiled_philox(*counter, *key) == expected
    words = (torch.tensor([word], device=DEVICE) for word in (*counter, *key))
    assert tuple(int(word) for word in noise_module._philox(*words)) == expected


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
    ops = [2, 6, 11]
    words = torch.tensor(Counter(2**53 - 7, 2**33 + 1).words(), device=DEVICE)
    found = drawn_on_device(words, torch.tensor(ops, device=DEVICE), size).cpu()
    like = torch.empty(size, dtype=torch.float64)
    expected = torch.stack([CounterNoise(2**53 - 7)(2**33 + 1, op, like) for op in ops])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_some_atoms_get_their_own_numbers():
    all_of_them = CounterNoise(4)(2, 1, LIKE).numpy()
    for atoms in (np.array([3, 0, 4]), np.arange(5), np.array([], np.int64)):
        some = CounterNoise(4).of_atoms(2, 1, (7, 5, 3), atoms)
        np.testing.assert_array_equal(some, all_of_them[:, atoms])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range(seed):
    with pytest.raises(ValueError, match="zero or positive"):
        CounterNoise(seed)
