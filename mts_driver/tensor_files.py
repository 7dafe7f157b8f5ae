"""Files of tensors that a program goes on from after a kill; no code is loaded from them."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from mts_driver.errors import UserError
from mts_driver.files import replacing


def save_tensors(path: Path, contents: dict[str, Any]) -> None:
    """Write tensors and plain types, replacing an older file in one step.

    They go through memory: torch's own writer hides a full disk behind an error of its format.
    """
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    with replacing(path) as part:
        part.write_bytes(buffer.getbuffer())


def load_tensors(path: Path, *, remedy: str) -> dict[str, Any]:
    """Read what `save_tensors` wrote.

    Raises
    ------
    UserError
        If it is another file or a damaged one; ``remedy`` says what to do about it.
    """
    try:
        found = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"'{path}' cannot be read ({first}): {remedy}") from error
    if not isinstance(found, dict):
        raise UserError(f"'{path}' holds a {type(found).__name__}, nothing to go on from: {remedy}")
    return found
