"""The test of a curve before anything is signed with it: it gives its known answers, and accepts nothing else."""

from enclave_signer.curves.base import Curve, CurveError, InvalidSignature, KnownAnswer, VerifyingKey
from enclave_signer.protocol.messages import KeyType, PrivateKey, Signature, SigningVersion

#: An attestation of level 77, round 0.
MESSAGE = bytes.fromhex(
    "137a06a77011111111111111111111111111111111111111111111111111111111111111111500010000004d00000000"
    "2222222222222222222222222222222222222222222222222222222222222222"
)


def check_curve(key_type: KeyType, curve: Curve) -> None:
    """Return when a curve is the one that is meant, gives its known answers, and accepts them for no other message.

    Raises:
        CurveError: It does not, or nothing is known that it must answer: sign nothing with it, and do what the text says.
    """
    # It was loaded by its name, where no type checker sees what it lacks.
    answer: KnownAnswer | None = getattr(curve, "known_answer", None)
    if answer is None:
        raise CurveError(f"{key_type} has no known answer to test it by: sign nothing with it")
    try:
        fault = _fault(key_type, curve, answer)
    except CurveError as error:
        fault = str(error)
    if fault is not None:
        raise CurveError(
            f"{key_type} fails its self test ({fault}): "
            "sign nothing with it, and install the versions that requirements.txt names"
        )


def _fault(key_type: KeyType, curve: Curve, answer: KnownAnswer) -> str | None:
    key = curve.open(PrivateKey(key_type, answer.private_key))
    if key.public_key.data != answer.public_key:
        return "wrong public key"
    if not answer.signatures or (answer.proof is not None) != key_type.facts.proves_possession:
        return "it has no known signature, or no known proof"
    verifying = curve.parse_public_key(answer.public_key)
    for version, data in answer.signatures:
        signature = Signature(key_type, data)
        made = key.sign(MESSAGE, version)
        if key_type.facts.hedged:
            verifying.verify(made, MESSAGE, version)
        elif made != signature:
            return "wrong signature"
        verifying.verify(signature, MESSAGE, version)
        if _accepts(verifying, signature, MESSAGE + b"\0", version):
            return "it accepts the signature of another message"
    if answer.proof is not None:
        proof = Signature(key_type, answer.proof)
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
