"""What both forms of the modules are asked: every vector, and inputs that are made up, the same in every run."""

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.messages import (
    Attest,
    Attestation,
    Credentials,
    Generate,
    GenerateAndImport,
    GetPublicKey,
    GetPublicKeyFrom,
    Import,
    ImportedKey,
    ImportUnencrypted,
    Initialize,
    KeyType,
    PrivateKey,
    ProvePossession,
    ProvePossessionOf,
    PublicKey,
    Purpose,
    Request,
    Reseal,
    Result,
    SealedKey,
    Sign,
    Signature,
    SigningVersion,
    SignWith,
    UseKey,
)
from enclave_signer.tezos import Kind, Mark, encode
from tests.endurance import agreement

#: Bytes are read in every way, a text as base58, and marks are judged: stored, asked, and the largest jump.
Input = bytes | str | tuple[Mark | None, Mark, int]

VECTORS = Path(__file__).parents[1] / "vectors"
_HEX = re.compile(r"(?:[0-9a-f]{2})+")
#: Longer strings of the vectors are documents.
_LONGEST_TEXT = 4096
_LEVELS = (0, 1, 2, 3, 2**31 - 2, 2**31 - 1, 2**31, -1)
_DIGESTS = (None, bytes(32), bytes([1]) * 32)
_SHORT = [kind for kind in Kind if kind.value.payload_bytes < 200]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def vectors() -> Iterator[Input]:
    """Yield every text of the vectors, and what those in hexadecimal stand for."""
    for path in sorted(VECTORS.glob("*.json")):
        for text in _strings(json.loads(path.read_text())):
            if _HEX.fullmatch(text):
                yield bytes.fromhex(text)
            elif len(text) <= _LONGEST_TEXT:
                yield text


class Inputs:
    """Makes inputs up.

    Args:
        seed: The same inputs come of the same seed.
    """

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)
        self._operations = [message for message in _messages() if message[0] not in {0x11, 0x12, 0x13}]
        self._consensus = agreement.messages(2**62, self._chance.getrandbits(64))
        self._makers: dict[Callable[[], Input], int] = {
            lambda: next(self._consensus): 30,
            lambda: self._spoiled(codec.encode_request(self._request())): 15,
            lambda: self._spoiled(self._reply()): 15,
            lambda: self._spoiled(self._chance.choice(self._operations)): 15,
            self._text: 15,
            self._marks: 10,
        }

    def make(self) -> Input:
        """Return the next one."""
        (maker,) = self._chance.choices([*self._makers], [*self._makers.values()])
        return maker()

    def _spoiled(self, data: bytes) -> bytes:
        """Change, put in or leave out some bytes of two in three."""
        chance, changed = self._chance, bytearray(data)
        for _ in range(chance.choice((0, 1, 2))):
            at = chance.randrange(len(changed) + 1)
            changed[at : at + chance.randrange(3)] = chance.randbytes(chance.choice((0, 1, 1, 1, 2, 5)))
        return bytes(changed)

    def _bytes(self) -> bytes:
        return self._chance.randbytes(self._chance.choice((0, 1, 23, 24, 64, 80, 255, 256, 300)))

    def _request(self) -> Request:
        chance = self._chance
        handle = chance.choice((0, 1, 23, 24, 255, 256, 70_000, 2**64 - 1))
        key_type, version = chance.choice([*KeyType]), chance.choice([*SigningVersion])
        public_key = PublicKey(key_type, chance.randbytes(key_type.facts.public_key_bytes))
        private_key = PrivateKey(key_type, chance.randbytes(key_type.facts.private_key_bytes))
        requests: tuple[Request, ...] = (
            *(Sign(handle, self._bytes(), version), Sign(handle, self._bytes(), version)),
            *(SignWith(self._bytes(), self._bytes(), version), Import(self._bytes()), ImportUnencrypted(private_key)),
            *(Initialize(Credentials("a", None)), Initialize(Credentials()), Initialize(Credentials("a", "b"))),
            *(Generate(key_type), GenerateAndImport(key_type), GetPublicKey(handle), GetPublicKeyFrom(self._bytes())),
            *(ProvePossession(handle), ProvePossessionOf(handle, public_key), Reseal(self._bytes(), "a/b")),
            *(Attest(chance.randbytes(32), chance.choice([*Purpose])), UseKey("tz1" + "a" * chance.randrange(36))),
        )
        return chance.choice(requests)

    def _reply(self) -> bytes:
        chance = self._chance
        key_type = chance.choice([*KeyType])
        public_key = PublicKey(key_type, chance.randbytes(key_type.facts.public_key_bytes))
        signature = Signature(key_type, chance.randbytes(key_type.facts.signature_bytes))
        attestation = Attestation(chance.randbytes(32), "token", chance.randbytes(32), chance.randbytes(64))
        results: tuple[Result | WireError, ...] = (
            *(signature, signature, None, ImportedKey(public_key, chance.randrange(300)), public_key, attestation),
            *(SealedKey(self._bytes(), public_key, 7), SealedKey(self._bytes(), public_key)),
            *(
                WireError("guard refused: no", WireError("why")),
                WireError("invalid handle"),
                WireError("unavailable: x"),
            ),
        )
        result = chance.choice(results)
        return codec.encode_error(result) if isinstance(result, WireError) else codec.encode_ok(result)

    def _text(self) -> str:
        chance = self._chance
        kind = chance.choice(_SHORT)
        text = [*encode(kind, chance.randbytes(kind.value.payload_bytes))]
        for _ in range(chance.choice((0, 1, 2))):
            text[chance.randrange(len(text))] = chance.choice("123456789ABCabcxyz0OIl ")
        return "".join(text[: chance.choice((None, None, chance.randrange(len(text))))])

    def _marks(self) -> Input:
        chance = self._chance

        def mark() -> Mark:
            level = chance.choice((*_LEVELS, chance.getrandbits(24)))
            return Mark(level, chance.choice(_LEVELS), chance.choice(_DIGESTS))

        return chance.choice((None, mark(), mark())), mark(), chance.choice((0, 1, 5_000_000))


def _messages() -> Iterator[bytes]:
    for name in ("operations", "protocols"):
        for text in _strings(json.loads((VECTORS / f"{name}.json").read_text())):
            if _HEX.fullmatch(text) and len(text) > 12:
                yield bytes.fromhex(text)
