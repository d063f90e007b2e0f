"""Keys outlive the connection for a while: a host that is back has them although the sealer is away."""

import trio

from enclave_signer.config import Limits
from enclave_signer.errors import SealingRefused, SealingUnavailable
from enclave_signer.protocol.messages import Credentials
from enclave_signer.sealing.base import Sealer, UnsealedKey
from tests.doubles.daemon_in_trio import World, call, frame, receive, run
from tests.doubles.known_keys import FOUR
from tests.doubles.passthrough_enclave import PassthroughSealer

BLOBS = [key.clear_blob for key in FOUR]
CREDENTIALS = {"Initialize": {"wip_provider_path": "pool", "encryption_key_path": "key"}}
OTHERS = {"Initialize": {"wip_provider_path": "pool", "encryption_key_path": "another key"}}
LIMITS = Limits(retain_s=300)
AWAY = "the key management service does not answer"


class CloudSealer(PassthroughSealer):
    """Counts what it is asked to open; can be away, for new sessions as well; refuses one name."""

    def __init__(self) -> None:
        self.away = False
        self.opened: list[bytes] = []

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        if self.away:
            raise SealingUnavailable(AWAY)
        if credentials.encryption_key_path == "forbidden":
            raise SealingRefused("not that one")
        return self

    async def unseal(self, blob: bytes) -> UnsealedKey:
        if self.away:
            raise SealingUnavailable(AWAY)
        self.opened.append(blob)
        return await super().unseal(blob)


def ok(reply: object) -> object:
    assert isinstance(reply, dict)
    return reply["Ok"]


def err(text: str) -> object:
    return {"Err": {"message": text, "source": None}}


async def connect(world: World, initialize: object = CREDENTIALS) -> trio.SocketStream:
    stream = await world.connect(initialize=False)
    assert await call(stream, initialize) == {"Ok": None}
    return stream


async def reset(stream: trio.SocketStream) -> None:
    """End a connection and let the daemon notice."""
    await stream.aclose()
    await trio.sleep(0.01)


def test_after_a_reset_while_the_sealer_is_away_all_keys_are_back() -> None:
    sealer = CloudSealer()

    async def main(world: World) -> None:
        stream = await connect(world)
        before = [await call(stream, {"Import": blob}) for blob in BLOBS]
        assert sealer.opened == BLOBS
        await reset(stream)
        sealer.away = True
        for _ in range(3):
            stream = await connect(world)
            for blob in BLOBS:
                await stream.send_all(frame({"Import": blob}))
            assert [await receive(stream) for _ in BLOBS] == before
            for handle in range(len(BLOBS)):
                ok(await call(stream, {"Sign": {"handle": handle, "message": b"\3", "version": 2}}))
            await reset(stream)
            await trio.sleep(299)

    run(main, sealer, limits=LIMITS)


def test_then_they_are_dropped() -> None:
    sealer = CloudSealer()

    async def main(world: World) -> None:
        stream = await connect(world)
        ok(await call(stream, {"Import": BLOBS[0]}))
        await reset(stream)
        await trio.sleep(301)
        # Dropped by the daemon itself, not at somebody's next question.
        assert not world.server._open_keys._opened
        sealer.away = True
        stream = await connect(world)
        assert await call(stream, {"Import": BLOBS[0]}) == err(f"unavailable: {AWAY}")

    run(main, sealer, limits=LIMITS)


def test_while_a_session_has_them_others_find_them_however_long() -> None:
    sealer = CloudSealer()

    async def main(world: World) -> None:
        holder = await connect(world)
        generated = ok(await call(holder, {"GenerateAndImport": "Ed25519"}))
        assert isinstance(generated, dict)
        sealer.opened.clear()
        await trio.sleep(10_000)
        sealer.away = True
        other = await connect(world)
        imported = ok(await call(other, {"Import": generated["encrypted_private_key"]}))
        assert imported == {"public_key": generated["public_key"], "handle": 0}
        blob, message = generated["encrypted_private_key"], b"\3"
        signed = await call(other, {"SignWith": {"encrypted_private_key": blob, "message": message, "version": 2}})
        assert signed == await call(holder, {"Sign": {"handle": 0, "message": message, "version": 2}})

    run(main, sealer, limits=LIMITS)


def test_that_a_blob_opens_is_never_said_out_of_memory() -> None:
    sealer = CloudSealer()

    async def main(world: World) -> None:
        stream = await connect(world)
        imported = ok(await call(stream, {"Import": BLOBS[0]}))
        assert isinstance(imported, dict)
        assert await call(stream, {"PublicKeyFrom": BLOBS[0]}) == {"Ok": imported["public_key"]}
        assert sealer.opened == [BLOBS[0]] * 2
        sealer.away = True
        assert await call(stream, {"PublicKeyFrom": BLOBS[0]}) == err(f"unavailable: {AWAY}")

    run(main, sealer, limits=LIMITS)


def test_sign_with_keeps_nothing() -> None:
    sealer = CloudSealer()

    async def main(world: World) -> None:
        stream = await connect(world)
        asked = {"encrypted_private_key": BLOBS[0], "message": b"\3", "version": 2}
        for _ in range(2):
            ok(await call(stream, {"SignWith": asked}))
        assert sealer.opened == [BLOBS[0]] * 2

    run(main, sealer, limits=LIMITS)


def test_other_credentials_do_not_get_them() -> None:
    sealer = CloudSealer()

    async def main(world: World) -> None:
        stream, other = await connect(world), await connect(world, OTHERS)
        ok(await call(stream, {"Import": BLOBS[0]}))
        sealer.away = True
        assert await call(other, {"Import": BLOBS[0]}) == err(f"unavailable: {AWAY}")
        # No one initialized with these before, so that there is no sealer either.
        stranger = await world.connect(initialize=False)
        assert await call(stranger, {"Initialize": {}}) == err(f"unavailable: {AWAY}")
        # A refusal is no absence.
        sealer.away = False
        forbidden = {"Initialize": {"encryption_key_path": "forbidden"}}
        assert await call(stranger, forbidden) == err("not that one")

    run(main, sealer, limits=LIMITS)


def test_switched_off_every_connection_asks_the_sealer() -> None:
    sealer = CloudSealer()

    async def main(world: World) -> None:
        for _ in range(2):
            stream = await connect(world)
            ok(await call(stream, {"Import": BLOBS[0]}))
            await reset(stream)
        assert sealer.opened == [BLOBS[0]] * 2

    run(main, sealer, limits=Limits(retain_s=0))


def test_remembered_keys_make_room_for_others() -> None:
    sealer = CloudSealer()

    async def main(world: World) -> None:
        first = await connect(world)
        for blob in BLOBS[:2]:
            ok(await call(first, {"Import": blob}))
        await reset(first)
        second = await connect(world)
        for blob in BLOBS[2:]:
            ok(await call(second, {"Import": blob}))
        reply = await call(second, {"Import": BLOBS[0]})
        assert "holds 2 opened keys" in str(reply)

    run(main, sealer, limits=Limits(max_open_keys=2))


def test_two_sessions_may_open_one_blob_at_once() -> None:
    class Slow(CloudSealer):
        async def unseal(self, blob: bytes) -> UnsealedKey:
            await trio.sleep(1)
            return await super().unseal(blob)

    async def main(world: World) -> None:
        streams = [await connect(world) for _ in range(2)]
        for stream in streams:
            await stream.send_all(frame({"Import": BLOBS[0]}))
        first, second = [await receive(stream) for stream in streams]
        assert first == second

    run(main, Slow(), limits=LIMITS)
