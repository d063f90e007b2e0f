"""Google's issuer of Confidential Space tokens: both types, keys that rotate, and the chain of certificates."""

import base64
import copy
import datetime
import json
import time
from functools import lru_cache
from hashlib import sha256
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier
from jwt.algorithms import RSAAlgorithm

from tests.doubles.google.http_service import Answered, Asked

AUDIENCE = "https://signer.example/attest"
NONCE = "9f2c4e6a8b0d1f3355779911bbddff00112233445566778899aabbccddeeff01"
DIGEST = "sha256:" + "4b" * 32
SIGNING_KEY = "e3" * 32
PROJECT, ACCOUNT = "tz-signer-prod", "signer-run@tz-signer-prod.iam.gserviceaccount.com"
JWKS_PATH = "/service_accounts/v1/metadata/jwk/signer@confidentialspace-sign.iam.gserviceaccount.com"
#: The use that Google's intermediate has: TCG's attestation of platforms.
_ATTESTATION_USE = ObjectIdentifier("2.23.133.8.1")
_DAY = datetime.timedelta(days=1)


@lru_cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the key of a name, made once."""
    del name
    return rsa.generate_private_key(65537, bits)


def claims(now: float | None = None, /, **changed: object) -> dict[str, Any]:
    """Return the claims of a production token; a dotted path is written with two underscores.

    Source: the fields of tokens that project-oak/oak publishes; names and digests are invented.
    """
    issued = int(time.time() if now is None else now)
    values: dict[str, Any] = {
        "aud": AUDIENCE,
        "exp": issued + 3600,
        "iat": issued,
        "iss": "https://confidentialcomputing.googleapis.com",
        "nbf": issued,
        "sub": f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/zones/europe-west4-a/instances/signer-1",
        "eat_nonce": [NONCE, "c7a1b5e90d3f42688ac4e2f17b9d0563ffeeddccbbaa99887766554433221100"],
        "eat_profile": "https://cloud.google.com/confidential-computing/confidential-space/docs/reference/token-claims",
        "secboot": True,
        "oemid": 11129,
        "hwmodel": "GCP_AMD_SEV",
        "swname": "CONFIDENTIAL_SPACE",
        "swversion": ["260800"],
        "dbgstat": "disabled-since-boot",
        "submods": {
            "confidential_space": {
                "support_attributes": ["LATEST", "STABLE", "USABLE"],
                "monitoring_enabled": {"memory": False},
            },
            "container": {
                "image_reference": f"europe-west4-docker.pkg.dev/{PROJECT}/signer/enclave-signer@{DIGEST}",
                "image_digest": DIGEST,
                "restart_policy": "Always",
                "image_id": "sha256:" + "a0" * 32,
                "image_signatures": [
                    {"key_id": SIGNING_KEY, "signature": "MEUC", "signature_algorithm": "ECDSA_P256_SHA256"}
                ],
                "env": {"HOSTNAME": "signer-1", "PATH": "/usr/local/bin:/usr/bin:/bin"},
                "args": ["enclave-signer", "--image", "/etc/enclave-signer/image.toml"],
            },
            "gce": {
                "zone": "europe-west4-a",
                "project_id": PROJECT,
                "project_number": "691249393555",
                "instance_name": "signer-1",
                "instance_id": "6256007950053693934",
            },
        },
        "google_service_accounts": [ACCOUNT],
    }
    return altered(values, {name.replace("__", "."): value for name, value in changed.items()})


#: In place of a value: the claim is not there.
ABSENT = object()


def altered(values: dict[str, Any], changes: dict[str, object]) -> dict[str, Any]:
    """Return claims with other values at dotted paths."""
    changed = copy.deepcopy(values)
    for path, value in changes.items():
        *folders, name = path.split(".")
        place = changed
        for folder in folders:
            place = place.setdefault(folder, {})
        if value is ABSENT:
            place.pop(name, None)
        else:
            place[name] = copy.deepcopy(value)
    return changed


def signed(values: object, key: rsa.RSAPrivateKey, header: dict[str, object]) -> str:
    """Return a token, whatever is in it: the library does not sign claims of a wrong type."""
    return jwt.PyJWS().encode(json.dumps(values).encode(), key, "RS256", headers=header)


class Issuer:
    """Signs tokens, and serves the keys that they can be checked with.

    Attributes:
        fault: Takes the place of an answer for keys.
        asked: How often keys were asked for.
    """

    def __init__(self) -> None:
        self.kids = ["kid-1", "kid-2"]
        self.fault: Answered | None = None
        self.asked = 0

    def token(self, values: dict[str, Any], **header: object) -> str:
        """Return a token of type OIDC, signed by the newest key."""
        named = {"kid": self.kids[-1], **header}
        return signed(values, rsa_key(self.kids[-1]), named)

    def rotate(self) -> None:
        """Have a new key sign from now on, and forget the oldest."""
        self.kids = [*self.kids[1:], f"kid-{int(self.kids[-1].rpartition('-')[2]) + 1}"]

    def jwks(self) -> dict[str, Any]:
        """Return the keys as Google publishes them."""
        return {"keys": [self._jwk(kid) for kid in self.kids]}

    @staticmethod
    def _jwk(kid: str) -> dict[str, Any]:
        public = json.loads(RSAAlgorithm.to_jwk(rsa_key(kid).public_key()))
        return {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": public["n"], "e": public["e"]}

    def answer(self, asked: Asked) -> Answered:
        """Serve the keys at Google's path."""
        self.asked += 1
        if self.fault is not None:
            return self.fault
        return Answered(200, json.dumps(self.jwks()).encode()) if asked.path == JWKS_PATH else Answered(404)


