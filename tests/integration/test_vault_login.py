"""How an image logs in to a real OpenBao server: what its token must say, and what becomes of other tokens."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enclave_signer.errors import SealingRefused, SealingUnavailable
from enclave_signer.sealing.base import Sealer, open_key
from tests.doubles.google.http_service import Answered
from tests.doubles.google.launcher import LauncherDouble
from tests.doubles.google.tokens import ABSENT, DIGEST, PROJECT, Issuer, claims, rsa_key, signed
from tests.doubles.vault.openbao import OpenBao, running_openbao, token_login
from tests.doubles.vault.sealing import PUBLIC, opened, seal, sealed, with_sealer

AUDIENCE = "https://vault.example"
ISSUER = "https://confidentialcomputing.googleapis.com"
ROLE: dict[str, object] = {
    "role_type": "jwt",
    "bound_audiences": [AUDIENCE],
    "user_claim": "sub",
    "bound_claims": {
        "swname": "CONFIDENTIAL_SPACE",
        "dbgstat": "disabled-since-boot",
        "secboot": True,
        "hwmodel": ["GCP_AMD_SEV", "GCP_INTEL_TDX"],
        "/submods/gce/project_id": PROJECT,
        "/submods/container/image_digest": [DIGEST],
        "/submods/confidential_space/support_attributes": "STABLE",
    },
    "claim_mappings": {"/submods/container/image_digest": "image_digest"},
    "token_policies": ["sealer"],
    "token_ttl": 60,
    "token_max_ttl": 300,
    "token_no_default_policy": True,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with running_openbao(tmp_path_factory.mktemp("openbao")) as running:
        running.call("POST", "sys/auth/jwt", {"type": "jwt"})
        pems = [rsa_key(kid).public_key() for kid in Issuer().kids]
        keys = [pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() for pem in pems]
        running.call("POST", "auth/jwt/config", {"jwt_validation_pubkeys": keys, "bound_issuer": ISSUER})
        running.call("POST", "auth/jwt/role/sealer", ROLE)
        running.call("POST", "sys/auth/approle", {"type": "approle"})
        yield running


def token(**changes: object) -> str:
    return Issuer().token(claims(None, **{"aud": AUDIENCE, **changes}))


def in_file(file: Path, role: str = "sealer") -> str:
    return f'method = "jwt"\nrole = "{role}"\ntoken_file = "{file}"'


def test_what_the_launcher_makes_logs_in(server: OpenBao, tmp_path: Path) -> None:
    launcher = LauncherDouble(tmp_path)
    image = server.image(f'method = "jwt"\nrole = "sealer"\naudience = "{AUDIENCE}"')
    with launcher.serving():
        blob = with_sealer(image, seal, socket=launcher.socket)
        assert b'"audience": "https://vault.example"' in launcher.asked[0].body
        launcher.digest = "sha256:" + "00" * 32
        with pytest.raises(SealingRefused, match=r"refuses the login at auth/jwt: .*image_digest"):
            with_sealer(image, seal, socket=launcher.socket)
        launcher.socket_answer = Answered(500, b"quota")
        with pytest.raises(SealingUnavailable, match="the launcher gave no token"):
            with_sealer(image, seal, socket=launcher.socket)
        launcher.socket_answer = Answered(400, b"no such image")
        with pytest.raises(SealingRefused, match="the launcher gives this image no token"):
            with_sealer(image, seal, socket=launcher.socket)
    assert blob


def _other_algorithm(name: str) -> Callable[[], str]:
    secret = "" if name == "none" else "secret" * 8
    return lambda: jwt.encode(claims(None, aud=AUDIENCE), secret, name, headers={"kid": "kid-2"})


def _now(offset_s: int) -> int:
    return int(time.time()) + offset_s


REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "another digest": (lambda: token(submods__container__image_digest="sha256:" + "00" * 32), "image_digest"),
    "a debug image": (lambda: token(dbgstat="enabled"), "dbgstat"),
    "no support attributes": (
        lambda: token(submods__confidential_space__support_attributes=ABSENT),
        "support_attributes",
    ),
    "another support attribute": (
        lambda: token(submods__confidential_space__support_attributes=["LATEST"]),
        "support_attributes",
    ),
    "a shielded machine": (lambda: token(hwmodel="GCP_SHIELDED_VM"), "hwmodel"),
    "another project": (lambda: token(submods__gce__project_id="other"), "project_id"),
    "no secure boot": (lambda: token(secboot=False), "secboot"),
    "secure boot as a text": (lambda: token(secboot="true"), "secboot"),
    "another audience": (lambda: token(aud="https://other.example"), "aud"),
    "no audience": (lambda: token(aud=ABSENT), "aud"),
    "another issuer": (lambda: token(iss="https://issuer.example"), "iss"),
    "expired": (lambda: token(exp=_now(-600), iat=_now(-4200), nbf=_now(-4200)), "expired"),
    "not yet valid": (lambda: token(nbf=_now(600)), "nbf"),
    "no subject": (lambda: token(sub=ABSENT), "sub"),
    "another key": (lambda: signed(claims(None, aud=AUDIENCE), rsa_key("other"), {"kid": "kid-2"}), "signature"),
    "a shared secret": (_other_algorithm("HS256"), "token"),
    "not signed": (lambda: token().rpartition(".")[0] + ".AAAA", "signature"),
    "garbage": (lambda: "eyJhbGciOiJSUzI1NiJ9.bm90aGluZw.AAAA", "token"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_token_that_says_anything_else_is_refused(server: OpenBao, tmp_path: Path, name: str) -> None:
    make, named = REFUSED[name]
    file = tmp_path / "jwt"
    file.write_text(make())
    with pytest.raises(SealingRefused, match=r"refuses the login at auth/jwt: compare its role .*\(400: ") as raised:
        sealed(server.image(in_file(file)))
    print(name, "|", raised.value)
    assert named in str(raised.value)
    assert file.read_text() not in str(raised.value)


def test_a_role_that_is_not_there_is_refused(server: OpenBao, tmp_path: Path) -> None:
    file = tmp_path / "jwt"
    file.write_text(token())
    with pytest.raises(SealingRefused, match='role "other" could not be found'):
        sealed(server.image(in_file(file, "other")))
    with pytest.raises(SealingRefused, match="refuses the login at auth/nowhere"):
        sealed(server.image(f'path = "auth/nowhere"\n{in_file(file)}'))


@pytest.mark.parametrize("changes", [{"aud": ["x", AUDIENCE]}, {"exp": ABSENT}, {"hwmodel": "GCP_INTEL_TDX"}])
def test_these_log_in(server: OpenBao, tmp_path: Path, changes: dict[str, object]) -> None:
    file = tmp_path / "jwt"
    file.write_text(token(**changes))
    image = server.image(in_file(file))
    assert opened(image, sealed(image)).public_key == PUBLIC


def test_a_file_without_a_token_is_unavailable(server: OpenBao, tmp_path: Path) -> None:
    file = tmp_path / "jwt"
    for content, match in ((None, "No such file"), (b"", "is empty"), (b"hello", "holds no token"), (b"\xff", "empty")):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(SealingUnavailable, match=match):
            sealed(server.image(in_file(file)))
    with pytest.raises(SealingUnavailable, match="is empty, or holds no secret"):
        sealed(server.image(token_login(tmp_path)))


class TestAppRole:
    """A role's id in the image, its secret in a file."""

    def login(self, server: OpenBao, file: Path, **options: object) -> str:
        role: dict[str, Any] = {"token_policies": ["sealer"], "token_no_default_policy": True, **options}
        server.call("POST", "auth/approle/role/signer", role)
        role_id = server.call("GET", "auth/approle/role/signer/role-id")["data"]["role_id"]
        secret = server.call("POST", "auth/approle/role/signer/secret-id", {})["data"]["secret_id"]
        file.write_text(f"{secret}\n")
        return f'method = "approle"\nrole_id = "{role_id}"\nsecret_id_file = "{file}"'

    def test_a_token_that_ends_is_replaced(self, server: OpenBao, tmp_path: Path) -> None:
        """Each token is good for three requests, and may not renew itself."""
        image = server.image(self.login(server, tmp_path / "secret", token_num_uses=3))

        async def scenario(sealer: Sealer) -> None:
            for _ in range(4):
                blob = await seal(sealer)
                assert (await open_key(sealer, blob, trio.lowlevel.checkpoint)).public_key == PUBLIC

        with_sealer(image, scenario)

    def test_a_secret_that_is_used_up_is_refused(self, server: OpenBao, tmp_path: Path) -> None:
        file = tmp_path / "secret"
        image = server.image(self.login(server, file, secret_id_num_uses=1))
        sealed(image)
        with pytest.raises(SealingRefused, match=r"login at auth/approle: .*invalid role or secret") as raised:
            sealed(image)
        assert file.read_text().strip() not in str(raised.value)
