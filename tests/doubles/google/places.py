"""Where doubles of Google's services are. It imports what an image has, and nothing else."""

from pathlib import Path

import grpc
import trio

from enclave_signer.sealing.gcp_client import CHANNEL_OPTIONS, GcpPlaces


def places(kms: str, sts: tuple[str, int], token_file: Path, socket: Path) -> GcpPlaces:
    """Return places on loopback; the channel is without TLS, and otherwise as in production."""

    async def open_sts() -> trio.abc.Stream:
        return await trio.open_tcp_stream(*sts)

    return GcpPlaces(
        open_kms=lambda: grpc.insecure_channel(kms, options=CHANNEL_OPTIONS),
        open_sts=open_sts,
        token_file=token_file,
        launcher_socket=socket,
    )
