"""Ed25519 over BLAKE2b-256, by libsodium.

- Any 32 bytes are a private key (RFC 8032 calls it the seed).
- Public keys must be canonical and of the prime-order group: what a seed gives always is.
"""

import secrets

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_BYTES,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

from enclave_signer.curves.base import Curve, InvalidPublicKey, KnownAnswer, check_public_key_size, private_key_bytes
from enclave_signer.curves.digest import DigestSigningKey, DigestVerifyingKey
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, SigningVersion


class Ed25519SigningKey(DigestSigningKey):
    """An opened Ed25519 key."""

    __slots__ = ("_secret",)

    def __init__(self, seed: bytes) -> None:
        public_key, self._secret = crypto_sign_seed_keypair(seed)
        super().__init__(PublicKey(KeyType.ED25519, public_key))

    def _sign(self, digest: bytes) -> bytes:
        return crypto_sign(digest, self._secret)[:crypto_sign_BYTES]


class Ed25519VerifyingKey(DigestVerifyingKey):
    """A parsed Ed25519 public key."""

    __slots__ = ()

    def _verifies(self, signature: bytes, digest: bytes) -> bool:
        try:
            crypto_sign_open(signature + digest, self.public_key.data)
        except BadSignatureError:
            return False
        return True


#: A public test key. Source: tee-signer 4f91388, recorded.
_KNOWN_ANSWER = KnownAnswer(
    private_key=bytes.fromhex("cfe0c48fe7530d3aba4f5b3a9b33073251691a83fbc1ab248db31c42ec2b9703"),
    public_key=bytes.fromhex("b9dfece6122726b04976b23a69d54729816cebde72eebd521b2b8d5a6ad891b6"),
    signatures=(
        (
            SigningVersion.LATEST,
            bytes.fromhex(
                "bedd904a24b6a213b2b9194e4250a987b9a2c632b2992f0ff5eddcad9e8c23dc9e18f47e57a1ca8484fbe8d1f5d89260"
                "88a59953329f4afad5194ffe35a21509"
            ),
        ),
    ),
)


class Ed25519:
    """The curve."""

    key_type = KeyType.ED25519
    known_answer = _KNOWN_ANSWER

    def generate(self) -> PrivateKey:
        """Return a new seed."""
        return PrivateKey(KeyType.ED25519, secrets.token_bytes(KeyType.ED25519.facts.private_key_bytes))

    def open(self, private_key: PrivateKey) -> Ed25519SigningKey:
        """Return the key, ready to sign.

        Raises:
            InvalidPrivateKey: Another curve's key, or not 32 bytes.
        """
        return Ed25519SigningKey(private_key_bytes(private_key, KeyType.ED25519))

    def parse_public_key(self, data: bytes) -> Ed25519VerifyingKey:
        """Return the key, ready to verify.

        Raises:
            InvalidPublicKey: Not 32 bytes, not canonical, not on the curve, or not in its prime-order group.
        """
        check_public_key_size(data, KeyType.ED25519)
        if not crypto_core_ed25519_is_valid_point(data):
            raise InvalidPublicKey("not a public key of Ed25519: no canonical point of the prime-order group")
        return Ed25519VerifyingKey(PublicKey(KeyType.ED25519, data))


CURVE: Curve = Ed25519()
