"""Key-encryption keys (KEKs) whose blobs were given no answer while keys were restored. Pure.

- Answers come in order: behind one blob without an answer all others wait. Of a blob that had none in time, all of its KEK
  are left out of the next attempt, and opened later, where no signature waits behind them.
- Something is always asked for: when no other KEK is left, the blobs of the one that was silent longest ago are. A service
  that is slow for all of them gets ever more time, as attempts become patient.
- The first blob of a KEK that opens ends its silence.
"""

from collections.abc import Mapping, Sequence

from host_backend.vault.keks import kek_of


class SilentKeks:
    """The KEKs that were silent."""

    def __init__(self) -> None:
        #: The one that was silent last is the last.
        self._silent: dict[str, None] = {}

    def note_silent(self, blob: bytes) -> None:
        """There was no answer in time to this blob."""
        kek = kek_of(blob)
        self._silent.pop(kek, None)
        self._silent[kek] = None

    def note_opened(self, blob: bytes) -> None:
        """This blob was opened."""
        if self._silent:
            self._silent.pop(kek_of(blob), None)

    def left_out(self, stored: Mapping[str, Sequence[bytes]]) -> dict[str, str]:
        """Return which of these keys are not to be asked for at the next attempt, and the KEK of each.

        Args:
            stored: The blobs of each key.
        """
        if not self._silent:
            return {}
        out: dict[str, str] = {}
        for pkh, blobs in stored.items():
            silent = next((kek for kek in map(kek_of, blobs) if kek in self._silent), None)
            if silent is not None:
                out[pkh] = silent
        if len(out) < len(stored) or not out:
            return out
        keks = set(out.values())
        first = next(kek for kek in self._silent if kek in keks)
        return {pkh: kek for pkh, kek in out.items() if kek != first}
