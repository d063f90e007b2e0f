"""What can be wrong with Tezos text or bytes; the texts never repeat the input, which may be a secret."""

from enclave_signer.errors import EnclaveSignerError


class TezosError(EnclaveSignerError):
    """Root of what this room raises."""


class MalformedBase58(TezosError):
    """The text is not the Tezos base58check value that was asked for; check what was pasted or configured."""


class EncryptedSecretKey(TezosError):
    """The secret key is encrypted with a password; decrypt it first."""


class MalformedMessage(TezosError):
    """The bytes begin like a consensus message but are not exactly one; nothing may be signed."""


class MarkRefused(TezosError):
    """A message may not be signed after what was allowed before; never sign it."""


class MarkTooFar(MarkRefused):
    """Refused only because it is so far above what was allowed before; look whether its level can be right."""
