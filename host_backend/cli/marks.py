"""What the commands on watermarks do."""

import logging

from enclave_signer.tezos import Family, Right, TezosError, check_public_key_hash, decode
from host_backend.app import raise_watermark
from host_backend.config import Config
from host_backend.errors import MalformedRequest
from host_backend.log import fields
from host_backend.watermark.rule import MarkKey

logger = logging.getLogger(__name__)


def raise_one_mark(config: Config, chain_id: str, pkh: str, right: str, level: int, round_: int) -> None:
    """Move one mark up.

    Raises:
        HostError: The mark stays as it is; the text says why.
    """
    try:
        decode(chain_id, Family.CHAIN_ID)
        check_public_key_hash(pkh)
    except TezosError as error:
        # A mark for a chain or key that does not exist would protect nothing.
        raise MalformedRequest(str(error)) from None
    raise_watermark(config, MarkKey(chain_id, pkh, Right(right)), level, round_)
    extra = fields(chain_id=chain_id, pkh=pkh, right=right, lvl=level, round=round_)
    logger.warning("watermark raised", extra=extra)
