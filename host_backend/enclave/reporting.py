"""Asks an enclave for a token that is to be shown to others. It proves no connection, and nothing secret is sent."""

from enclave_signer.protocol.binding import NO_CHANNEL
from enclave_signer.protocol.messages import Attest, Attestation, Purpose
from host_backend.attestation.report import Shown
from host_backend.enclave.connection import connect
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.proving import TOKEN_S
from host_backend.errors import EnclaveRefused


async def ask_report(enclave: Endpoint, nonce: bytes) -> Shown:
    """Return a token about an enclave, asked for on a connection of its own: it delays no signature.

    Args:
        enclave: Where it is.
        nonce: 32 bytes.

    Raises:
        EnclaveRefused: It proves nothing.
        EnclaveUnavailable: It cannot be reached, or has no token at the moment.
    """
    connection = await connect(enclave.address, tls=enclave.tls)
    try:
        answer = await connection.ask(Attest(nonce, Purpose.REPORT), TOKEN_S)
    finally:
        connection.close()
    if not isinstance(answer, Attestation) or answer.token is None or answer.inventory is None:
        raise EnclaveRefused("the enclave showed no token")
    channel = connection.channel or NO_CHANNEL
    return Shown(answer.token, answer.attested_key, answer.inventory, channel.enclave_key, channel.client_key)
