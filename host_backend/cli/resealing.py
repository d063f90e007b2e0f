"""What `reseal` does, and its report."""

import logging
from collections import Counter
from collections.abc import Sequence

from host_backend.cli.answer import Answer
from host_backend.cli.counting import counted
from host_backend.cli.progress import progress
from host_backend.config import VaultConfig
from host_backend.errors import ConfigError, EnclaveRefused
from host_backend.keystore.base import Before
from host_backend.log import fields
from host_backend.stores import open_configured_resealing
from host_backend.vault.resealing import Move, Moved, Resealing

logger = logging.getLogger(__name__)


def targets(vaults: Sequence[VaultConfig], target: str | None) -> list[tuple[VaultConfig, str]]:
    """Return each vault with the key to seal its keys under: the given one, or its own.

    Raises:
        ConfigError: There is neither.
    """
    found = []
    for vault in vaults:
        key = target or vault.credentials.encryption_key_path
        if not key:
            raise ConfigError(f"reseal: vault {vault.name} has no encryption_key_path: name the key with --to")
        found.append((vault, key))
    return found


async def reseal_keys(vaults: Sequence[tuple[VaultConfig, str]], answer: Answer, *, again: bool, dry_run: bool) -> None:
    """Reseal the keys of vaults, each vault under the key beside it, and report.

    Raises:
        HostError: Some could not be; the report says what was done.
    """
    refused = 0
    for config, target in vaults:
        report = _Report(config.name, "resealed", answer, dry_run=dry_run)
        async with open_configured_resealing(config) as resealing:
            moves, there = await resealing.moves_to(target, again=again)
            report.already(there, target)
            refused += await _run(resealing, moves, Before.RESEAL, report)
    _require_none(refused, "resealed")


async def undo_resealing(vaults: Sequence[VaultConfig], answer: Answer, *, redo: bool, dry_run: bool) -> None:
    """Put the blobs back that were kept last before a reseal, or before its undo, where they open, and report.

    Raises:
        HostError: Some could not be; the report says what was done.
    """
    refused = 0
    for config in vaults:
        report = _Report(config.name, "put back", answer, dry_run=dry_run)
        async with open_configured_resealing(config) as resealing:
            moves = await resealing.moves_back(Before.UNDO if redo else Before.RESEAL)
            refused += await _run(resealing, moves, Before.RESEAL if redo else Before.UNDO, report)
    _require_none(refused, "put back")


async def _run(resealing: Resealing, moves: Sequence[Move], before: Before, report: "_Report") -> int:
    """Make the moves, unless this is a dry run; return how many were refused."""
    refused = 0
    try:
        if report.dry_run:
            for move in moves:
                report.tell(Moved(move, None))
            return 0
        with progress(report.verb, len(moves)) as advance:
            async for moved in resealing.run(moves, before):
                report.tell(moved)
                refused += moved.obstacle is not None
                advance()
        return refused
    finally:
        report.end(await resealing.where_kept(before))


def _require_none(refused: int, verb: str) -> None:
    if refused:
        raise EnclaveRefused(f"not {verb}, and stored as before: {counted(refused, 'key')}; the log says why")


class _Report:
    """Says what happened to the keys of a vault: each key in JSON, or one line for all with the same source and target."""

    def __init__(self, vault: str, verb: str, answer: Answer, *, dry_run: bool) -> None:
        self.verb = verb
        self.dry_run = dry_run
        self._vault = vault
        self._answer = answer
        self._counts: Counter[tuple[str, str]] = Counter()
        answer.add("keys")

    def already(self, count: int, target: str) -> None:
        """Report keys that are sealed under the target already."""
        if count:
            self._answer.say(f"{self._vault}: {counted(count, 'key')} sealed under {target} already")

    def tell(self, moved: Moved) -> None:
        """Report a key."""
        move = moved.move
        if moved.obstacle is not None:
            text = f"not {self.verb}: {moved.obstacle}"
            logger.error("%s", text, extra=fields(pkh=move.stored.pkh, vault=self._vault))
        else:
            self._counts[move.source, move.target] += 1
        outcome = "refused" if moved.obstacle is not None else f"to be {self.verb}" if self.dry_run else self.verb
        key = {"public_key_hash": move.stored.pkh, "vault": self._vault, "from": move.source, "to": move.target}
        self._answer.add("keys", {**key, "outcome": outcome, "reason": moved.obstacle})

    def end(self, kept: str | None) -> None:
        """Report the totals, and where the old blobs are."""
        say = self._answer.say
        self._answer.add("vaults", {"vault": self._vault, "kept": kept})
        would_be = "would be " if self.dry_run else ""
        for (source, target), count in self._counts.items():
            say(f"{self._vault}: {counted(count, 'key')} {would_be}{self.verb}, from {source} to {target}")
        if not self._counts:
            say(f"{self._vault}: nothing {would_be}{self.verb}")
        if kept is not None and not self.dry_run:
            say(f"{self._vault}: the old blobs are in {kept}: they are needed until every key has signed")
