"""The server: takes connections up to a limit, gives each a session, ends in order.

What all sessions share is made here, once: the opened keys, the guard, the places and the time of the loop.
"""

import logging
from collections.abc import Sequence
from contextlib import closing

import trio

from enclave_signer import log
from enclave_signer.attestation.attesting import Attesting
from enclave_signer.attestation.base import Attester, NoAttester
from enclave_signer.config import Limits
from enclave_signer.guard import Guard
from enclave_signer.keychain import Keychain, OpenKeys
from enclave_signer.protocol.framing import MAX_FRAME_BYTES
from enclave_signer.sealing.providers import Providers
from enclave_signer.sealing.reseal_rules import ResealRule
from enclave_signer.sealing.resealing import ResealingByImage
from enclave_signer.serving.admission import Places
from enclave_signer.serving.connection import Connection
from enclave_signer.serving.fairness import Pace, Round
from enclave_signer.serving.listeners import Listener, rest_if_exhausted
from enclave_signer.serving.stream import Stream
from enclave_signer.serving.workers import Workers, open_workers
from enclave_signer.session import Session
from enclave_signer.sparse_log import SparseLog

logger = logging.getLogger(__name__)

#: Clients accepted between two looks at the sockets, some 3 ms: those who are connected have their turns meanwhile.
ACCEPTS_PER_LOOK = 32
#: Seconds for the calls already read to be answered at a stop.
STOP_S = 5.0


class Server:
    """Accepts clients until stopped.

    Args:
        listener: Where clients come from; closed at the end.
        providers: What opens the sealers that sessions ask for.
        limits: What clients may take.
        guard: Whether to refuse two consensus messages for one right.
        reseal: What the image allows to reseal; None: nothing.
        attester: Vouches for this machine and its image.
    """

    def __init__(
        self,
        listener: Listener,
        providers: Providers,
        limits: Limits,
        *,
        guard: bool = True,
        reseal: Sequence[ResealRule] | None = None,
        attester: Attester | None = None,
    ) -> None:
        self._listener = listener
        self._providers = providers
        self._reseal = reseal
        self._limits = limits
        share = limits.connections_of_share(listener.shares)
        self._places = Places(limits.max_connections, share, self._displaced)
        self._round = Round()
        self._accepting = trio.CancelScope()
        self._open_keys = OpenKeys(
            limits.max_open_keys,
            limits.open_keys_of_share(listener.shares),
            limits.retain_s,
            trio.current_time,
            by_hash=listener.by_rules,
        )
        self._prover = Attesting(attester or NoAttester(), trio.current_time)
        self._key_left = trio.Event()
        self._refusals = SparseLog()
        self._displacements = SparseLog()
        self._exhaustions = SparseLog()
        self._long_frames = SparseLog()
        #: Refuses double signatures; None when it is switched off.
        self.guard = Guard(limits.max_guarded, SparseLog().tell) if guard else None

    async def serve(self) -> None:
        """Serve until `stop`, then answer what was read and return."""
        # Around everything: the next process to listen here must not begin before the last call of this one was answered.
        with self._listener:
            await self._serve()
        if self.guard is not None and self.guard.refused:
            logger.warning("the guard refused double signatures in all: %d", self.guard.refused)

    async def _serve(self) -> None:
        async with (
            open_workers() as workers,
            self._round.going(),
            self._providers.running(),
            trio.open_nursery() as keeping,
        ):
            keeping.start_soon(self._forget_keys)
            async with trio.open_nursery() as nursery:
                with closing(self._listener), self._accepting:
                    await self._accept(nursery, workers)
                nursery.cancel_scope.deadline = trio.current_time() + STOP_S
                for connection in self._places:
                    connection.stop()
            keeping.cancel_scope.cancel()

    async def _forget_keys(self) -> None:
        """Drop remembered keys when their time is over, for ever."""
        while True:
            left = self._key_left
            with trio.move_on_at(self._open_keys.forget()):
                await left.wait()

    def stop(self) -> None:
        """Take no more clients, let the calls already read be answered, end."""
        self._accepting.cancel()

    async def _accept(self, nursery: trio.Nursery, workers: Workers) -> None:
        while True:
            await self._listener.wait()
            for _ in range(ACCEPTS_PER_LOOK):
                try:
                    stream = self._listener.accept()
                except OSError as error:
                    await rest_if_exhausted(error, self._exhaustions)
                    break
                if stream is not None:
                    self._admit(stream, nursery, workers)

    def _admit(self, stream: Stream, nursery: trio.Nursery, workers: Workers) -> None:
        source, network = stream.peer.source, stream.peer.network
        keychain = Keychain(self._limits.max_handles, self._open_keys, network)
        resealing = ResealingByImage(self._providers, self._reseal, network)
        shared = (self.guard, resealing, self._prover)
        session = Session(self._providers.for_client(network), keychain, *shared, stream, self._providers.release)
        connection = Connection(stream, session, workers, Pace(self._round), self._limits, self._told_of_long_frame)
        if self._places.enter(connection, network):
            self._round.share(len(self._places))
            nursery.start_soon(self._serve_client, connection, source)
        else:
            stream.close()
            self._refusals.warn("connections refused, the others hold keys", source=source, **self._limits_of_places)

    def _displaced(self, address: str) -> None:
        text = "silent connections without keys closed for newcomers"
        self._displacements.warn(text, source=address, **self._limits_of_places)

    def _told_of_long_frame(self) -> None:
        self._long_frames.warn("frames over the limit were thrown away", limit=MAX_FRAME_BYTES)

    @property
    def _limits_of_places(self) -> dict[str, object]:
        return {"limit": self._limits.max_connections, "per_address": self._places.share}

    async def _serve_client(self, connection: Connection, source: str) -> None:
        log.adds(source=source)
        logger.debug("connection opened")
        try:
            await connection.serve()
        finally:
            self._places.leave(connection)
            self._round.share(len(self._places))
            # Its keys are remembered from now on: their time must be watched.
            self._key_left.set()
            self._key_left = trio.Event()
        logger.debug("connection ended")
