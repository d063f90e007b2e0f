"""What `reseal` does, and its report."""

import json
import logging
from collections import Counter
from collections.abc import Sequence

import click

from host_backend.cli.progress import progress
from host_backend.config import VaultConfig
from host_backend.errors import ConfigError, EnclaveRefused
from host_backend.keystore.base import Before
from host_backend.log import fields
from host_backend.stores import open_configured_resealing
from host_backend.vault.resealing import Move, Moved, Resealing

logger = logging.getLogger(__name__)


def targets(vaults: Sequence[VaultConfig], target: str | None) -> list[tuple[VaultConfig, str]]:
    """Return each vault with the key that its keys shall be sealed under: the one that is given, or its own.

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


async def reseal_keys(vaults: Sequence[tuple[VaultConfig, str]], *, again: bool, dry_run: bool, as_json: bool) -> None:
    """Have the keys of vaults sealed anew, each under the key beside it, and report.

    Raises:
        HostError: Some could not be; the report says what was done.
    """
    refused = 0
    for config, target in vaults:
        report = _Report(config.name, "resealed", dry_run=dry_run, as_json=as_json)
        async with open_configured_resealing(config) as resealing:
            moves, there = await resealing.moves_to(target, again=again)
            report.already(there, target)
            refused += await _run(resealing, moves, Before.RESEAL, report)
    _require_none(refused, "resealed")


async def undo_resealing(vaults: Sequence[VaultConfig], *, redo: bool, dry_run: bool, as_json: bool) -> None:
    """Put the blobs back that were kept last before keys were sealed anew, or before that was undone, and report.

    Raises:
        HostError: Some could not be; the report says what was done.
    """
    refused = 0
    for config in vaults:
        report = _Report(config.name, "put back", dry_run=dry_run, as_json=as_json)
        async with open_configured_resealing(config) as resealing:
            moves = await resealing.moves_back(Before.UNDO if redo else Before.RESEAL)
            refused += await _run(resealing, moves, Before.RESEAL if redo else Before.UNDO, report)
    _require_none(refused, "put back")


async def _run(resealing: Resealing, moves: Sequence[Move], before: Before, report: "_Report") -> int:
    """Do what is to be done, unless it is only to be shown; return how many the enclave or others were against."""
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
        keys = "1 key was" if refused == 1 else f"{refused} keys were"
        raise EnclaveRefused(f"{keys} not {verb}, and stored as before: the log says why")


class _Report:
    """Prints one JSON object for each key at once, or a line for all that went the same way at the end."""

    def __init__(self, vault: str, verb: str, *, dry_run: bool, as_json: bool) -> None:
        self.verb = verb
        self.dry_run = dry_run
        self._vault = vault
        self._as_json = as_json
        self._counts: Counter[tuple[str, str]] = Counter()

    def already(self, count: int, target: str) -> None:
        """Tell of keys that need nothing."""
        if count and not self._as_json:
            click.echo(f"{self._vault}: {_keys(count)} sealed under {target} already")

    def tell(self, moved: Moved) -> None:
        """Tell of a key."""
        move = moved.move
        if moved.obstacle is not None:
            text = f"not {self.verb}: {moved.obstacle}"
            logger.error("%s", text, extra=fields(pkh=move.stored.pkh, vault=self._vault))
        else:
            self._counts[move.source, move.target] += 1
        if self._as_json:
            outcome = "refused" if moved.obstacle is not None else f"to be {self.verb}" if self.dry_run else self.verb
            line = {"pkh": move.stored.pkh, "vault": self._vault, "from": move.source, "to": move.target}
            click.echo(json.dumps({**line, "outcome": outcome, "reason": moved.obstacle}))

    def end(self, kept: str | None) -> None:
        """Tell of all of them, and at last of what is the operator's to clear up."""
        if self._as_json:
            click.echo(json.dumps({"vault": self._vault, "kept": kept}))
            return
        would_be = "would be " if self.dry_run else ""
        for (source, target), count in self._counts.items():
            click.echo(f"{self._vault}: {_keys(count)} {would_be}{self.verb}, from {source} to {target}")
        if not self._counts:
            click.echo(f"{self._vault}: nothing {would_be}{self.verb}")
        if kept is not None and not self.dry_run:
            click.echo(f"{self._vault}: the old blobs are in {kept}: clear them up yourself, once every key has signed")


def _keys(count: int) -> str:
    return "1 key" if count == 1 else f"{count} keys"
