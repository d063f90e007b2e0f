"""How many clients the limit of open files allows: what the enclaves and the stores need stays free.

Clients that fill every place of both ports, while the policy hook hangs, do not keep the host from its enclaves and files.
"""

import logging
import resource

from host_backend.log import fields

logger = logging.getLogger(__name__)

#: Clients at once at the signing address: a baker has a handful, and a few thousand idle ones must not shut it out.
SIGNING_PLACES = 4096
#: At least: below that the host would be of no use, whatever the limit says.
LEAST_SIGNING_PLACES = 16
#: Clients at once at the utility address: Prometheus and a few that ask for health.
UTILITY_PLACES = 64
#: Questions to the policy hook at once: hundreds of keys that attest at the same moment pass well within its time limit.
HOOK_CONNECTIONS = 64
#: For each vault: its link, the next one while it is made, one for new keys, its key file with lock and copy, names looked up.
PER_VAULT = 16
#: What the event loop, the log, the stores of marks, the configuration and its folders have open, and some to spare.
OWN = 64
#: Clients that were turned away or displaced, and are not closed yet.
LEAVING = 64


def signing_places(vaults: int, *, hook: bool, addresses: int = 1) -> int:
    """Let this process open as many files as it needs; return how many clients each address for signatures may have.

    Args:
        vaults: How many there are.
        hook: Whether there is a policy hook.
        addresses: How many addresses there are for signatures.
    """
    others = UTILITY_PLACES + vaults * PER_VAULT + OWN + LEAVING + (HOOK_CONNECTIONS if hook else 0)
    allowed = _raised(others + addresses * SIGNING_PLACES)
    places = min(SIGNING_PLACES, max((allowed - others) // addresses, LEAST_SIGNING_PLACES))
    if places < SIGNING_PLACES:
        logger.warning(
            "the limit of open files (ulimit -Hn) allows %d clients at once, not %d",
            places,
            SIGNING_PLACES,
            extra=fields(limit=allowed, kept_free=others),
        )
    return places


def _raised(wanted: int) -> int:
    """Raise the soft limit of open files as far as is wanted and allowed; return what may be opened then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        return allowed
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
