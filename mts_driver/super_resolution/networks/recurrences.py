"""The networks of Winkler et al. (Mach. Learn.: Sci. Technol. 2022, 3, 025011), one step at a time.

Each takes the state of a molecule, positions and velocities in standard deviations of the training
data, and returns by how much it changes in a time step, in standard deviations of changes.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from mts_driver.errors import UserError


class Recurrence(nn.Module, ABC):
    """One time step of a network with a memory.

    Parameters
    ----------
    features : int
        Numbers in a state.
    hidden : int
        Width.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.features, self.hidden = features, hidden

    @abstractmethod
    def forward(self, state: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Return the change (B, features) of a state (B, features), and the memory of it.

        ``memory`` is None at the first step.
        """


class LSTM(Recurrence):
    """Two layers of long short-term memory."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)
        self.first, self.second = nn.LSTMCell(features, hidden), nn.LSTMCell(hidden, hidden)
        self.out = _from_zero(hidden, features)

    def forward(self, state: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """See `Recurrence.forward`."""
        first, second = memory or (None, None)
        first = self.first(state, first)
        second = self.second(first[0], second)
        return self.out(first[0] + second[0]), (first, second)


class RNN(Recurrence):
    """Two layers of Elman's recurrence, with tanh."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)
        self.first, self.second = nn.RNNCell(features, hidden), nn.RNNCell(hidden, hidden)
        self.out = _from_zero(hidden, features)

    def forward(self, state: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """See `Recurrence.forward`."""
        first, second = memory or (None, None)
        first = self.first(state, first)
        second = self.second(first, second)
        return self.out(first + second), (first, second)


class NeuralODE(Recurrence):
    """The rate of change is a network of the state, integrated by torchdiffeq's Runge-Kutta."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)
        self.rate = nn.Sequential(
            *(nn.Linear(features, hidden), nn.Tanh()),
            *(nn.Linear(hidden, hidden), nn.Tanh(), _from_zero(hidden, features)),
        )

    def forward(self, state: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """See `Recurrence.forward`; there is no memory."""
        return _integral(lambda _, now: self.rate(now), state), None


class Hamiltonian(Recurrence):
    """The rate of change is that of Hamilton's equations, of a network for the Hamiltonian."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)
        self.energy = nn.Sequential(
            *(nn.Linear(features, hidden), nn.Softplus()),
            *(nn.Linear(hidden, hidden), nn.Softplus(), nn.Linear(hidden, 1, bias=False)),
        )

    def forward(self, state: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """See `Recurrence.forward`; there is no memory."""
        learns = torch.is_grad_enabled()

        def rate(_: Tensor, now: Tensor) -> Tensor:
            with torch.enable_grad():
                at = now if now.requires_grad else now.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.energy(at).sum(), at, create_graph=learns)
            by_x, by_v = slope.chunk(2, -1)
            return torch.cat([by_v, -by_x], -1)

        return _integral(rate, state), None


NETWORKS: dict[str, type[Recurrence]] = {
    "lstm": LSTM,
    "rnn": RNN,
    "ode": NeuralODE,
    "hamiltonian": Hamiltonian,
}


def network(kind: str, features: int, hidden: int) -> Recurrence:
    """Return a network of a kind.

    Raises
    ------
    UserError
        If there is no such kind.
    """
    if kind not in NETWORKS:
        raise UserError(f"network={kind!r}: use {', '.join(NETWORKS)}.")
    return NETWORKS[kind](features, hidden)


def _from_zero(hidden: int, features: int) -> nn.Linear:
    """Return a last layer whose first answer is the mean."""
    layer = nn.Linear(hidden, features)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _integral(rate: Any, state: Tensor) -> Tensor:
    """Return the change of a state over one unit of time."""
    try:
        from torchdiffeq import odeint
    except ModuleNotFoundError as error:
        raise UserError(
            "neural ODEs need torchdiffeq: pip install 'mts-driver[superres]'."
        ) from error
    times = torch.tensor([0.0, 1.0]).to(state)
    found: Tensor = odeint(rate, state, times, method="rk4")[1] - state
    return found
