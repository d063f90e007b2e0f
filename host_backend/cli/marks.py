"""What the commands on watermarks do."""

import asyncio
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from enclave_signer.tezos import Family, Right, TezosError, check_public_key_hash, decode
from host_backend.cli.answer import Answer
from host_backend.cli.counting import counted
from host_backend.config import Config
from host_backend.errors import ConfigError, MalformedRequest, StateConflict
from host_backend.log import fields
from host_backend.stores import marks_admin, migrate_watermarks, stored_keys
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey, damaged_text

logger = logging.getLogger(__name__)

#: Far more than a hash has.
_MAX_TYPED_BYTES = 200


def raise_one_mark(config: Config, chain_id: str, pkh: str, right: str, level: int, round_: int) -> None:
    """Move one mark up.

    Raises:
        HostError: The mark stays as it is; the text says why.
    """
    marks_admin(config).raise_mark(_key(chain_id, pkh, right), Mark(level, round_, None))
    extra = fields(chain_id=chain_id, pkh=pkh, right=right, lvl=level, round=round_)
    logger.warning("watermark raised", extra=extra)
    click.echo(f"Raised: nothing is signed for {right} of {pkh} on {chain_id} at level {level} round {round_} or below")


def _key(chain_id: str, pkh: str, right: str) -> MarkKey:
    require_chain(chain_id)
    try:
        check_public_key_hash(pkh)
    except TezosError as error:
        # A mark for a chain or key that does not exist would protect nothing.
        raise MalformedRequest(str(error)) from None
    return MarkKey(chain_id, pkh, Right(right))


def require_chain(chain_id: str) -> None:
    """Pass when a text is a chain id.

    Raises:
        MalformedRequest: It is not.
    """
    try:
        decode(chain_id, Family.CHAIN_ID)
    except TezosError as error:
        raise MalformedRequest(str(error)) from None


def reset_one_mark(
    config: Config, chain_id: str, pkh: str, right: str, level: int, round_: int, *, confirmed: bool
) -> None:
    """Move one mark anywhere, after the key's hash was typed again.

    Raises:
        HostError: The mark stays as it is; the text says why.
    """
    key = _key(chain_id, pkh, right)
    if not confirmed:
        _confirm(f"what {key} signed above level {level} round {round_} could be signed again, differently", pkh)
    old = marks_admin(config).reset_mark(key, Mark(level, round_, None))
    moved = {"old_lvl": old.level, "old_round": old.round, "lvl": level, "round": round_}
    logger.warning("watermark reset", extra=fields(chain_id=chain_id, pkh=pkh, right=right, **moved))
    click.echo(f"Moved {right} of {pkh} on {chain_id} from {old} to level {level} round {round_}")


def migrate_marks(
    config: Config, source: Path | None, above_level: int | None, chains: Sequence[str], *, confirmed: bool
) -> None:
    """Bring the marks to the driver of the configuration, from another folder, or from an old store.

    Raises:
        HostError: Not done; the text says why.
    """
    storage = config.watermark.storage
    if above_level is not None:
        if source is not None:
            raise ConfigError("--above-level is for the store of version 0.1 in base_dir itself, so without --from")
        rebuild_marks(config, above_level, chains, confirmed=confirmed)
        return
    if source is None and not storage.lasts and not confirmed:
        _confirm("marks in memory are forgotten at every stop, and cannot be brought back", storage.driver)
    count = asyncio.run(migrate_watermarks(config, source))
    moved = fields(marks=count, source=source or config.base_dir, driver=storage.driver)
    logger.warning("watermarks migrated", extra=moved)
    click.echo(f"Moved {counted(count, 'mark')} to watermark.driver {storage.driver}")
    if source is not None:
        logger.warning("the program that signed with the marks in %s must never sign again", source)


