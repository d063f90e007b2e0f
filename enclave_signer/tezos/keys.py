"""Keys, hashes and signatures as Tezos text.

- Only the shape is checked here, prefix and size. `enclave_signer.curves` knows whether bytes are a point, or a scalar
  in range.
- BLS secret keys are little-endian in text and big-endian in `PrivateKey`; everything else keeps its bytes.
- No error repeats the text it complains about.

Source: Octez `src/lib_crypto`; `tests/vectors/signatory-vectors.json` (`keypairs`, `encrypted_secret_keys`).
"""

from hashlib import blake2b

from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, Signature
from enclave_signer.tezos.base58 import (
    ENCRYPTION_BYTES,
    PUBLIC_KEY_HASH_BYTES,
    Family,
    Kind,
    Layout,
    decode,
    encode,
    kinds_of,
)
from enclave_signer.tezos.errors import EncryptedSecretKey, MalformedBase58

_HASH_KINDS = kinds_of(Family.PUBLIC_KEY_HASH)
_PUBLIC_KEY_KINDS = kinds_of(Family.PUBLIC_KEY)
_SIGNATURE_KINDS = kinds_of(Family.SIGNATURE)
_KEY_TYPE_OF_HASH = {kind: key_type for key_type, kind in _HASH_KINDS.items()}
_KEY_TYPE_OF_PUBLIC_KEY = {kind: key_type for key_type, kind in _PUBLIC_KEY_KINDS.items()}
_KEY_TYPE_OF_SIGNATURE = {kind: key_type for key_type, kind in _SIGNATURE_KINDS.items()}
#: How signatures that name their curve begin.
_SIGNATURE_LABELS = [f"{kind.value.label}…" for kind in _SIGNATURE_KINDS.values()]
_SIGNATURE_FORMS = f"{', '.join(_SIGNATURE_LABELS[:-1])} or {_SIGNATURE_LABELS[-1]}"


def public_key_hash(public_key: PublicKey) -> str:
    """Name a public key by its hash.

    Args:
        public_key: A key of the right size; it need not be a valid point.

    Returns:
        The address, `tz1…` to `tz5…`.
    """
    digest = blake2b(public_key.data, digest_size=PUBLIC_KEY_HASH_BYTES).digest()
    return encode(_HASH_KINDS[public_key.key_type], digest)


def check_public_key_hash(text: str) -> KeyType:
    """Check that a text is a public key hash.

    Args:
        text: What a client or a configuration says.

    Returns:
        The curve that the hash belongs to.

    Raises:
        MalformedBase58: It is something else; give a `tz1…` to `tz5…` address.
    """
    return parse_public_key_hash(text)[0]


def parse_public_key_hash(text: str) -> tuple[KeyType, bytes]:
    """Read a public key hash.

    Returns:
        The curve that the hash belongs to, and its 20 bytes.

    Raises:
        MalformedBase58: It is something else; give a `tz1…` to `tz5…` address.
    """
    kind, digest = decode(text, Family.PUBLIC_KEY_HASH)
    return _KEY_TYPE_OF_HASH[kind], digest


def encode_public_key(public_key: PublicKey) -> str:
    """Write a public key as text.

    Returns:
        `edpk…`, `sppk…`, `p2pk…`, `BLpk…` or `mdpk…`.

    Raises:
        MalformedBase58: The key has the wrong size; look at where it came from.
    """
    return encode(_PUBLIC_KEY_KINDS[public_key.key_type], public_key.data)


def parse_public_key(text: str) -> PublicKey:
    """Read a public key.

    Returns:
        The key; its size is right, but only `enclave_signer.curves` knows whether it is a point.

    Raises:
        MalformedBase58: It is something else; give an `edpk…`, `sppk…`, `p2pk…`, `BLpk…` or `mdpk…` text.
    """
    kind, payload = decode(text, Family.PUBLIC_KEY)
    return PublicKey(_KEY_TYPE_OF_PUBLIC_KEY[kind], payload)


def encode_signature(signature: Signature) -> str:
    """Write a signature, or a proof of possession, in the form of its curve.

    Returns:
        `edsig…`, `spsig1…`, `p2sig…`, `BLsig…` or `mdsig…`.

    Raises:
        MalformedBase58: The signature has the wrong size; look at where it came from.
    """
    return encode(_SIGNATURE_KINDS[signature.key_type], signature.data)


