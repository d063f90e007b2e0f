"""Every claim altered, one at a time: refused with a reason that names it, or accepted where that is right."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from host_backend.attestation.policy import Policy
from host_backend.attestation.verifier import (
    AttestationRefused,
    PinnedRoot,
    State,
    TrustedKeys,
    UnboundClaims,
    VerifiedClaims,
    examine,
    verify,
    verify_unbound,
)
from host_backend.errors import ConfigError
from tests.doubles.google.tokens import (
    ABSENT,
    ACCOUNT,
    AUDIENCE,
    DIGEST,
    NONCE,
    PROJECT,
    SIGNING_KEY,
    Chain,
    Issuer,
    claims,
    rsa_key,
)

NOW = time.time()
POLICY = Policy(
    audience=AUDIENCE,
    image_digests=frozenset({DIGEST}),
    signing_keys=frozenset({SIGNING_KEY}),
    projects=frozenset({PROJECT}),
    service_accounts=frozenset({ACCOUNT}),
    zones=frozenset({"europe-west4-a"}),
    minimum_swversion=260100,
    minimum_tdx_date=date(2024, 3, 13),
)
ISSUER = Issuer()
KEYS = TrustedKeys.from_jwks(ISSUER.jwks())
OTHER = "0a" * 32
CONTAINER, GCE, SUPPORT = "submods__container__", "submods__gce__", "submods__confidential_space__support_attributes"
TDX = {
    "hwmodel": "GCP_INTEL_TDX",
    "attester_tcb": ["INTEL"],
    "tdx": {"gcp_attester_tcb_status": "UpToDate", "gcp_attester_tcb_date": "2024-03-13T00:00:00Z"},
}


def named(value: object) -> str:
    """Return what a test is called by: the same in every process, which tokens and times are not."""
    text = value if isinstance(value, str) else ""
    return text if 0 < len(text) < 60 and "eyJ" not in text else type(value).__name__


def checked(token: str, policy: Policy = POLICY, nonce: str = NONCE) -> VerifiedClaims:
    return verify(token, trust=KEYS, policy=policy, nonce=nonce, now=NOW)


def test_what_is_right_is_told() -> None:
    proven = checked(ISSUER.token(claims(NOW)))
    assert proven.expires_at == int(NOW) + 3600
    assert (proven.image_digest, proven.project_id, proven.zone) == (DIGEST, PROJECT, "europe-west4-a")
    assert (proven.hwmodel, proven.swversion, proven.instance_name) == ("GCP_AMD_SEV", "260800", "signer-1")
    assert {check.state for check in proven.checks} == {State.MATCHED}


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iss", "https://portal.trustauthority.intel.com"),
        ("iss", "fake-issuer-for-testing"),
        ("iss", "https://confidentialcomputing.googleapis.com/"),
        ("iss", ABSENT),
        ("iss", ["https://confidentialcomputing.googleapis.com"]),
        ("aud", "https://sts.googleapis.com"),
        ("aud", f"{AUDIENCE}/"),
        ("aud", [AUDIENCE, "https://sts.googleapis.com"]),
        ("aud", [AUDIENCE, 5]),
        ("aud", []),
        ("aud", ABSENT),
        ("exp", int(NOW) - 61),
        ("exp", ABSENT),
        ("exp", "1999999999"),
        ("exp", True),
        ("exp", float(NOW) + 3600),
        ("exp", 2**60),
        ("exp - iat", 86_401),
        ("exp - iat", -10),
        ("iat", int(NOW) + 120),
        ("iat", ABSENT),
        ("iat", None),
        ("nbf", int(NOW) + 120),
        ("nbf", ABSENT),
        ("eat_nonce", ABSENT),
        ("eat_nonce", None),
        ("eat_nonce", ""),
        ("eat_nonce", []),
        ("eat_nonce", OTHER),
        ("eat_nonce", [OTHER, "1" * 64]),
        ("eat_nonce", f"{NONCE}{OTHER}"),
        ("eat_nonce", [[NONCE]]),
        ("eat_nonce", {"0": NONCE}),
        ("secboot", False),
        ("secboot", ABSENT),
        ("secboot", 1),
        ("secboot", "true"),
        ("oemid", 11130),
        ("oemid", "11129"),
        ("oemid", ABSENT),
        ("swname", "GCE"),
        ("swname", ["CONFIDENTIAL_SPACE"]),
        ("swname", ABSENT),
        ("dbgstat", "enabled"),
        ("dbgstat", "enable"),
        ("dbgstat", "disabled"),
        ("dbgstat", ABSENT),
        ("hwmodel", "GCP_SHIELDED_VM"),
        ("hwmodel", "GCP_AMD_SEV_SNP"),
        ("hwmodel", ["GCP_AMD_SEV"]),
        ("hwmodel", ABSENT),
        ("swversion", ["250800"]),
        ("swversion", "250800"),
        ("swversion", ["260800", "250800"]),
        ("swversion", ["26.08"]),
        ("swversion", 260800),
        ("swversion", ABSENT),
        (SUPPORT, ["LATEST", "USABLE"]),
        (SUPPORT, ["USABLE"]),
        (SUPPORT, "STABLE USABLE"),
        (SUPPORT, {"STABLE": True}),
        (SUPPORT, []),
        (SUPPORT, ABSENT),
        ("submods__confidential_space__monitoring_enabled", {"memory": True}),
        ("submods__confidential_space__monitoring_enabled", "off"),
        (f"{CONTAINER}image_digest", "sha256:" + "00" * 32),
        (f"{CONTAINER}image_digest", DIGEST[:-1]),
        (f"{CONTAINER}image_digest", [DIGEST]),
        (f"{CONTAINER}image_digest", ABSENT),
        (f"{CONTAINER}image_signatures", [{"key_id": OTHER}]),
        (f"{CONTAINER}image_signatures", []),
        (f"{CONTAINER}image_signatures", {"key_id": SIGNING_KEY}),
        (f"{CONTAINER}image_signatures", [SIGNING_KEY]),
        (f"{CONTAINER}image_signatures", ABSENT),
        (f"{CONTAINER}env_override", {"LOG": "debug"}),
        (f"{CONTAINER}env_override", "LOG=debug"),
        (f"{CONTAINER}cmd_override", ["--sealing-key", "/tmp/key"]),
        (f"{CONTAINER}cmd_override", {"0": "x"}),
        (f"{GCE}project_id", "somebody-else"),
        (f"{GCE}project_id", [PROJECT]),
        (f"{GCE}project_id", ABSENT),
        (f"{GCE}zone", "europe-west4-b"),
        (f"{GCE}zone", ABSENT),
        ("google_service_accounts", ["x@somebody-else.iam.gserviceaccount.com"]),
        ("google_service_accounts", f"{ACCOUNT},x"),
        ("google_service_accounts", [[ACCOUNT]]),
        ("google_service_accounts", ABSENT),
    ],
    ids=named,
)
def test_one_claim_altered_is_refused_by_its_name(claim: str, value: object) -> None:
    changed = {claim: value}
    if claim == "exp - iat" and isinstance(value, int):
        changed = {"exp": int(NOW) + value}
    elif claim == "exp":
        # So that the token's life is not the fault.
        changed["iat"] = int(NOW) - 3600
    with pytest.raises(AttestationRefused) as refused:
        checked(ISSUER.token(claims(NOW, **changed)))
    (reason,) = refused.value.reasons
    assert reason.startswith(claim.replace("__", ".") + ": ")
    assert ("is missing, " in reason) == (value is ABSENT or value is None)


@pytest.mark.parametrize("claim", ["submods__container", "submods__gce", "submods__confidential_space", "submods"])
def test_a_part_of_another_type_matches_nothing(claim: str) -> None:
    values: tuple[object, ...] = (None, "text", [], 5)
    for value in values:
        with pytest.raises(AttestationRefused) as refused:
            checked(ISSUER.token(claims(NOW, **{claim: value})))
        assert all(reason.startswith("submods.") for reason in refused.value.reasons)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": [AUDIENCE]},
        {"exp": int(NOW) - 30, "iat": int(NOW) - 3630},
        {"iat": int(NOW) + 50, "nbf": int(NOW) + 50},
        {"eat_nonce": NONCE},
        {"eat_nonce": [OTHER, NONCE]},
        {"swversion": "260800"},
        {"hwmodel": "GCP_AMD_SEV_ES"},
        TDX,
        {SUPPORT: ["STABLE", "USABLE"]},
        {SUPPORT: "STABLE"},
        {"submods__confidential_space__monitoring_enabled": ABSENT},
        {f"{CONTAINER}env_override": None, f"{CONTAINER}cmd_override": None},
        {f"{CONTAINER}env_override": {}, f"{CONTAINER}cmd_override": []},
        {f"{CONTAINER}image_signatures": [{"key_id": OTHER}, {"key_id": SIGNING_KEY}]},
        {f"{CONTAINER}image_reference": "a tag that moved"},
        {"google_service_accounts": ["another@x.iam.gserviceaccount.com", ACCOUNT]},
        {"google_service_accounts": ACCOUNT},
        {"a_claim_of_tomorrow": {"x": 1}},
    ],
    ids=named,
)
def test_forms_that_mean_the_same_are_accepted(changed: dict[str, object]) -> None:
    assert checked(ISSUER.token(claims(NOW, **changed))).image_digest == DIGEST


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("tdx__gcp_attester_tcb_status", "OutOfDate"),
        ("tdx__gcp_attester_tcb_status", ABSENT),
        ("tdx__gcp_attester_tcb_date", "2024-03-12T23:59:59Z"),
        ("tdx__gcp_attester_tcb_date", "soon"),
        ("tdx__gcp_attester_tcb_date", ABSENT),
        ("attester_tcb", ["INTEL", "OTHER"]),
        ("attester_tcb", ABSENT),
    ],
    ids=named,
)
def test_intel_s_claims_count_on_intel_s_hardware(claim: str, value: object) -> None:
    with pytest.raises(AttestationRefused) as refused:
        checked(ISSUER.token(claims(NOW, **{**TDX, claim: value})))
    (reason,) = refused.value.reasons
    assert reason.startswith(claim.replace("__", ".") + ": ")


def test_all_mismatches_are_told_at_once() -> None:
    debug = {"dbgstat": "enabled", SUPPORT: ABSENT, f"{GCE}project_id": "somebody-else", "eat_nonce": OTHER}
    with pytest.raises(AttestationRefused) as refused:
        checked(ISSUER.token(claims(NOW, **debug), kid="kid-9"))
    named = [reason.partition(":")[0] for reason in refused.value.reasons]
    support = SUPPORT.replace("__", ".")
    assert named == ["signature", "eat_nonce", "dbgstat", support, "submods.gce.project_id"]
    assert "dbgstat: enabled, expected disabled-since-boot" in str(refused.value)


def unsigned() -> str:
    return jwt.encode(claims(NOW), "", "none", headers={"kid": "kid-2"})


def signed_with_the_public_key() -> str:
    pem = rsa_key("kid-2").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": "HS256", "typ": "JWT", "kid": "kid-2"}
    signing = ".".join(
        base64.urlsafe_b64encode(json.dumps(x).encode()).rstrip(b"=").decode() for x in (head, claims(NOW))
    )
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    # Past the library's own refusal of such keys.
    return f"{signing}.{base64.urlsafe_b64encode(mac.sign(signing.encode(), pem)).rstrip(b'=').decode()}"


def spoilt(part: int, change: Callable[[str], str]) -> str:
    parts = ISSUER.token(claims(NOW)).split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def other_claims(_: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims(NOW, sub="x")).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (unsigned(), "signature: alg is 'none'"),
        (signed_with_the_public_key(), "signature: alg is 'HS256'"),
        (jwt.encode(claims(NOW), rsa_key("kid-2"), "RS512", headers={"kid": "kid-2"}), "signature: alg is 'RS512'"),
        (jwt.encode(claims(NOW), rsa_key("kid-2"), "PS256", headers={"kid": "kid-2"}), "signature: alg is 'PS256'"),
        (ISSUER.token(claims(NOW), kid="kid-3"), "signature: kid 'kid-3' is not one"),
        (ISSUER.token(claims(NOW), kid="kid-1"), "signature: the signature is not"),
        (jwt.encode(claims(NOW), rsa_key("kid-2"), "RS256"), "signature: kid 'None' is not one"),
        (ISSUER.token(claims(NOW), typ="at+jwt"), "signature: typ is"),
        (ISSUER.token(claims(NOW), jwk={"kty": "RSA"}, kid="mine"), "signature: kid 'mine' is not one"),
        (ISSUER.token(claims(NOW), crit=["exp"]), "signature: crit"),
        (Chain().token(claims(NOW)), "signature: x5c is there"),
        (spoilt(1, other_claims), "signature: the signature is not"),
        (spoilt(2, lambda _: ""), "signature: the signature is not"),
        (spoilt(2, lambda text: "A" * len(text)), "signature: the signature is not"),
    ],
    ids=named,
)
def test_a_signature_that_does_not_count(token: str, reason: str) -> None:
    with pytest.raises(AttestationRefused) as refused:
        checked(token)
    (only,) = refused.value.reasons
    assert only.startswith(reason)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b",
        "a.b.c.d",
        spoilt(1, lambda text: text + "="),
        spoilt(1, lambda text: text[:20] + "\n" + text[20:]),
        spoilt(1, lambda _: base64.urlsafe_b64encode(b"[1]").decode()),
        spoilt(1, lambda _: base64.urlsafe_b64encode(b'{"a":1,"a":2}').rstrip(b"=").decode()),
        spoilt(1, lambda _: base64.urlsafe_b64encode(b"[" * 20000).rstrip(b"=").decode()),
        "A" * 40_000,
    ],
    ids=named,
)
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(AttestationRefused, match="token: "):
        checked(token)


CHAIN = Chain()


def with_chain(*certificates: object) -> str:
    return CHAIN.token(claims(NOW), x5c=[*certificates])


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (Chain("somebody").token(claims(NOW)), "its root is not the pinned one"),
        (with_chain(*Chain("somebody").x5c[:2], CHAIN.x5c[2]), "the chain does not hold"),
        (
            CHAIN.token(claims(NOW), x5c=Chain(intermediate_signer="x").x5c[:2] + CHAIN.x5c[2:]),
            "the chain does not hold",
        ),
        (with_chain(*CHAIN.x5c[:2]), "must hold 3"),
        (with_chain(*CHAIN.x5c, CHAIN.x5c[2]), "must hold 3"),
        (with_chain(CHAIN.x5c[0], 5, CHAIN.x5c[2]), "not a certificate"),
        (with_chain(CHAIN.x5c[0], "!!!!", CHAIN.x5c[2]), "not a certificate"),
        (with_chain(CHAIN.x5c[0], CHAIN.x5c[1] + "\n", CHAIN.x5c[2]), "not a certificate"),
        (with_chain(CHAIN.x5c[0], "A" * 9000, CHAIN.x5c[2]), "not a certificate"),
        (with_chain(CHAIN.x5c[1], CHAIN.x5c[1], CHAIN.x5c[2]), "signature: "),
        (ISSUER.token(claims(NOW)), "x5c is missing"),
        (CHAIN.token(claims(NOW), x5c="text"), "must hold 3"),
    ],
    ids=named,
)
def test_a_chain_that_does_not_count(token: str, reason: str) -> None:
    trust = PinnedRoot.from_pem(CHAIN.root_pem)
    with pytest.raises(AttestationRefused) as refused:
        verify(token, trust=trust, policy=POLICY, nonce=NONCE, now=NOW)
    (only,) = refused.value.reasons
    assert only.startswith("signature: ")
    assert reason in only


def test_a_certificate_of_a_version_that_there_is_not() -> None:
    leaf = CHAIN.leaf.public_bytes(Encoding.DER)
    # The version is the first small number in it.
    other = leaf.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x7f", 1)
    token = with_chain(base64.b64encode(other).decode(), *CHAIN.x5c[1:])
    with pytest.raises(AttestationRefused, match="not a certificate"):
        verify(token, trust=PinnedRoot.from_pem(CHAIN.root_pem), policy=POLICY, nonce=NONCE, now=NOW)


@pytest.mark.parametrize(
    "changes",
    [{"intermediate_is_authority": False}, {"leaf_days": (-10, -1)}, {"leaf_days": (1, 10)}],
    ids=named,
)
def test_a_certificate_that_may_not(changes: dict[str, Any]) -> None:
    chain = Chain(**changes)
    with pytest.raises(AttestationRefused, match="the chain does not hold"):
        verify(chain.token(claims(NOW)), trust=PinnedRoot.from_pem(chain.root_pem), policy=POLICY, nonce=NONCE, now=NOW)


def test_a_leaf_without_names_is_accepted_under_the_pinned_root_alone() -> None:
    token = CHAIN.token(claims(NOW))
    trust = PinnedRoot.from_pem(CHAIN.root_pem)
    assert verify(token, trust=trust, policy=POLICY, nonce=NONCE, now=NOW).image_digest == DIGEST
    # Google's own, if no other is named.
    with pytest.raises(AttestationRefused, match="not the pinned one"):
        verify(token, trust=PinnedRoot(), policy=POLICY, nonce=NONCE, now=NOW)


def test_a_root_that_has_ended_is_no_root() -> None:
    trust = PinnedRoot.from_pem(CHAIN.root_pem)
    later = NOW + 401 * 86_400
    with pytest.raises(AttestationRefused, match="x5c"):
        verify(CHAIN.token(claims(later)), trust=trust, policy=POLICY, nonce=NONCE, now=later)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"keys": []},
        {"keys": "x"},
        {"keys": [5]},
        {"keys": [{"kty": "RSA", "kid": "1"}]},
        {"keys": [{}] * 33},
    ],
    ids=named,
)
def test_what_is_no_jwks(document: object) -> None:
    with pytest.raises(ValueError, match="JWKS"):
        TrustedKeys.from_jwks(document)


def test_keys_for_another_use_are_left_out() -> None:
    first, second = ISSUER.jwks()["keys"]
    document = {"keys": [{**first, "alg": "RS512"}, second, {**second, "kid": "3", "use": "enc"}]}
    assert list(TrustedKeys.from_jwks(document).by_id) == ["kid-2"]
    with pytest.raises(ValueError, match="one id"):
        TrustedKeys.from_jwks({"keys": [first, {**second, "kid": "kid-1"}]})


def test_no_nonce_is_not_a_nonce() -> None:
    nonces: tuple[Any, ...] = ("", None, "short", "n" * 75, " " * 20)
    for nonce in nonces:
        for value in (ABSENT, nonce, [nonce]):
            with pytest.raises(AttestationRefused, match="eat_nonce: the expected nonce is not valid"):
                checked(ISSUER.token(claims(NOW, eat_nonce=value)), nonce=nonce)


def test_nothing_is_proven_without_a_policy() -> None:
    nothing: Any = None
    with pytest.raises(TypeError):
        checked(ISSUER.token(claims(NOW)), policy=nothing)


def test_an_unbound_token_is_of_another_type() -> None:
    token = ISSUER.token(claims(NOW, eat_nonce=ABSENT))
    found = verify_unbound(token, trust=KEYS, policy=POLICY, now=NOW)
    assert isinstance(found, UnboundClaims)
    assert not isinstance(found, VerifiedClaims)
    with pytest.raises(AttestationRefused, match="dbgstat"):
        verify_unbound(ISSUER.token(claims(NOW, dbgstat="enabled")), trust=KEYS, policy=POLICY, now=NOW)


def test_without_a_policy_only_what_makes_a_machine_confidential_is_compared() -> None:
    report = examine(ISSUER.token(claims(NOW)), trust=KEYS, policy=None, nonce=None, now=NOW)
    assert not report.refusals
    assert [check.claim for check in report.checks if check.state is State.NOT_PINNED] == [
        "aud",
        "eat_nonce",
        "swversion",
        "submods.container.image_digest",
        "submods.container.image_signatures",
        "submods.gce.project_id",
        "submods.gce.zone",
        "google_service_accounts",
    ]
    debug = examine(ISSUER.token(claims(NOW, dbgstat="enabled")), trust=KEYS, policy=None, nonce=None, now=NOW)
    assert debug.refusals == ("dbgstat: enabled, expected disabled-since-boot",)


def test_an_expected_override_must_be_there() -> None:
    policy = replace(POLICY, env_override={"LOG": "debug"}, cmd_override=("--json-log",))
    given = {f"{CONTAINER}env_override": {"LOG": "debug"}, f"{CONTAINER}cmd_override": ["--json-log"]}
    checked(ISSUER.token(claims(NOW, **given)), policy)
    with pytest.raises(AttestationRefused) as refused:
        checked(ISSUER.token(claims(NOW)), policy)
    assert len(refused.value.reasons) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"image_digests": frozenset(), "signing_keys": frozenset()},
        {"projects": frozenset(), "service_accounts": frozenset()},
        {"audience": ""},
        {"audience": " "},
        {"audience": None},
        {"audience": "https://sts.googleapis.com"},
        {"audience": "https://sts.googleapis.com/"},
        {"audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x"},
        {"audience": "HTTPS://IAM.googleapis.com:443/projects/1"},
        {"audience": "a" * 513},
        {"image_digests": frozenset({""})},
        {"image_digests": frozenset({None})},
        {"image_digests": frozenset({DIGEST.upper()})},
        {"image_digests": frozenset({"4b" * 32})},
        {"image_digests": DIGEST},
        {"projects": frozenset({""})},
        {"projects": frozenset({"*"})},
        {"service_accounts": frozenset({"anybody"})},
        {"hwmodel": frozenset()},
        {"hwmodel": frozenset({"GCP_SHIELDED_VM"})},
        {"support_attributes": frozenset({"EXPERIMENTAL"})},
    ],
    ids=named,
)
def test_a_policy_cannot_be_too_weak(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(POLICY, **changes)


def test_no_setting_lets_through_what_is_not_confidential() -> None:
    """With every field of the policy at what allows the most."""
    policy = Policy(
        audience=AUDIENCE,
        image_digests=frozenset({DIGEST, "sha256:" + "00" * 32}),
        projects=frozenset({PROJECT, "somebody-else"}),
        support_attributes=frozenset(),
        minimum_swversion=0,
        minimum_tdx_date=date.min,
    )
    for changed in (
        {"dbgstat": "enabled"},
        {SUPPORT: ABSENT},
        {SUPPORT: ["USABLE"]},
        {"hwmodel": "GCP_SHIELDED_VM"},
        {"secboot": False},
        {"swname": "GCE"},
        {"iss": "fake-issuer-for-testing"},
        {"exp": int(NOW) - 61},
        {"submods__confidential_space__monitoring_enabled": {"memory": True}},
        {f"{CONTAINER}env_override": {"LD_PRELOAD": "x"}},
        {**TDX, "tdx__gcp_attester_tcb_status": "Revoked"},
    ):
        with pytest.raises(AttestationRefused):
            checked(ISSUER.token(claims(NOW, **changed)), policy)


def test_stable_is_always_asked_for() -> None:
    policy = replace(POLICY, support_attributes=frozenset({"USABLE"}))
    with pytest.raises(AttestationRefused, match="expected STABLE and USABLE"):
        checked(ISSUER.token(claims(NOW, **{SUPPORT: ["USABLE"]})), policy)


def test_nothing_absent_equals_an_expectation_that_is_absent() -> None:
    """A policy by digest alone still refuses a token without digest, and one by keys a token without signatures."""
    by_digest = replace(POLICY, signing_keys=frozenset(), service_accounts=frozenset())
    by_key = replace(POLICY, image_digests=frozenset(), projects=frozenset())
    for policy, claim in (
        (by_digest, f"{CONTAINER}image_digest"),
        (by_digest, f"{GCE}project_id"),
        (by_key, f"{CONTAINER}image_signatures"),
        (by_key, "google_service_accounts"),
    ):
        nothing: tuple[object, ...] = (ABSENT, None, "", [])
        for value in nothing:
            with pytest.raises(AttestationRefused):
                checked(ISSUER.token(claims(NOW, **{claim: value})), policy)
