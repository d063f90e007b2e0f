"""The daemon with a real OpenBao server that is killed, or closed to it; and keys that move to it."""

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from enclave_signer.errors import SealingRefused
from enclave_signer.image import parse_image
from enclave_signer.launcher import LauncherSocket
from enclave_signer.protocol.blob import sealed_under
from enclave_signer.protocol.errors import Family, family_of
from enclave_signer.protocol.messages import Credentials
from enclave_signer.sealing.base import Sealer, open_key, reseal_key
from enclave_signer.sealing.gcp_kms import GcpKms
from enclave_signer.sealing.kbs import open_kbs
from enclave_signer.sealing.providers import Providers
from enclave_signer.sealing.resealing import ResealingByImage
from enclave_signer.sealing.vault_transit import VaultTransit
from tests.doubles.google.blobs import read_key_file
from tests.doubles.google.blobs import sealed as sealed_by_google
from tests.doubles.google.cloud import running_google_cloud
from tests.doubles.google.kms import KEY as GOOGLE_KEY
from tests.doubles.google.sts import PROVIDER
from tests.doubles.host_process import BAKER, import_keys, key_file, run_command, running_host, write_config
from tests.doubles.kbs import running_kbs
from tests.doubles.kbs_image import KEK, RESOURCE, kbs_table
from tests.doubles.kbs_image import name_of as kbs_name
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.processes import running_enclave, running_local_enclave
from tests.doubles.vault.openbao import POLICY, OpenBao, running_openbao, token_login
from tests.doubles.wire import WireClient

