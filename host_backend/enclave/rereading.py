"""Takes over changed files that an enclave is reached and judged by, while the link is up.

- All of an enclave's files are read away from the event loop, and used at once; if one cannot be used, all stay as they were.
- The token that has proven the enclave is judged again at once, so that a policy which no longer matches stops the link
  even when no new token can be had; one that has ended is not, as the keys that sign tokens change.
- Then a new connection, with the new certificate and a new token, takes the place of the one in service.
"""

import asyncio
import logging

from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.renewal import Renewal
from host_backend.errors import ConfigError
from host_backend.log import fields

logger = logging.getLogger(__name__)


async def reread(vault: str, enclave: Endpoint, renewal: Renewal) -> None:
    """Use the files of an enclave as they are now; log what keeps them from being used.

    Args:
        vault: The vault's name, for the log.
        enclave: Whose files they are.
        renewal: Of its link.
    """
    extra = fields(vault=vault)
    try:
        use = await asyncio.to_thread(enclave.reread)
        if not use():
            return
        logger.warning("the certificate for the enclave, or the policy that it is judged by, has changed", extra=extra)
        if enclave.proving is None or await enclave.proving.judge_again():
            renewal.insist()
    except ConfigError as error:
        text = "the certificate for the enclave and the policy were not reloaded, the old ones stay: %s"
        logger.error(text, error, extra=extra)  # noqa: TRY400 -- no bug
    except Exception:
        # The one catch-all of this: a bug here must not end a host that signs.
        logger.exception("the certificate for the enclave and the policy were not reloaded, by a bug", extra=extra)
