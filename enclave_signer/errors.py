"""What can go wrong inside the enclave, by what the caller should do.

Texts may cross the wire and reach logs: lower case, name the thing and the fix, never a secret, never a blob.
`ProtocolError` in `enclave_signer.protocol.errors` is the one other root: that room imports nothing of ours.
"""


class EnclaveSignerError(Exception):
    """Root of everything the daemon refuses or fails at knowingly."""


class ConfigError(EnclaveSignerError):
    """The daemon cannot start as asked; fix the flag, variable or file that the text names."""


class SessionStateError(EnclaveSignerError):
    """A call came in the wrong order, e.g. before `Initialize`; call in order."""


class KeyFault(EnclaveSignerError):
    """The key asked for cannot do this; fix the request."""


class SealingError(EnclaveSignerError):
    """Root of what a sealer may raise."""


class SealingRefused(SealingError):
    """The sealer said no (wrong KEK, no right to use it); retrying will not help."""


class SealingUnavailable(SealingError):
    """The sealer did not answer; retrying later may help."""


class BlobCorrupt(SealingError):
    """The blob is not what was sealed: truncated, altered, re-labelled; restore it from a backup."""


class GuardRefused(EnclaveSignerError):
    """Signing this could be a double signature; never retry this level and round."""