class Chain:
    """The three certificates of tokens of type PKI, in Google's shapes; each argument alters one thing.

    Args:
        name: Of its keys: another name is another root.
        intermediate_is_authority: What the intermediate says of itself.
        leaf_days: From when to when the leaf counts, as days from now.
        intermediate_signer: Whose key signs the intermediate; None: the root's.
    """

    def __init__(
        self,
        name: str = "google",
        *,
        intermediate_is_authority: bool = True,
        leaf_days: tuple[int, int] = (-1, 59),
        intermediate_signer: str | None = None,
        leaf_bits: int = 2048,
    ) -> None:
        now = datetime.datetime.now(datetime.UTC)
        root_key, middle_key = rsa_key(f"{name} root"), rsa_key(f"{name} intermediate")
        self.leaf_key = rsa_key(f"{name} leaf {leaf_bits}", leaf_bits)
        root, middle, leaf = (_name(f"Confidential Space {each}") for each in ("Root CA", "Intermediate CA", "Leaf"))
        long = (now - 700 * _DAY, now + 400 * _DAY)
        authority = x509.BasicConstraints(ca=True, path_length=None)
        self.root = _signed(root, root, root_key, root_key, long, (authority, True))
        signer = rsa_key(intermediate_signer) if intermediate_signer else root_key
        self.intermediate = _signed(
            *(middle, root, middle_key, signer, long),
            (x509.BasicConstraints(ca=intermediate_is_authority, path_length=None), True),
            (x509.ExtendedKeyUsage([_ATTESTATION_USE]), False),
        )
        life = (now + leaf_days[0] * _DAY, now + leaf_days[1] * _DAY)
        # No names, no use of the key, nothing: as Google's.
        self.leaf = _signed(leaf, middle, self.leaf_key, middle_key, life)

    @property
    def root_pem(self) -> bytes:
        return self.root.public_bytes(Encoding.PEM)

    @property
    def x5c(self) -> list[str]:
        chain = (self.leaf, self.intermediate, self.root)
        return [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in chain]

    def token(self, values: dict[str, Any], **header: object) -> str:
        """Return a token of type PKI."""
        public = json.loads(RSAAlgorithm.to_jwk(self.leaf_key.public_key()))
        thumb = sha256(json.dumps({"e": public["e"], "kty": "RSA", "n": public["n"]}, separators=(",", ":")).encode())
        kid = base64.urlsafe_b64encode(thumb.digest()).rstrip(b"=").decode()
        return signed(values, self.leaf_key, {"kid": kid, "x5c": self.x5c, **header})


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPrivateKey,
    signer: rsa.RSAPrivateKey,
    life: tuple[datetime.datetime, datetime.datetime],
    *extensions: tuple[x509.ExtensionType, bool],
) -> x509.Certificate:
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), *life)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, hashes.SHA256())
