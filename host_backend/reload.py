"""Taking over changed policies while the host runs, at SIGHUP: all of `tezos`, or nothing.

Whatever else has changed in the file takes a restart, and a warning says so.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import fields as fields_of

from host_backend.config import Config
from host_backend.config.review import meaning
from host_backend.errors import ConfigError
from host_backend.log import fields
from host_backend.policy import KeyPolicy
from host_backend.signer import Signer

logger = logging.getLogger(__name__)

#: What belongs to the policies themselves, or only speaks about the file.
_TAKEN_OVER = ("policies", "warnings")


class PolicyReload:
    """Reads the configuration again and hands its policies to the signer.

    Args:
        config: What the host was started with.
        load: Reads the file anew; raises ConfigError.
        signer: Gets the policies, between two requests.
    """

    def __init__(self, config: Config, load: Callable[[], Config], signer: Signer) -> None:
        self._started_with = config
        self._load = load
        self._signer = signer

    async def at_each(self, asked: asyncio.Event) -> None:
        """Reload whenever the event is set, until cancelled."""
        while True:
            await asked.wait()
            asked.clear()
            await self.reload()

    async def reload(self) -> None:
        """Take the policies of the file as it is now; those in force stay when it cannot be used."""
        try:
            # Signing goes on while thousands of keys are read.
            self._take_over(await asyncio.to_thread(self._load))
        except ConfigError as error:
            logger.error("the configuration was not reloaded, the old policies stay: %s", error)  # noqa: TRY400 -- no bug
        except Exception:
            # The one catch-all of this task: a bug here must not end a host that signs.
            logger.exception("the configuration was not reloaded by a bug, the old policies stay")

    def _take_over(self, config: Config) -> None:
        for warning in config.warnings:
            logger.warning("%s", warning)
        for section in fields_of(Config):
            if section.name not in _TAKEN_OVER and getattr(config, section.name) != getattr(
                self._started_with, section.name
            ):
                logger.warning("changes outside `tezos` take a restart", extra=fields(section=section.name))
        _log_difference(dict(self._signer.policies), config.policies)
        self._signer.policies = config.policies
        logger.info("policies reloaded", extra=fields(keys=len(config.policies)))


def _log_difference(old: dict[str, KeyPolicy], new: dict[str, KeyPolicy]) -> None:
    for pkh in old.keys() - new.keys():
        logger.warning("key not listed any more", extra=fields(pkh=pkh, was=meaning(old[pkh])))
    for pkh in new.keys() - old.keys():
        logger.warning("key listed", extra=fields(pkh=pkh, now=meaning(new[pkh])))
    for pkh in old.keys() & new.keys():
        if old[pkh] != new[pkh]:
            logger.warning("policy changed", extra=fields(pkh=pkh, was=meaning(old[pkh]), now=meaning(new[pkh])))
