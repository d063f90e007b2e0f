"""How curves are found, loaded, and tested before anything is signed with them."""

import json
import logging
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from enclave_signer import curves
from enclave_signer.curves import (
    Curve,
    CurveError,
    SigningKey,
    VerifyingKey,
    blst,
    build_blst,
    curve,
    install_slow_bls,
    self_test,
)
from enclave_signer.curves.base import KnownAnswer
from enclave_signer.curves.known_answers import check_curve
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, Signature, SigningVersion


def without_known_answer(good: Curve) -> Curve:
    named = ("key_type", "generate", "open", "parse_public_key")
    return cast("Curve", SimpleNamespace(**{name: getattr(good, name) for name in named}))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[KeyType, Curve]:
    """Return an empty registry, for this test only."""
    registry: dict[KeyType, Curve] = {}
    monkeypatch.setattr(curves, "_loaded", registry)
    return registry


def modules_after(program: str) -> set[str]:
    """Return the libraries of ours that a fresh interpreter has imported after a program."""
    libraries = {"nacl", "coincurve", "cryptography", "_cffi_backend", "ckzg", "py_ecc", "cffi"}
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return libraries & set(json.loads(done.stdout))


def test_no_library_is_loaded_before_its_curve_is_asked_for() -> None:
    assert modules_after("import enclave_signer.curves") == set()


def test_bls_needs_neither_a_c_parser_nor_ckzg_itself() -> None:
    program = "from enclave_signer.curves import curve; from enclave_signer.protocol.key_types import KeyType\ncurve(KeyType.BLS)"
    assert modules_after(program) == {"_cffi_backend"}


def test_a_curve_is_loaded_once(registry: dict[KeyType, Curve]) -> None:
    for key_type in KeyType:
        assert curve(key_type) is curve(key_type) is registry[key_type]


# libblst


def test_a_library_without_the_symbols_is_refused_with_the_remedy() -> None:
    other = find_spec("coincurve._libsecp256k1")
    assert other is not None
    assert other.origin is not None
    with pytest.raises(CurveError, match=r"does not export blst_\w+: install the ckzg wheel"):
        blst.load(other.origin)


def test_a_library_that_does_not_load_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "ckzg.so"
    path.write_bytes(b"no library")
    with pytest.raises(CurveError, match=r"cannot load libblst .*: install the ckzg wheel"):
        blst.load(str(path))


def test_a_missing_package_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blst, "find_spec", lambda name: None)
    with pytest.raises(CurveError, match=r"ckzg is not installed: install the ckzg wheel"):
        blst.load()


@pytest.mark.parametrize("grown", ["blst_p1", "blst_p1_affine", "blst_p2", "blst_p2_affine"])
def test_structures_of_another_size_are_refused(grown: str) -> None:
    sizes = {"blst_p1": 144, "blst_p1_affine": 96, "blst_p2": 288, "blst_p2_affine": 192}

    def library(sizes: dict[str, int]) -> blst.Library:
        functions = {f"{name}_sizeof": partial(int, size) for name, size in sizes.items()}
        return cast("blst.Library", SimpleNamespace(**functions))

    blst.check_sizes(library(sizes))
    with pytest.raises(CurveError, match=rf"bytes in {grown}, not {sizes[grown]}: install the ckzg wheel"):
        blst.check_sizes(library(sizes | {grown: sizes[grown] + 8}))


def test_the_committed_declarations_are_the_generated_ones(tmp_path: Path) -> None:
    fresh = tmp_path / "_blst.py"
    build_blst.build(fresh)
    assert build_blst.OUTPUT.read_text() == fresh.read_text(), (
        "run python -m enclave_signer.curves.build_blst and commit what it writes"
    )


# The self test


@dataclass
class CrookedCurve:
    """A curve that goes wrong in one way."""

    good: Curve
    public_key: bytes | None = None
    signature: bytes | None = None
    proof: bytes | None = None
    accepts_all: bool = False
    refuses_all: bool = False
    slow: bool = False
    known: KnownAnswer | None = None

    @property
    def key_type(self) -> KeyType:
        return self.good.key_type

    @property
    def known_answer(self) -> KnownAnswer:
        return self.known or self.good.known_answer

    def generate(self) -> PrivateKey:
        return self.good.generate()

    def open(self, private_key: PrivateKey) -> SigningKey:
        return CrookedKey(self.good.open(private_key), self)

    def parse_public_key(self, data: bytes) -> VerifyingKey:
        return CrookedVerifier(self.good.parse_public_key(data), self)