def parse_signature(text: str, key_type: KeyType | None = None) -> Signature:
    """Read a signature.

    Args:
        text: `edsig…`, `spsig1…`, `p2sig…`, `BLsig…`, `mdsig…`, or, when the curve is given, the generic `sig…`.
        key_type: The curve that the signature must belong to; None takes any curve that the text names itself.

    Returns:
        The signature; not verified.

    Raises:
        MalformedBase58: It is something else, of another curve, or generic where the curve is not known.
    """
    kind, payload = decode(text, Family.SIGNATURE)
    named = _KEY_TYPE_OF_SIGNATURE.get(kind)
    if named is None:
        return _generic_signature(payload, key_type)
    if key_type is not None and named is not key_type:
        raise MalformedBase58(f"wrong kind: got a signature of a {named} key where one of a {key_type} key is needed")
    return Signature(named, payload)


def _generic_signature(payload: bytes, key_type: KeyType | None) -> Signature:
    """Take the curve of a `sig…` text from the caller."""
    if key_type is None:
        raise MalformedBase58(f"a generic signature (sig…) does not name its curve; give {_SIGNATURE_FORMS}")
    if len(payload) != key_type.facts.signature_bytes:
        label = _SIGNATURE_KINDS[key_type].value.label
        raise MalformedBase58(f"a generic signature (sig…) cannot hold a signature of a {key_type} key; give {label}…")
    return Signature(key_type, payload)


def parse_secret_key(text: str) -> PrivateKey:
    """Read a secret key in clear.

    The expanded Ed25519 form (98 characters) is seed and public key: the seed is taken. Whether that public key is the
    seed's is not looked at, for this room knows no curves; who needs certainty compares the hash of the opened key.
    `mdsk…` is expanded, too, but its seed cannot be had back, and no key is opened without.

    Args:
        text: `edsk…` (54 or 98 characters), `spsk…`, `p2sk…` or `BLsk…`, without spaces around it.

    Returns:
        The key, 32 bytes: the Ed25519 seed, or the scalar big-endian; `enclave_signer.curves` checks its range.

    Raises:
        EncryptedSecretKey: The key needs a password; decrypt it first.
        MalformedBase58: It is not a secret key, or holds no seed; the error does not repeat the text.
    """
    kind, payload = decode(text, Family.PRIVATE_KEY, Family.ENCRYPTED_PRIVATE_KEY)
    check_has_key(kind)
    key_type = kind.value.key_type
    if key_type is None or kind.value.family is Family.ENCRYPTED_PRIVATE_KEY:
        raise EncryptedSecretKey(
            f"the secret key is encrypted ({kind.value.label}…); decrypt it with its password first, then give it in clear"
        )
    if key_type.facts.texts.little_endian:
        payload = payload[::-1]
    return PrivateKey(key_type, payload[: key_type.facts.private_key_bytes])


def secret_key_labels() -> list[str]:
    """Return how the secret keys that are opened here begin, the encrypted ones last."""
    return [*dict.fromkeys(kind.value.label for kind in _KINDS_WITH_KEY)]


def check_has_key(kind: Kind) -> None:
    """Return when texts of a kind hold what the curve opens.

    Args:
        kind: Of a secret key, encrypted or not.

    Raises:
        MalformedBase58: They hold what was made of it, from which it cannot be had back.
    """
    if kind not in _KINDS_WITH_KEY:
        raise MalformedBase58(
            f"{kind.value.label}… holds an expanded key without its seed, which cannot be signed with here: "
            "make a new key with `generate`, or import the seed in PEM"
        )


def _has_key(layout: Layout) -> bool:
    """Whether the payload is a private key, alone or before its public key."""
    assert layout.key_type is not None  # noqa: S101 -- secret keys belong to a curve
    facts = layout.key_type.facts
    size = layout.payload_bytes - ENCRYPTION_BYTES * (layout.family is Family.ENCRYPTED_PRIVATE_KEY)
    return size in (facts.private_key_bytes, facts.private_key_bytes + facts.public_key_bytes)


#: Of secret keys, plain ones first.
_KINDS_WITH_KEY = [
    kind
    for family in (Family.PRIVATE_KEY, Family.ENCRYPTED_PRIVATE_KEY)
    for kind in Kind
    if kind.value.family is family and _has_key(kind.value)
]
