"""What clients ask for by `?version=`, and what of it crosses the wire to the enclave."""

import json

import pytest

from enclave_signer.protocol import codec
from enclave_signer.protocol.messages import Sign, SigningVersion
from enclave_signer.tezos import encode_signature
from host_backend.api.signing import signing_app
from host_backend.metrics import Metrics
from host_backend.policy import KeyPolicy
from host_backend.signer import Signer
from host_backend.vault.vault import Vault
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask
from tests.doubles.auto_enclave import AutoEnclave
from tests.doubles.known_keys import attestation
from tests.doubles.linked_vault import OPENED, PKHS, TZ1, TZ4, play
from tests.doubles.memory_keys import MemoryKeys

MESSAGE = attestation(5)
POLICY = KeyPolicy(requests=frozenset({"attestation"}))


def sent(pkh: str, query: str) -> SigningVersion:
    """Ask for a signature over HTTP; returns the version that the enclave is asked for."""
    versions = []

    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        app = signing_app(Signer({pkh: POLICY}, [vault], MemoryWatermarkStore()), Metrics(dict, "memory"))
        body = json.dumps(MESSAGE.hex()).encode()
        answer = await ask(app, "POST", f"/keys/{pkh}", body, query.encode())
        ((_connection, request),) = enclave.asked(Sign)
        assert isinstance(request, Sign)
        assert codec.decode_request(codec.encode_request(request)) == request
        versions.append(request.version)
        assert answer.signature == encode_signature(OPENED[pkh].sign(MESSAGE, request.version))

    play(scenario)
    (version,) = versions
    return version


@pytest.mark.parametrize("pkh", PKHS)
@pytest.mark.parametrize("query", ["version=3", "version=2", "", "version=", "version=4", "version=255", "version=03"])
def test_3_and_all_that_is_unknown_are_the_latest_which_is_sent_as_2(pkh: str, query: str) -> None:
    assert sent(pkh, query) is SigningVersion.V2
    assert SigningVersion.V2.value == 2


@pytest.mark.parametrize(("pkh", "version"), [(TZ1, 0), (TZ1, 1), (TZ4, 1)])
def test_older_versions_are_sent_as_they_are(pkh: str, version: int) -> None:
    assert sent(pkh, f"version={version}") == version