@dataclass
class CrookedKey:
    good: SigningKey
    curve: CrookedCurve

    @property
    def public_key(self) -> PublicKey:
        key = self.good.public_key
        return PublicKey(key.key_type, self.curve.public_key or key.data)

    def sign(self, message: bytes, version: SigningVersion) -> Signature:
        signature = self.good.sign(message, version)
        return Signature(signature.key_type, self.curve.signature or signature.data)

    def prove_possession(self, other: PublicKey | None = None) -> Signature:
        proof = self.good.prove_possession(other)
        return Signature(proof.key_type, self.curve.proof or proof.data)


@dataclass
class CrookedVerifier:
    good: VerifyingKey
    curve: CrookedCurve

    @property
    def public_key(self) -> PublicKey:
        return self.good.public_key

    def verify(self, signature: Signature, message: bytes, version: SigningVersion) -> None:
        if self.curve.refuses_all:
            raise curves.InvalidSignature("refused")
        if not self.curve.accepts_all:
            self.good.verify(signature, message, version)

    def verify_possession(self, proof: Signature, other: PublicKey | None = None) -> None:
        self.good.verify_possession(proof, other)


def test_the_self_test_passes() -> None:
    self_test()


@pytest.mark.parametrize(
    ("crooked", "what"),
    [
        (CrookedCurve(curve(KeyType.P256), public_key=b"\x02" * 33), "wrong public key"),
        (CrookedCurve(curve(KeyType.P256), signature=b"\x02" * 64), "wrong signature"),
        (CrookedCurve(curve(KeyType.P256), refuses_all=True), "refused"),
        (CrookedCurve(curve(KeyType.P256), accepts_all=True), "it accepts the signature of another message"),
        (CrookedCurve(curve(KeyType.BLS), proof=b"\x02" * 96), "wrong proof of possession"),
    ],
)
def test_a_curve_that_goes_wrong_fails_the_self_test(
    crooked: CrookedCurve, what: str, registry: dict[KeyType, Curve]
) -> None:
    text = rf"^{crooked.key_type} fails its self test \({what}\): sign nothing with it"
    with pytest.raises(CurveError, match=text):
        check_curve(crooked.key_type, crooked)
    registry[crooked.key_type] = crooked
    with pytest.raises(CurveError, match=text):
        self_test()


@pytest.mark.parametrize("key_type", KeyType)
def test_a_curve_without_a_known_answer_fails_the_self_test(key_type: KeyType, registry: dict[KeyType, Curve]) -> None:
    good = curve(key_type)
    registry[key_type] = without_known_answer(good)
    with pytest.raises(CurveError, match=f"^{key_type} has no known answer to test it by: sign nothing with it"):
        self_test()


def test_a_curve_under_the_name_of_another_fails_the_self_test(registry: dict[KeyType, Curve]) -> None:
    registry[KeyType.P256] = curve(KeyType.SECP256K1)
    with pytest.raises(CurveError, match=r"^NistP256 fails its self test \(a private key of NistP256 was given where "):
        self_test()


def test_a_curve_that_opens_no_key_fails_the_self_test() -> None:
    good = curve(KeyType.P256)
    answer = KnownAnswer(bytes(32), good.known_answer.public_key, ())
    with pytest.raises(CurveError, match=r"fails its self test \(not a private key of NistP256"):
        check_curve(KeyType.P256, CrookedCurve(good, known=answer))


@pytest.mark.parametrize("left_out", [{"signatures": ()}, {"proof": None}])
def test_a_curve_with_half_a_known_answer_fails_the_self_test(left_out: dict[str, Any]) -> None:
    good = curve(KeyType.BLS)
    half = CrookedCurve(good, known=replace(good.known_answer, **left_out))
    with pytest.raises(CurveError, match=r"fails its self test \(it has no known signature, or no known proof\)"):
        check_curve(KeyType.BLS, half)


# The slow implementation


def test_slow_bls_is_installed_loudly(registry: dict[KeyType, Curve], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        install_slow_bls()
    assert "not constant time" in caplog.text
    assert type(curve(KeyType.BLS)).__module__ == "enclave_signer.curves.bls_py_ecc"


def test_slow_bls_without_its_library_changes_nothing(
    registry: dict[KeyType, Curve], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "enclave_signer.curves.bls_py_ecc", raising=False)
    monkeypatch.setitem(sys.modules, "py_ecc.bls.ciphersuites", None)
    with pytest.raises(CurveError, match="install the extra slow-bls"):
        install_slow_bls()
    assert registry == {}