def rebuild_marks(
    config: Config,
    above_level: int,
    chains: Sequence[str],
    *,
    confirmed: bool,
    aside: str = "damaged",
    pkhs: Iterable[str] = (),
    known: Mapping[MarkKey, Mark] | None = None,
) -> None:
    """Rebuild the store from everything that can be read, all marks at or above the end of a level.

    Args:
        config: Names the store; every key under `tezos` or in a vault gets marks: one that is not listed may be some day.
        above_level: Nothing is signed at this level or below.
        chains: On which chains, beside those of marks that are found and those of policies.
        confirmed: Do not ask for the level to be typed.
        aside: What the name of the old store gets, before the time.
        pkhs: Further keys that get marks.
        known: Marks that count like those that are found.

    Raises:
        HostError: Not done; the text says why.
    """
    every = sorted({*config.policies, *hashes_of_stored(config), *pkhs})
    every_chain = chains_to_mark(config, every, chains)
    if not confirmed:
        _confirm(
            f"what was signed above level {above_level} and is not found can be signed again, differently; nothing is "
            "signed at that level or below",
            str(above_level),
        )
    suffix = f".{aside}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    count = marks_admin(config).rebuild(Rebuilt(every, every_chain, above_level, known or {}), suffix)
    logger.warning("watermark store rebuilt", extra=fields(marks=count, above_lvl=above_level, old=suffix))
    click.echo(f"Made a new store of {counted(count, 'mark')}: nothing is signed at level {above_level} or below")


def hashes_of_stored(config: Config) -> set[str]:
    """Return the hashes of the keys in all vaults; no enclave is asked.

    Raises:
        HostError: A key store cannot be read.
    """
    return {key.pkh for vault in config.vaults.values() for key in asyncio.run(stored_keys(vault))}


def chains_to_mark(config: Config, pkhs: Sequence[str], chains: Sequence[str]) -> set[str]:
    """Return the chains on which keys get marks: those that are named here, and those of policies.

    Args:
        config: Has the policies.
        pkhs: Keys that get marks.
        chains: As named by the operator.

    Raises:
        HostError: One is none, or a key may have signed on chains that are not named.
    """
    for chain_id in chains:
        require_chain(chain_id)
    policies = {pkh: config.policies.get(pkh) for pkh in pkhs}
    anywhere = [pkh for pkh, policy in policies.items() if policy is None or policy.chains is None]
    if anywhere and not chains:
        raise ConfigError(
            f"no mark is found on other chains: name every chain on which {', '.join(anywhere[:3])} "
            "may have signed, with --chain (mainnet is NetXdQprcVkpaWU), or in `allowed_chains`"
        )
    return {*chains, *(chain for policy in config.policies.values() for chain in policy.chains or ())}


def _confirm(danger: str, word: str) -> None:
    click.echo(f"{danger}.\nType {word} to go on:", err=True)
    if sys.stdin.buffer.readline(_MAX_TYPED_BYTES).strip() != word.encode():
        raise StateConflict(f"{word} was not typed: nothing was changed (--yes does not ask)")


def show_marks(config: Config, answer: Answer) -> None:
    """Print every mark, sorted by key, chain and right; a damaged one says so.

    Raises:
        HostError: There is no store, or it cannot be read.
    """
    stored = marks_admin(config).read()
    states: dict[MarkKey, tuple[Mark | None, str]] = {key: (mark, "ok") for key, mark in stored.marks.items()}
    states |= {key: (mark, "refused") for key, mark in stored.refused.items()}
    rows = sorted(states.items(), key=lambda entry: (entry[0].pkh, entry[0].chain_id, entry[0].right))
    answer.add("marks", *(_as_json(key, mark, state) for key, (mark, state) in rows))
    if not answer.as_json:
        _show_table(rows)
    for key, known in stored.refused.items():
        logger.error("%s", damaged_text(key, known))


def _show_table(rows: Sequence[tuple[MarkKey, tuple[Mark | None, str]]]) -> None:
    cells = [("KEY", "CHAIN", "RIGHT", "LEVEL", "ROUND", "DIGEST")]
    for key, (mark, state) in rows:
        place = ("-", "-") if mark is None else (str(mark.level), str(mark.round))
        digest = "damaged: refused" if state == "refused" else _digest(mark) or "-"
        cells.append((key.pkh, key.chain_id, key.right.value, *place, digest))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _as_json(key: MarkKey, mark: Mark | None, state: str) -> dict[str, object]:
    return {
        "public_key_hash": key.pkh,
        "chain_id": key.chain_id,
        "right": key.right.value,
        "level": None if mark is None else mark.level,
        "round": None if mark is None else mark.round,
        "digest": _digest(mark),
        "state": state,
    }


def _digest(mark: Mark | None) -> str | None:
    return None if mark is None or mark.digest is None else mark.digest.hex()
