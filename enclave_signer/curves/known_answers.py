"""What each curve must answer before anything is signed with it.

All keys are public test keys. Source: tee-signer 4f91388, recorded.
"""

from dataclasses import dataclass

from enclave_signer.curves.base import Curve, CurveError, InvalidSignature, VerifyingKey
from enclave_signer.protocol.messages import KeyType, PrivateKey, Signature, SigningVersion

#: An attestation of level 77, round 0.
MESSAGE = bytes.fromhex(
    "137a06a77011111111111111111111111111111111111111111111111111111111111111111500010000004d00000000"
    "2222222222222222222222222222222222222222222222222222222222222222"
)


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A test key and what it gives: its public key, its signatures over `MESSAGE`, its proof if it has one."""

    key_type: KeyType
    private_key: bytes
    public_key: bytes
    signatures: tuple[tuple[SigningVersion, bytes], ...]
    proof: bytes | None = None


KNOWN_ANSWERS = (
    KnownAnswer(
        key_type=KeyType.ED25519,
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
    ),
    KnownAnswer(
        key_type=KeyType.SECP256K1,
        private_key=bytes.fromhex("0d978d7713a2ec96c4a5ab7b57d2d055ac33a85cf9ed05fe14bf8cc81b6be1a1"),
        public_key=bytes.fromhex("03dc80d058f0c4cd090a93363b39f65d659d8fa0c9636dbdec87554334f91f3d57"),
        signatures=(
            (
                SigningVersion.LATEST,
                bytes.fromhex(
                    "b209ddbfb5b666880fc4b776e99d75b03f0518634acec321a684920b0fee75c348cd9636dba0f126caa5ed8669ab5daa"
                    "e0f873fade4be71b447f2968ee756e8c"
                ),
            ),
        ),
    ),
    KnownAnswer(
        key_type=KeyType.P256,
        private_key=bytes.fromhex("4365810d543d305a3cd0e07aabc5c2a0cfab4b67642c7e99a99baaf1f6e459d9"),
        public_key=bytes.fromhex("02a547d28523f2e208c916f7745d16475489d1c164edff4f07f12bd7738a7a2ced"),
        signatures=(
            (
                SigningVersion.LATEST,
                bytes.fromhex(
                    "6417046233d0386ff0bd98576a71848c2e3431dde4bf68237082569d42435ca97a72b6d2b8e92f16cc34c7072a236c32"
                    "d62e5af97b1c5dad819d4d8a33e7e9cd"
                ),
            ),
        ),
    ),
    KnownAnswer(
        key_type=KeyType.BLS,
        private_key=bytes.fromhex("552d23f1c7a26e14301fd17681831f11a37fce2a9958fdce3d48c2133b914303"),
        public_key=bytes.fromhex(
            "876933e4c492ba83dc34597612155d4531c678d0cb8c787d33c510ccb4dfb2d9cf8399d84d8e04e2db213128a22efdd9"
        ),
        signatures=(
            (
                SigningVersion.V1,
                bytes.fromhex(
                    "ab3e617ca2a1941d128f505e492f553f20bae0f6eb04e355800b733fc13eeb2958078603a9d9392a411fd45ee81501d2"
                    "147500bdafc0f14bdab35e836666fac014338061cdd97862d3f96cab0987e22f58c891a6d3805da2d9617ba223e9ca15"
                ),
            ),
            (
                SigningVersion.V2,
                bytes.fromhex(
                    "848563b5d4b7fabd529a0f1145d2d3e30181a09878efb9fe36a68e729a455eed72b276aac2fdd69add4772e1d2018ff6"
                    "0a01e337497c929bbaf12296307a31dc44bf577088b7cf8f95ef2c452a0b6ca02bee2e7e1bdb1ed1672022161b05d51b"
                ),
            ),
        ),
        proof=bytes.fromhex(
            "a5a03dfd5896dfdd8ae16da3c37715db252b6e4f3c720c5ea1ae9410d22d80cbd37d2ebd9c1290c8effbdc95456c76cc"
            "00d5168a036b904282601e239e8f02d51588b33f43c0965b640ad631d5769363142f957bc93f65a98f5d18172ddf2a63"
        ),
    ),
)


def known_answer(key_type: KeyType) -> KnownAnswer:
    """Return what a curve must answer.

    Raises:
        CurveError: Nothing is known that it must answer: sign nothing with it.
    """
    for answer in KNOWN_ANSWERS:
        if answer.key_type is key_type:
            return answer
    raise CurveError(f"{key_type} has no known answer to test it by: sign nothing with it")


def check_curve(curve: Curve, answer: KnownAnswer) -> None:
    """Return when a curve gives the known answers, accepts them, and refuses them for another message.

    Raises:
        CurveError: It does not: sign nothing with it, and install the locked versions of the libraries.
    """
    try:
        fault = _fault(curve, answer)
    except CurveError as error:
        fault = str(error)
    if fault is not None:
        raise CurveError(
            f"{answer.key_type} fails its self test ({fault}): "
            "sign nothing with it, and install the versions that requirements.txt names"
        )


def _fault(curve: Curve, answer: KnownAnswer) -> str | None:
    key = curve.open(PrivateKey(answer.key_type, answer.private_key))
    if key.public_key.data != answer.public_key:
        return "wrong public key"
    verifying = curve.parse_public_key(answer.public_key)
    for version, data in answer.signatures:
        signature = Signature(answer.key_type, data)
        if key.sign(MESSAGE, version) != signature:
            return "wrong signature"
        verifying.verify(signature, MESSAGE, version)
        if _accepts(verifying, signature, MESSAGE + b"\0", version):
            return "it accepts the signature of another message"
    if answer.proof is not None:
        proof = Signature(answer.key_type, answer.proof)
        if key.prove_possession() != proof:
            return "wrong proof of possession"
        verifying.verify_possession(proof)
    return None


def _accepts(key: VerifyingKey, signature: Signature, message: bytes, version: SigningVersion) -> bool:
    try:
        key.verify(signature, message, version)
    except InvalidSignature:
        return False
    return True