MESSAGE = transaction(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with running_openbao(tmp_path_factory.mktemp("openbao"), disk=True) as running:
        running.call("POST", "sys/auth/approle", {"type": "approle"})
        role = {"token_policies": ["sealer"], "token_no_default_policy": True}
        running.call("POST", "auth/approle/role/signer", role)
        yield running


def written(server: OpenBao, folder: Path, more: str = "", others: tuple[str, ...] = ()) -> Path:
    """Write an image that logs in by a role's secret, and return its path."""
    role_id = server.call("GET", "auth/approle/role/signer/role-id")["data"]["role_id"]
    secret = folder / "secret_id"
    secret.write_text(server.call("POST", "auth/approle/role/signer/secret-id", {})["data"]["secret_id"])
    login = f'method = "approle"\nrole_id = "{role_id}"\nsecret_id_file = "{secret}"\n{more}'
    image = folder / "image.toml"
    image.write_text(server.image(login, others=others))
    return image


def blob_of(answer: dict[str, object]) -> bytes:
    (ok,) = answer.values()
    assert isinstance(ok, dict), answer
    return bytes(ok["encrypted_private_key"])


def said(answer: dict[str, object]) -> str:
    error = answer["Err"]
    assert isinstance(error, dict)
    return str(error["message"])


def test_keys_already_opened_sign_on_whatever_the_server_does(server: OpenBao, tmp_path: Path) -> None:
    image = written(server, tmp_path)
    with running_enclave("--image", str(image), module="enclave_signer") as enclave:
        with WireClient(enclave.address) as client:
            signing = {"Sign": {"handle": 0, "message": MESSAGE, "version": 2}}
            opened = blob_of(client.call({"GenerateAndImport": "Ed25519"}))
            others = [blob_of(client.call({"Generate": "Bls"})) for _ in range(2)]
            signature = client.call(signing)
            assert "Ok" in signature

            def refused_meanwhile(blob: bytes, family: Family, text: str) -> None:
                message = said(client.call({"Import": blob}))
                assert family_of(message) is family
                assert re.search(text, message), message
                assert client.call(signing) == signature
                with WireClient(enclave.address) as another:
                    assert "Ok" in another.call({"Import": opened})

            server.kill()
            refused_meanwhile(others[0], Family.UNAVAILABLE, r"gave no answer: .*Connection refused")
            server.start()
            assert "Ok" in client.call({"Import": others[0]})
            server.call("PUT", "sys/policies/acl/sealer", {"policy": POLICY.replace("decrypt", "nothing")})
            refused_meanwhile(others[1], Family.REFUSED, "denies update on transit/decrypt/tezos")
            server.call("PUT", "sys/policies/acl/sealer", {"policy": POLICY})
            assert "Ok" in client.call({"Import": others[1]})
        log = enclave.log
    assert (tmp_path / "secret_id").read_text() not in log
    assert not re.search(r"\b(hvs|s|b)\.[A-Za-z0-9]{20}", log)
    assert "Traceback" not in log
    assert "/v1/" not in log


def test_a_sealed_server_is_unavailable_and_comes_back_when_it_is_unsealed(server: OpenBao, tmp_path: Path) -> None:
    image = written(server, tmp_path)
    with (
        running_enclave("--image", str(image), module="enclave_signer") as enclave,
        WireClient(enclave.address) as client,
    ):
        opened, closed = (blob_of(client.call({call: "Ed25519"})) for call in ("GenerateAndImport", "Generate"))
        server.seal()
        for call in ({"Import": closed}, {"Generate": "Ed25519"}, {"PublicKeyFrom": opened}):
            message = said(client.call(call))
            assert family_of(message) is Family.UNAVAILABLE
            assert "the server is sealed, or not ready: unseal it (503: Vault is sealed)" in message
        assert "Ok" in client.call({"Sign": {"handle": 0, "message": MESSAGE, "version": 2}})
        server.unseal()
        for call in ({"Import": closed}, {"Generate": "Ed25519"}, {"PublicKeyFrom": opened}):
            assert "Ok" in client.call(call)


def test_a_hundred_keys_are_ready_soon_after_a_start(server: OpenBao, tmp_path: Path) -> None:
    image = written(server, tmp_path)
    with running_enclave("--image", str(image), "--retain", "0", module="enclave_signer") as enclave:
        with WireClient(enclave.address) as client:
            for _ in range(100):
                client.send({"Generate": "Ed25519"})
            blobs = [blob_of(client.receive()) for _ in range(100)]
        began = time.perf_counter()
        with WireClient(enclave.address) as client:
            for blob in blobs:
                client.send({"Import": blob})
            answers = [client.receive() for _ in range(100)]
        print(f"100 keys opened by the daemon in {(time.perf_counter() - began) * 1e3:.0f} ms")
    assert all("Ok" in answer for answer in answers)


def test_keys_move_from_a_file_to_the_server_and_not_back(server: OpenBao, tmp_path: Path) -> None:
    key = tmp_path / "sealing.key"
    with running_local_enclave(key) as enclave:
        config = write_config(tmp_path, enclave.port, {each.pkh: BAKER for each in FOUR})
        import_keys(config, *FOUR)
    local = sealed_under(read_key_file(key_file(config))[0][1])
    rule = f'[local]\nsealing_key = "{key}"\n[[reseal]]\nfrom = "{local}"\nto = "{server.key}"\n'
    image = written(server, tmp_path, rule, ("local",))
    with running_enclave("--image", str(image), module="enclave_signer") as enclave:
        config = write_config(tmp_path, enclave.port, {each.pkh: BAKER for each in FOUR}, key=f"'{server.key}'")
        outcome = run_command("reseal", "-c", config)
        assert outcome.code == 0, outcome.stderr
        assert f"4 keys resealed, from {local} to {server.key}" in outcome.stdout
        assert {sealed_under(blob) for _, blob in read_key_file(key_file(config))} == {server.key}
        for target in (local, server.name("transit", "other")):
            outcome = run_command("reseal", "-c", config, "--to", target)
            assert outcome.code == 1
            assert f"this image does not allow resealing from '{server.key}' to '{target}'" in outcome.stderr
        with running_host(config) as host:
            host.wait_for("the link to the enclave is ready")
            assert [host.sign(each.pkh, MESSAGE).status for each in FOUR] == [200] * 4


def test_keys_move_between_three_services_where_the_image_says_so(server: OpenBao, tmp_path: Path) -> None:
    """Whatever key a session names, the blob of another sealer is opened under the key that it names itself."""
    (tmp_path / "token").write_text(server.token())
    ring = (GOOGLE_KEY, server.key, kbs_name(), GOOGLE_KEY)
    rules = "".join(f'[[reseal]]\nfrom = "{old}"\nto = "{new}"\n' for old, new in pairwise(ring))

    async def moved(providers: Providers, resealing: ResealingByImage, blob: bytes) -> list[bytes]:
        session = Credentials(None, server.key)
        blobs = [blob]
        async with providers.running():
            sealer = await providers.open_sealer(session)
            for new in ring[1:]:
                target = await resealing.open_target(blobs[-1], new, session)
                blobs.append((await reseal_key(sealer, blobs[-1], target, trio.lowlevel.checkpoint))[0])
            with pytest.raises(SealingRefused, match="does not allow resealing"):
                await resealing.open_target(blobs[-1], kbs_name(), session)
            await _same(sealer, *blobs)
        return blobs

    with running_google_cloud(tmp_path) as cloud, running_kbs(tmp_path) as (broker, authority):
        broker.resources[RESOURCE] = KEK
        google = f'[gcp_kms]\nidentity_providers = ["{PROVIDER}"]\nseal_keys = ["{GOOGLE_KEY}"]\n'
        more = google + kbs_table(broker.url, authority.file) + rules
        text = server.image(f"{token_login(tmp_path / 'token')}\n{more}", others=("gcp_kms", "kbs"))
        image = parse_image(text, "image.toml")
        assert image.vault_transit is not None
        assert image.gcp_kms is not None
        assert image.kbs is not None
        transit = VaultTransit(image.vault_transit, LauncherSocket(Path("/nowhere"), 1.0))
        providers = Providers([transit, GcpKms(image.gcp_kms, cloud.places()), open_kbs(image.kbs)])
        before = sealed_by_google(cloud.kms, FOUR[0], GOOGLE_KEY)
        blobs = trio.run(moved, providers, ResealingByImage(providers, image.reseal), before)
    assert [sealed_under(blob) for blob in blobs] == [*ring]


async def _same(sealer: Sealer, *blobs: bytes) -> None:
    keys = {(await open_key(sealer, blob, trio.lowlevel.checkpoint)).public_key for blob in blobs}
    assert len(keys) == 1
