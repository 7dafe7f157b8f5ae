"""What a fit goes on from after a kill: parameters, optimiser, atoms and history in one file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from integrators.state import MDState
from mts_driver.errors import UserError
from mts_driver.files import first_difference
from mts_driver.refinement.problem import Problem, Steps, continued, moving_parts
from mts_driver.tensor_files import load_tensors, save_tensors

FORMAT = 3
STATE_FILE = "refinement.pt"


@dataclass(frozen=True)
class Update:
    """One line of the history.

    Attributes
    ----------
    loss, terms
        The loss and its parts.
    gradient_norm : float
        In the units of the steps that were taken.
    parameters : mapping of str to float
        Those that are single numbers, before the step, as the loss.
    averaged : mapping of str to float
        Their mean over the updates, this one's step included.
    told : mapping of str to float
        What the method said.
    steps_run, seconds
        Outer steps and wall-clock time.
    """

    loss: float
    terms: Mapping[str, float]
    gradient_norm: float
    parameters: Mapping[str, float]
    averaged: Mapping[str, float]
    told: Mapping[str, float]
    steps_run: int
    seconds: float


@torch.no_grad()
def put(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Give parameters other values, in place."""
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


class Kept:
    """The file that a fit goes on from."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.path, self._identity = folder / STATE_FILE, identity

    def save(
        self,
        problem: Problem,
        optimiser: Steps,
        state: MDState,
        history: Sequence[Update],
        mean: Mapping[str, Tensor],
    ) -> None:
        """Replace the file."""
        contents = {
            "format": FORMAT,
            "identity": self._identity,
            "parameters": {n: p.detach().clone() for n, p in problem.parameters.items()},
            "mean": dict(mean),
            "optimiser": optimiser.state_dict(),
            **moving_parts(state),
            "history": [asdict(update) for update in history],
        }
        save_tensors(self.path, contents)

    def load(
        self, problem: Problem, optimiser: Steps, start: MDState
    ) -> tuple[MDState, list[Update], dict[str, Tensor]]:
        """Put parameters and optimiser back; return state, history and mean."""
        remedy = "give another --output, or --force to start anew."
        found = load_tensors(self.path, remedy=remedy)
        if found.get("format") != FORMAT:
            raise UserError(f"'{self.path}' is no state of this version: {remedy}")
        if (name := first_difference(found["identity"], self._identity)) is not None:
            before, now = found["identity"].get(name), self._identity.get(name)
            raise UserError(f"'{self.path}' was made with {name}={before!r}, not {now!r}: {remedy}")
        put(problem.parameters, found["parameters"])
        optimiser.load_state_dict(found["optimiser"])
        history = [Update(**one) for one in found["history"]]
        return continued(start, found), history, found["mean"]
