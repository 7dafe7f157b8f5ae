"""NVIDIA Warp for models of ours on a device."""

from typing import Any

from integrators.device.launches import warp as _warp
from mts_driver.errors import UserError


def warp() -> Any:
    """Return the package.

    Raises
    ------
    UserError
        If it is not installed.
    """
    try:
        return _warp()
    except ImportError as error:
        raise UserError(
            f"models on a device need NVIDIA Warp, which cannot be imported ({error}): "
            "pip install 'mts-driver[gpu]', or use --device cpu."
        ) from error
