"""Taking over changed policies while the host runs, at SIGHUP: all of `tezos`, or nothing.

Any other change in the file takes a restart, and a warning says so. Nothing here holds a signature up: the file
is read by a process of its own, and thousands of keys are compared in steps.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields as fields_of
from functools import cache

from host_backend.config import Config
from host_backend.config.review import meaning
from host_backend.errors import ConfigError, reason_of
from host_backend.log import fields
from host_backend.policy import KeyPolicy
from host_backend.signer import Signer
from host_backend.steps import Steps, Work

logger = logging.getLogger(__name__)

#: What belongs to the policies themselves, or only speaks about the file.
_TAKEN_OVER = ("policies", "warnings", "lists_keys", "nulls", "ends_whole")
#: Where a restriction of the file is in a policy.
_RESTRICTIONS = {"allowed_chains": "chains", "authorized_keys": "clients", "jwt_users": "users"}
#: Lines of the log that take less than a millisecond.
LINES_AT_ONCE = 40
#: Seconds after them: to write them takes some two milliseconds of another thread, which signatures would wait for.
PAUSE_S = 0.005
#: A text of the log, and its fields.
_Line = tuple[str, dict[str, object]]


class PolicyReload:
    """Reads the configuration again and hands its policies to the signer.

    Args:
        config: What the host was started with.
        read: Reads the file again without delaying requests; raises ConfigError.
        signer: Gets the policies, between two requests.
        steps: Does what takes long.
        also: What else reads files again then, whatever came of the policies; raises nothing.
        note: Writes down when a reload began, and why the old policies stay, if they do; may raise OSError. It runs
            in a thread.
    """

    def __init__(
        self,
        config: Config,
        read: Callable[[], Awaitable[Config]],
        signer: Signer,
        steps: Steps,
        also: Sequence[Callable[[], Awaitable[None]]] = (),
        note: Callable[[float, str | None], None] | None = None,
    ) -> None:
        self._started_with = self._last = config
        self._read = read
        self._signer = signer
        self._steps = steps
        self._also = also
        self._note = note

    async def at_each(self, asked: asyncio.Event) -> None:
        """Reload whenever the event is set, until cancelled; once more when it was set meanwhile, however often."""
        while True:
            await asked.wait()
            asked.clear()
            started = time.monotonic()
            problem = await self.reload()
            await self._write_down(started, problem)
            for reread in self._also:
                await reread()

    async def _write_down(self, started: float, problem: str | None) -> None:
        if self._note is not None:
            try:
                await asyncio.to_thread(self._note, started, problem)
            except OSError as error:
                logger.warning("what came of the reload cannot be noted: %s", reason_of(error))

    async def reload(self) -> str | None:
        """Take the policies of the file as it is now.

        Returns:
            Why those in force stay; None when they were replaced.
        """
        try:
            await self._take_over(await self._read())
        except ConfigError as error:
            logger.error("the configuration was not reloaded, the old policies stay: %s", error)  # noqa: TRY400 -- no bug
            return str(error)
        except Exception:
            # The one catch-all of this task: a bug here must not end a host that signs.
            logger.exception("the configuration was not reloaded because of a bug, the old policies stay")
            return "a bug, see the log of the host"
        return None

    async def _take_over(self, config: Config) -> None:
        # Metrics per key stay as they were at the start.
        if (problem := self._started_with.metrics.problem(len(config.policies))) is not None:
            raise ConfigError(f"metrics.per_key was true when this host was started: {problem}, and restart it")
        if (problem := _cut_short(self._last, config)) is not None:
            raise ConfigError(problem)
        self._last = config
        old, self._signer.policies = self._signer.policies, config.policies
        await _log([(warning, {}) for warning in config.warnings])
        for section in fields_of(Config):
            if section.name not in _TAKEN_OVER and getattr(config, section.name) != getattr(
                self._started_with, section.name
            ):
                logger.warning("changes outside `tezos` need a restart", extra=fields(section=section.name))
        await _log(await self._steps.do(_differences(old, config.policies)))
        logger.info("policies reloaded", extra=fields(keys=len(config.policies)))


def _cut_short(old: Config, new: Config) -> str | None:
    """Return why a file looks as if its end were missing; None when it does not."""
    if old.ends_whole and not new.ends_whole:
        return "the file ends within a line, as one that was cut short: end it with a line feed"
    if old.policies and not new.lists_keys:
        return "tezos: has no value any more, as in a file that was cut short: write {} if no key is to sign"
    for path in sorted(new.nulls - old.nulls):
        pkh, _, field = path.removeprefix("tezos.").partition(".")
        was = old.policies.get(pkh)
        if was is None:
            continue
        if not field:
            return f"{path}: has no policy any more: write {{}} for a key that signs nothing, or its policy"
        if getattr(was, _RESTRICTIONS[field]) is not None:
            return f"{path}: has no value any more, which means any: write the values, or remove the line"
    return None


def _differences(old: Mapping[str, KeyPolicy], new: Mapping[str, KeyPolicy]) -> Work[list[_Line]]:
    lines: list[_Line] = []
    # Thousands of keys have a few policies between them.
    in_words = cache(meaning)
    for pkh, was in old.items():
        if pkh not in new:
            lines.append(("key not listed any more", {"pkh": pkh, "was": in_words(was)}))
        yield None
    for pkh, now in new.items():
        if pkh not in old:
            lines.append(("key listed", {"pkh": pkh, "now": in_words(now)}))
        elif old[pkh] != now:
            lines.append(("policy changed", {"pkh": pkh, "was": in_words(old[pkh]), "now": in_words(now)}))
        yield None
    return lines


async def _log(lines: Sequence[_Line]) -> None:
    """Log warnings, no faster than they can be written: lines about requests must not be dropped for them."""
    for number, (text, values) in enumerate(lines):
        if number and number % LINES_AT_ONCE == 0:
            await asyncio.sleep(PAUSE_S)
        logger.warning("%s", text, extra=fields(**values))
