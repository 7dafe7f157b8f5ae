"""Nothing may wait for the device: a guard for what is captured or runs ahead of a GPU."""

import os

from torch.utils._python_dispatch import TorchDispatchMode

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
