"""The pure parts of the key broker's sealer: vectors, what answers mean, what an image may say."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from trio.testing import MockClock

from enclave_signer.curves import curve
from enclave_signer.errors import ConfigError, SealingError, SealingRefused, SealingUnavailable
from enclave_signer.image import parse_image
from enclave_signer.protocol.blob import BlobHeader
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey
from enclave_signer.sealing import aes_gcm, kbs_messages
from enclave_signer.sealing.kbs import REFUSED_S, Kbs
from enclave_signer.sealing.kbs_client import Fetched
from enclave_signer.sealing.kbs_config import KbsConfig, KbsKey
from enclave_signer.sealing.kbs_jwe import BadJwe, TeeKey, base64url
from enclave_signer.sealing.kbs_kek import commitment, sealing_key
from enclave_signer.sealing.kbs_messages import HandshakeLost, Step
from tests.doubles.kbs import encrypted, refusal
from tests.doubles.kbs_image import KEK, OLD_KEK, OLD_RESOURCE, RESOURCE, kbs_image, name_of
from tests.doubles.known_keys import VECTORS

VECTOR: dict[str, Any] = json.loads((VECTORS / "kbs.json").read_text())
URL = "https://kbs.example:8080"
PRIVATE = PrivateKey(KeyType.ED25519, bytes(range(32)))
PUBLIC = curve(KeyType.ED25519).open(PRIVATE).public_key
CA = Path("/etc/kbs.pem")
KEY = KbsKey(RESOURCE, commitment(KEK))


def tee_key() -> TeeKey:
    d = int.from_bytes(base64.urlsafe_b64decode(VECTOR["tee_key"]["d"] + "="), "big")
    return TeeKey(ec.derive_private_key(d, ec.SECP256R1()))


class TestVectors:
    """What others computed."""

    @pytest.mark.parametrize("item", VECTOR["report_data"], ids=lambda item: item["source"])
    def test_digests(self, item: Mapping[str, Any]) -> None:
        assert kbs_messages.digest(item["value"]).hex() == item["sha384_hex"]

    def test_report_data_and_sample_evidence(self) -> None:
        jwk = tee_key().jwk
        assert (jwk["x"], jwk["y"]) == (VECTOR["tee_key"]["x"], VECTOR["tee_key"]["y"])
        report = kbs_messages.report_data(VECTOR["report_data"][1]["value"]["nonce"], jwk)
        assert report.hex() == VECTOR["report_data"][1]["sha384_hex"]
        assert kbs_messages.sample_evidence(report) == VECTOR["sample_evidence"]

    def test_jwe(self) -> None:
        assert tee_key().decrypt(VECTOR["jwe"]) == VECTOR["jwe"]["plaintext"].encode()


class TestJwe:
    """Everything else does not open, and says nothing of what it is."""

    @pytest.mark.parametrize("part", ["protected", "encrypted_key", "iv", "ciphertext", "tag"])
    def test_no_part_may_differ(self, part: str) -> None:
        for value in (None, 7, "", "====", "e30=", VECTOR["jwe"][part][:-2], "A" + VECTOR["jwe"][part][1:]):
            if value == VECTOR["jwe"][part]:
                continue
            with pytest.raises(BadJwe):
                tee_key().decrypt({**VECTOR["jwe"], part: value})

    def test_another_key_does_not_open_it(self) -> None:
        with pytest.raises(BadJwe, match="encrypted to another key"):
            TeeKey().decrypt(VECTOR["jwe"])

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"alg": "RSA1_5"}, "not encrypted by ECDH-ES"),
            ({"alg": "dir"}, "not encrypted by ECDH-ES"),
            ({"enc": "A128GCM"}, "not encrypted by ECDH-ES"),
            ({"epk": None}, "not of P-256"),
            ({"epk": {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}}, "not of P-256"),
            ({"epk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}, "wrong length"),
            (
                {"epk": {"kty": "EC", "crv": "P-256", "x": base64url(b"\1" * 32), "y": base64url(bytes(32))}},
                "the curve",
            ),
        ],
    )
    def test_no_other_algorithm_curve_or_point(self, change: Mapping[str, object], text: str) -> None:
        padded = VECTOR["jwe"]["protected"] + "=" * (-len(VECTOR["jwe"]["protected"]) % 4)
        header = {**json.loads(base64.urlsafe_b64decode(padded)), **change}
        with pytest.raises(BadJwe, match=text):
            tee_key().decrypt({**VECTOR["jwe"], "protected": base64url(json.dumps(header).encode())})

    def test_the_double_s_opens(self) -> None:
        key = TeeKey()
        assert key.decrypt(encrypted(KEK, key.jwk)) == KEK


class TestKek:
    """A released key must be the one that the image commits to."""

    def test_commitment_and_sealing_key(self) -> None:
        """Computed with hashlib and hmac alone; a change would leave every blob closed."""
        assert KEY.commitment == "4fa2601aac7d59ebcf836b2de51ce988cbe2d8b9597c7f7d8154295386266bc5"
        assert KEY.name == name_of() == f"kbs:signer/kek/2026#{KEY.commitment[:16]}"
        assert sealing_key(KEY, KEK).hex() == "24efba924123de58335628785741f8fa0c789318eeb839cb746418bba05b9eb2"

    def test_another_one_is_refused(self) -> None:
        with pytest.raises(SealingRefused, match="is not the key that this image commits to"):
            sealing_key(KEY, OLD_KEK)

    @pytest.mark.parametrize("kek", [b"", KEK[:-1], base64.b64encode(KEK), KEK.hex().encode()])
    def test_its_text_is_no_key(self, kek: bytes) -> None:
        with pytest.raises(SealingRefused, match=rf"has {len(kek)} bytes, a key has 32: upload the bytes themselves"):
            sealing_key(KEY, kek)


@pytest.mark.parametrize(
    ("step", "name", "detail", "kind", "text"),
    [
        (Step.AUTH, "AttestationError", "expect =0.1.1 while", SealingRefused, "begins no handshake"),
        (
            Step.ATTEST,
            "AttestationError",
            "RCAR handshake Attest failed",
            HandshakeLost,
            "does not accept this machine",
        ),
        (Step.RESOURCE, "TokenNotFound", "", HandshakeLost, "has expired"),
        (Step.RESOURCE, "TokenVerifierError", "", HandshakeLost, "signer is not trusted"),
        (Step.RESOURCE, "PolicyDeny", "", SealingRefused, f"resource policy keeps {RESOURCE}"),
        (Step.RESOURCE, "PluginInternalError", "", SealingRefused, f"gives no resource {RESOURCE}"),
        (Step.RESOURCE, "PluginNotFound", "", SealingRefused, "no such path"),
        (Step.RESOURCE, "JweError", "", SealingRefused, "P-256"),
        (Step.RESOURCE, "RvpsError", "", SealingRefused, "fails at resource"),
    ],
)
def test_what_an_error_means(step: Step, name: str, detail: str, kind: type[SealingError], text: str) -> None:
    answer = refusal(name, detail)
    error = kbs_messages.failure(step, answer.status, answer.body, RESOURCE)
    assert type(error) is kind
    assert text in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, SealingUnavailable),
        (502, SealingUnavailable),
        (429, SealingUnavailable),
        (401, SealingRefused),
        (404, SealingRefused),
        (302, SealingRefused),
    ],
)
def test_what_does_not_speak_the_protocol(status: int, kind: type[SealingError]) -> None:
    for body in (b"", b"<html>", b"[]", b"null", b'{"type": 1}', b'{"type": "about:blank"}'):
        assert type(kbs_messages.failure(Step.AUTH, status, body)) is kind


def test_tokens_in_a_refusal_are_not_repeated() -> None:
    answer = refusal("TokenVerifierError", "bad token eyJhbGciOiJF.eyJ4.c2ln\nin line 2")
    text = str(kbs_messages.failure(Step.RESOURCE, 401, answer.body))
    assert "eyJ" not in text
    assert "\n" not in text


def test_a_key_that_was_refused_is_asked_for_again_however_often_others_are_released() -> None:
    first, gated = KEY, KbsKey(OLD_RESOURCE, commitment(OLD_KEK))
    began, asked = 0.0, list[float]()
    released: dict[KbsKey, bytes | SealingRefused] = {gated: bytes(32), first: SealingRefused("not uploaded yet")}

    async def fetch(keys: Sequence[KbsKey]) -> Fetched:
        await trio.lowlevel.checkpoint()
        if first in keys:
            asked.append(trio.current_time() - began)
        return {key: released[key] for key in keys}

    async def main() -> None:
        nonlocal began
        began = trio.current_time()
        kbs = Kbs(KbsConfig(url=URL, ca_file=None, tee="snp", keys=(first, gated)), fetch)
        for _ in range(100):
            await kbs.release(gated.name, Credentials())
            with pytest.raises(SealingRefused, match="not uploaded yet"):
                await kbs.cipher(first)
            await trio.sleep(1)
        released[first] = bytes(32)
        await trio.sleep(REFUSED_S)
        await kbs.release(gated.name, Credentials())
        await kbs.cipher(first)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert asked == [0, REFUSED_S, 2 * REFUSED_S, 3 * REFUSED_S, 100 + REFUSED_S]


@pytest.mark.parametrize("whole", [True, False])
def test_a_key_that_is_denied_is_kept_from_no_older_answer(*, whole: bool) -> None:
    denied = SealingRefused("policy")
    asked: list[int] = []

    async def fetch(keys: Sequence[KbsKey]) -> Fetched:
        asked.append(len(keys))
        if len(asked) == 1:
            await trio.sleep(2)
            return dict.fromkeys(keys, bytes(32))
        await trio.lowlevel.checkpoint()
        if whole:
            raise denied
        return dict.fromkeys(keys, denied)

    async def main() -> None:
        kbs = Kbs(KbsConfig(url=URL, ca_file=None, tee="snp", keys=(KEY,)), fetch)
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                with pytest.raises(SealingRefused, match="policy"):
                    await kbs.cipher(KEY)

            nursery.start_soon(first)
            await trio.sleep(1)
            with pytest.raises(SealingRefused, match="policy"):
                await kbs.release(KEY.name, Credentials())

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert asked == [1, 1]


def test_an_old_key_opens_where_the_first_one_is_refused() -> None:
    old = KbsKey(OLD_RESOURCE, commitment(OLD_KEK))
    blob = aes_gcm.seal(AESGCM(bytes(32)), BlobHeader("kbs", old.name, PUBLIC).encode(), PRIVATE)
    asked: list[int] = []

    async def fetch(keys: Sequence[KbsKey]) -> Fetched:
        await trio.lowlevel.checkpoint()
        asked.append(len(keys))
        return {key: bytes(32) if key == old else SealingRefused("not uploaded yet") for key in keys}

    async def main() -> None:
        kbs = Kbs(KbsConfig(url=URL, ca_file=None, tee="snp", keys=(KEY, old)), fetch)
        sealer = await kbs.open_sealer(Credentials())
        assert (await sealer.unseal(blob)).named == PUBLIC
        with pytest.raises(SealingRefused, match="not uploaded yet"):
            await sealer.seal(PRIVATE, PUBLIC)

    trio.run(main)
    assert asked == [2]


class TestImage:
    """What an image may say."""

    def test_all_of_it(self) -> None:
        keys = {RESOURCE: KEK, OLD_RESOURCE: OLD_KEK}
        image = parse_image(kbs_image(URL, CA, keys, tee="snp", development=False), "image.toml")
        assert image.kbs is not None
        assert (image.kbs.url, image.kbs.ca_file, image.kbs.tee) == (URL, CA, "snp")
        assert [key.name for key in image.kbs.keys] == [name_of(), name_of(OLD_RESOURCE, OLD_KEK)]
        assert image.kbs.seal_keys == (name_of(),)

    @pytest.mark.parametrize(
        ("old", "new", "text"),
        [
            ('tee = "snp"', 'tee = "sample"', "kbs.tee: sample proves nothing"),
            ('tee = "snp"', 'tee = "sev"', "kbs.tee: 'sev' is not known"),
            (URL, "http://kbs.example", "kbs.url: must begin with https://"),
            (
                f'ca_file = "{CA}"',
                "insecure_http = true",
                "kbs.insecure_http: is only allowed where development is true",
            ),
            (f'ca_file = "{CA}"', "", "kbs.ca_file: is missing"),
            (URL, "https://kbs.example/kbs/v0", "kbs.url: 'https://kbs.example/kbs/v0' must have the form"),
            (URL, "https://user@kbs.example", "must have the form"),
            (URL, "https://kbs.example?x=1", "must have the form"),
            (URL, "https://", "must have the form"),
            (URL, "https://kbs.example:99999", "must have the form"),
            (URL, "ftp://kbs.example", "must have the form"),
            (RESOURCE, "signer/kek", "kbs.keys[0].resource: 'signer/kek' must have the form REPOSITORY/TYPE/TAG"),
            (RESOURCE, "signer/kek/../x", "must have the form REPOSITORY"),
            (RESOURCE, "signer/kek/..", "must have the form REPOSITORY"),
            (commitment(KEK), "abc", "kbs.keys[0].commitment: 'abc' must have 64 digits"),
            ("[[kbs.keys]]", "[[kbs.other]]", "kbs.keys: must have 1 to 8 tables"),
        ],
    )
    def test_what_is_refused(self, old: str, new: str, text: str) -> None:
        good = kbs_image(URL, CA, tee="snp", development=False)
        assert old in good
        with pytest.raises(ConfigError) as raised:
            parse_image(good.replace(old, new), "image.toml")
        assert text in str(raised.value)

    def test_without_tls_there_is_no_authority(self) -> None:
        text = kbs_image("http://127.0.0.1:8080", None)
        assert parse_image(text, "image.toml").kbs is not None
        with pytest.raises(ConfigError, match="means nothing for a url without TLS"):
            parse_image(text.replace("[kbs]", f'[kbs]\nca_file = "{CA}"'), "image.toml")

    def test_what_anyone_can_open_is_not_attested(self) -> None:
        proof = '[attestation]\nprovider = "confidential_space"\naudience = "https://signer.example/attest"\n'
        assert parse_image(kbs_image(URL, CA, tee="snp") + proof, "image.toml").attestation is not None
        with pytest.raises(ConfigError, match=r"attestation: kbs\.tee is sample"):
            parse_image(kbs_image(URL, CA) + proof, "image.toml")

    def test_where_keys_may_be_moved(self) -> None:
        keys = {RESOURCE: KEK, OLD_RESOURCE: OLD_KEK}
        old, new = name_of(OLD_RESOURCE, OLD_KEK), name_of()
        for source, target, text in (
            (old, new, None),
            ("kbs:signer/kek/", new, None),
            ("kbs:signer/", new, None),
            ("kbs:", new, "from: 'kbs:' must be"),
            ("kbs:signer/kek/2025", new, "must be legacy, a key, or a prefix"),
            (new, old, f"to: '{old}' is not in kbs.seal_keys"),
        ):
            rule = f'[[reseal]]\nfrom = "{source}"\nto = "{target}"\n'
            if text is None:
                assert parse_image(kbs_image(URL, CA, keys) + rule, "image.toml").reseal[0].sealer == "kbs"
            else:
                with pytest.raises(ConfigError, match=text):
                    parse_image(kbs_image(URL, CA, keys) + rule, "image.toml")
