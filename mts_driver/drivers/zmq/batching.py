"""Which clients are worth a short wait before a batch is evaluated without them."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

REMEMBERED = 64
PAUSE = 16
"""Questions of a client that has been waited for in vain until it is waited for again."""


@dataclass
class _Client:
    answered_s: float = 0.0
    pause: int = 0


class Rhythm:
    """Knows when clients were answered, and who did not come back in time.

    Clients that run side by side come back soon after their answers: whoever is first waits for
    those, which are evaluated in the same batch from then on. One that is alone never waits.

    Parameters
    ----------
    wait_s : float
        How long after its answer a client is waited for.
    """

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self._clients: OrderedDict[bytes, _Client] = OrderedDict()

    def answered(self, who: bytes, now_s: float) -> None:
        """Note that a client has just been told what it asked for."""
        client = self._clients.setdefault(who, _Client())
        client.answered_s, client.pause = now_s, max(0, client.pause - 1)
        self._clients.move_to_end(who)
        if len(self._clients) > REMEMBERED:
            self._clients.popitem(last=False)

    def until(self, here: Iterable[bytes], now_s: float) -> float:
        """Return the time until which to wait for those not here; ``now_s`` if for nobody."""
        return max([now_s, *(c.answered_s + self.wait_s for c in self._away(here) if not c.pause)])

    def missed(self, here: Iterable[bytes], start_s: float, now_s: float) -> None:
        """Note that those not here, who should have come by now, were waited for in vain."""
        for client in self._away(here):
            if not client.pause and start_s < client.answered_s + self.wait_s <= now_s:
                client.pause = PAUSE

    def _away(self, here: Iterable[bytes]) -> list[_Client]:
        present = set(here)
        return [client for who, client in self._clients.items() if who not in present]
