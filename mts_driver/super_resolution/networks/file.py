"""Files of networks that fill gaps: safetensors with a JSON header; loading one runs no code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mts_driver.errors import UserError
from mts_driver.files import replacing
from mts_driver.super_resolution.frames import Frames
from mts_driver.super_resolution.networks.fill import NetworkFill, Scales
from mts_driver.super_resolution.networks.recurrences import NETWORKS, network

FORMAT = 1
KEY = "mts_superres"
_OWN = ("mean", "spread", "drift", "change")


def is_network(path: Path) -> bool:
    """Tell whether a file is one of these."""
    try:
        with safe_open(path, framework="pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def save_network(fill: NetworkFill, path: Path, record: dict[str, Any]) -> None:
    """Write a network with its molecule and how it was made; replaced in one step."""
    header = {
        "format": FORMAT,
        "network": _name(fill),
        "hidden": fill.network.hidden,
        "numbers": fill.numbers.tolist(),
        "timestep_fs": fill.timestep_fs,
        "stride": fill.stride,
        "window": fill.window,
        "both_ways": fill.both_ways,
        "record": record,
    }
    tensors = {f"network.{k}": v.contiguous() for k, v in fill.network.state_dict().items()}
    tensors |= {name: getattr(fill.scales, name).contiguous() for name in _OWN}
    tensors |= {name: torch.from_numpy(getattr(fill, name)) for name in ("masses", "reference")}
    contents = save(tensors, metadata={KEY: json.dumps(header)})
    with replacing(path) as part:
        part.write_bytes(contents)


def read_network(path: Path) -> tuple[NetworkFill, dict[str, Any]]:
    """Return a network and its record.

    Raises
    ------
    UserError
        If the file is something else, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT:
            raise UserError(
                f"model '{path}' has format {header['format']}, this version of mts-driver reads "
                f"{FORMAT}: train it again."
            )
        numbers = np.array(header["numbers"], int)
        net = network(header["network"], 6 * len(numbers), int(header["hidden"]))
        start = "network."
        net.load_state_dict(
            {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        )
        fill = NetworkFill(
            net.requires_grad_(False),
            Scales(*(tensors[name] for name in _OWN)),
            numbers,
            tensors["masses"].numpy(),
            tensors["reference"].numpy(),
            float(header["timestep_fs"]),
            int(header["stride"]),
            int(header["window"]),
            bool(header["both_ways"]),
        )
        return fill, header["record"]
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"model '{path}' cannot be read ({type(error).__name__}: {error}): give a file of "
            "`mts superres train`."
        ) from error


def require_fits(fill: NetworkFill, frames: Frames) -> None:
    """Refuse frames of another molecule than a network's.

    Raises
    ------
    UserError
        If elements, their order or masses are others, or the frames are periodic.
    """
    if frames.cell_A is not None:
        raise UserError("this model is of one molecule, and the frames are periodic.")
    if not np.array_equal(np.sort(fill.numbers), np.sort(frames.numbers)):
        raise UserError(
            f"this model is of a molecule with the atomic numbers {fill.numbers.tolist()}, the "
            f"frames have {frames.numbers.tolist()}: train one of these."
        )
    if not np.array_equal(fill.numbers, frames.numbers):
        raise UserError(
            f"this model has its atoms in the order {fill.numbers.tolist()}, the frames in "
            f"{frames.numbers.tolist()}: sort the frames, or train a model of these."
        )
    if not np.allclose(fill.masses, frames.inertia, rtol=1e-4):
        raise UserError(
            "this model is of atoms with other masses than the frames have (hydrogens that were "
            "made heavy, or isotopes): train one of these."
        )


def _name(fill: NetworkFill) -> str:
    return next(name for name, kind in NETWORKS.items() if type(fill.network) is kind)
