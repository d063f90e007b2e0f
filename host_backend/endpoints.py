"""The composition root of what an enclave is reached by: TLS, and what judges its proof, only where they are configured."""

import logging
from functools import partial

from host_backend.config import VaultConfig
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.proving import Proving
from host_backend.log import fields

logger = logging.getLogger(__name__)


def configured_endpoint(config: VaultConfig) -> Endpoint:
    """Return where a vault's enclave is, and how it is reached.

    Raises:
        ConfigError: A file that is named cannot be used.
    """
    if config.tls is None:
        return Endpoint(config.enclave, config.credentials, config.enclave_uid)
    from host_backend.enclave.tls import TlsClient  # noqa: PLC0415 -- most configurations have none

    tls = TlsClient(config.tls.certificate, config.tls.key)
    wanted = config.attestation
    if wanted is None:
        logger.warning("the enclave proves nothing: configure `attestation`", extra=fields(vault=config.name))
        return Endpoint(config.enclave, config.credentials, config.enclave_uid, tls, rereads=(tls.reread,))
    from host_backend.attestation.judging import TokenJudge, pinned_root  # noqa: PLC0415 -- as above
    from host_backend.attestation.keys import KeySource  # noqa: PLC0415 -- as above

    judge = TokenJudge(wanted.policy, partial(pinned_root, wanted.root) if wanted.by_root else KeySource())
    proving = Proving(judge.verify, wanted.max_age_s)
    rereads = (tls.reread, judge.reread)
    return Endpoint(config.enclave, config.credentials, config.enclave_uid, tls, proving, rereads)
