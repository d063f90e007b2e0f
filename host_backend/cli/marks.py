"""What the commands on watermarks do."""

import asyncio
import json
import logging
import sys
from pathlib import Path

import click

from enclave_signer.tezos import Family, Right, TezosError, check_public_key_hash, decode
from host_backend.config import Config
from host_backend.errors import ConfigError, MalformedRequest
from host_backend.log import fields
from host_backend.stores import migrate_watermarks, raise_watermark, read_watermarks, reset_watermark
from host_backend.watermark.rule import Mark, MarkKey

logger = logging.getLogger(__name__)

#: Far more than a hash has.
_MAX_TYPED_CHARS = 200


def raise_one_mark(config: Config, chain_id: str, pkh: str, right: str, level: int, round_: int) -> None:
    """Move one mark up.

    Raises:
        HostError: The mark stays as it is; the text says why.
    """
    raise_watermark(config, _key(chain_id, pkh, right), level, round_)
    extra = fields(chain_id=chain_id, pkh=pkh, right=right, lvl=level, round=round_)
    logger.warning("watermark raised", extra=extra)


def _key(chain_id: str, pkh: str, right: str) -> MarkKey:
    try:
        decode(chain_id, Family.CHAIN_ID)
        check_public_key_hash(pkh)
    except TezosError as error:
        # A mark for a chain or key that does not exist would protect nothing.
        raise MalformedRequest(str(error)) from None
    return MarkKey(chain_id, pkh, Right(right))


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
    old = reset_watermark(config, key, level, round_)
    moved = {"old_lvl": old.level, "old_round": old.round, "lvl": level, "round": round_}
    logger.warning("watermark reset", extra=fields(chain_id=chain_id, pkh=pkh, right=right, **moved))


def migrate_marks(config: Config, source: Path | None, *, confirmed: bool) -> None:
    """Bring the marks to the driver of the configuration, or from another folder.

    Raises:
        HostError: Not done; the text says why.
    """
    driver = config.watermark.driver
    if source is None and driver == "mem" and not confirmed:
        _confirm("marks in memory are forgotten at every stop, and cannot be brought back", driver)
    count = asyncio.run(migrate_watermarks(config, source))
    logger.warning("watermarks migrated", extra=fields(marks=count, source=source or config.base_dir, driver=driver))
    if source is not None:
        logger.warning("whatever signed with the marks in %s must never sign again", source)


def _confirm(danger: str, word: str) -> None:
    click.echo(f"{danger}.\nType {word} to go on:", err=True)
    if sys.stdin.readline(_MAX_TYPED_CHARS).strip() != word:
        raise ConfigError(f"{word} was not typed: nothing was changed (--yes does not ask)")


def show_marks(config: Config, *, as_json: bool) -> None:
    """Print every mark, sorted by key, chain and right.

    Raises:
        HostError: There is no store, or it cannot be read.
    """
    marks = sorted(read_watermarks(config).items(), key=lambda entry: (entry[0].pkh, entry[0].chain_id, entry[0].right))
    if as_json:
        click.echo(json.dumps([_as_json(key, mark) for key, mark in marks], indent=2))
        return
    rows = [("KEY", "CHAIN", "RIGHT", "LEVEL", "ROUND", "DIGEST")]
    rows += [
        (key.pkh, key.chain_id, key.right.value, str(mark.level), str(mark.round), _digest(mark) or "-")
        for key, mark in marks
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _as_json(key: MarkKey, mark: Mark) -> dict[str, object]:
    return {
        "public_key_hash": key.pkh,
        "chain_id": key.chain_id,
        "right": key.right.value,
        "level": mark.level,
        "round": mark.round,
        "digest": _digest(mark),
    }


def _digest(mark: Mark) -> str | None:
    return None if mark.digest is None else mark.digest.hex()
