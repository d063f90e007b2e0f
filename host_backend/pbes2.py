"""PBES2, the encryption of PKCS#8 with a password, for keys that `cryptography` does not read behind it.

- PBKDF2 or scrypt, then AES in CBC mode: what OpenSSL and the libraries of Rust and Go write.
- A file says itself what its decryption costs, and `cryptography` has no limit: what costs more than `MAX_ITERATIONS` and
  `MAX_SCRYPT_BYTES` is for neither.

Source: RFC 8018, appendix A; RFC 7914, section 7.
"""

import hashlib
from collections.abc import Iterator, Sequence
from math import prod

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from host_backend.der import NotDer, members

#: Rounds of PBKDF2: some seconds.
MAX_ITERATIONS = 10_000_000
#: Bytes of memory for scrypt: four times the most that libraries choose by themselves.
MAX_SCRYPT_BYTES = 256 * 1024 * 1024
_INTEGER, _SEQUENCE = 0x02, 0x30
# Object identifiers, in DER.
_PBES2 = bytes.fromhex("2a864886f70d01050d")
_PBKDF2 = bytes.fromhex("2a864886f70d01050c")
_SCRYPT = bytes.fromhex("2b06010401da47040b")
_AES_CBC = {
    bytes.fromhex(f"60864801650304{number}"): size for number, size in (("0102", 16), ("0116", 24), ("012a", 32))
}
_HASHES = {
    bytes.fromhex(f"2a864886f70d02{number}"): name
    for number, name in (("07", "sha1"), ("08", "sha224"), ("09", "sha256"), ("0a", "sha384"), ("0b", "sha512"))
}


def costs_too_much(der: bytes) -> bool:
    """Whether the decryption of a PKCS#8 structure would take too long, or too much memory, by any of its schemes."""
    try:
        ((_, whole),) = members(der)
        numbers = [*_numbers(members(whole)[:1])]
    except (NotDer, ValueError):
        # Nothing reads it.
        return False
    return max(numbers, default=0) > MAX_ITERATIONS or (_SCRYPT in whole and 128 * prod(numbers[:3]) > MAX_SCRYPT_BYTES)


def _numbers(values: Sequence[tuple[int, bytes]]) -> Iterator[int]:
    """Yield the integers in values and in the sequences in them, in order."""
    # Not by recursion: a file may nest deeper than that can go.
    left = [*reversed(values)]
    while left:
        tag, value = left.pop()
        if tag == _SEQUENCE:
            left += reversed(members(value))
        elif tag == _INTEGER:
            yield int.from_bytes(value, "big")


def open_pbes2(der: bytes, password: bytes) -> bytes | None:
    """Return the encrypted contents of a PKCS#8 structure; None where it is of another kind, or the password is wrong."""
    try:
        return _opened(der, password)
    except (NotDer, LookupError, ValueError):
        return None


def _opened(der: bytes, password: bytes) -> bytes:
    ((_, whole),) = members(der)
    (_, algorithm), (_, encrypted) = members(whole)
    (_, scheme), (_, parameters) = members(algorithm)
    if scheme != _PBES2:
        raise NotDer
    (_, derivation), (_, encryption) = members(parameters)
    (_, cipher), (_, start) = members(encryption)
    key = _derived(derivation, password, _AES_CBC[cipher])
    decryptor, unpadder = Cipher(AES(key), CBC(start)).decryptor(), PKCS7(AES.block_size).unpadder()
    padded = decryptor.update(encrypted) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()


def _derived(derivation: bytes, password: bytes, size: int) -> bytes:
    (_, function), (_, parameters) = members(derivation)
    (_, salt), *rest = members(parameters)
    prf = rest.pop()[1] if rest and rest[-1][0] == _SEQUENCE else None
    numbers = [int.from_bytes(value, "big") for _, value in rest]
    if function == _PBKDF2 and numbers[:1] and numbers[0] <= MAX_ITERATIONS:
        name = "sha1" if prf is None else _HASHES[members(prf)[0][1]]
        return hashlib.pbkdf2_hmac(name, password, salt, numbers[0], size)
    if function == _SCRYPT:
        return _scrypt(password, salt, numbers, size)
    raise NotDer


def _scrypt(password: bytes, salt: bytes, numbers: Sequence[int], size: int) -> bytes:
    cost, block, parallel = numbers[:3]
    if max(numbers) > MAX_SCRYPT_BYTES or 128 * cost * block * parallel > MAX_SCRYPT_BYTES:
        raise NotDer
    return hashlib.scrypt(password, salt=salt, n=cost, r=block, p=parallel, maxmem=MAX_SCRYPT_BYTES, dklen=size)
