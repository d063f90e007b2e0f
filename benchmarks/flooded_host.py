"""The host that `benchmarks.host_floods` floods: both programs, marks on a real disk, and a proxy in front."""

import base64
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from enclave_signer.curves import SigningKey, curve
from enclave_signer.protocol.messages import KeyType, PublicKey, SigningVersion
from enclave_signer.tezos import encode_public_key, encode_signature, public_key_hash
from host_backend.authentication import authentication_bytes
from tests.doubles.host_process import (
    BAKER,
    VAULT,
    Host,
    key_file,
    run_command,
    running_host,
    stored_hashes,
    write_config,
)
from tests.doubles.processes import running_local_enclave
from tests.doubles.proxies import front_haproxy, front_nginx
from tests.doubles.wire import WireClient

#: Seconds until a host that is not ready is asked again.
READY_AGAIN_S = 0.2
#: Calls to the enclave before its answers are read.
PIPELINE = 100
CONSENSUS = "{allow: {block: , preattestation: , attestation: }}"
OPERATIONS = "{allow: {generic: [transaction], pack: }}"
WATERMARK = "{driver: file}"
PROXIES = {"nginx": front_nginx, "haproxy": front_haproxy}


@dataclass
class Served:
    """A host that serves, and what floods need to know of it."""

    host: Host
    baker: str
    #: Keys whose policies allow consensus messages only, and operations only.
    consensus: str
    operations: str
    #: Signs the baker's requests, where requests are signed.
    client: SigningKey | None
    #: Where clients come: to the host, or to the proxy in front.
    port: int
    utility_port: int
    level: int = 0

    def query(self, pkh: str, message: bytes, client: SigningKey | None) -> str:
        """Return what a path needs for a client's signature; nothing where requests are not signed."""
        if client is None:
            return ""
        signed = client.sign(authentication_bytes(pkh, message), SigningVersion.LATEST)
        return f"?authentication={encode_signature(signed)}"

    def request(self, pkh: str, message: bytes, client: SigningKey | None = None) -> bytes:
        """Return the bytes of a request for a signature."""
        body = b'"%b"' % message.hex().encode()
        path = f"/keys/{pkh}{self.query(pkh, message, client)}".encode()
        return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body)

    def links_lost(self) -> int:
        """Return how often the host has lost its link to the enclave."""
        return self.host.log.count("the enclave did not answer in time")


def stranger() -> SigningKey:
    """Return a new P-256 key."""
    return curve(KeyType.P256).open(curve(KeyType.P256).generate())


def _generate(address: tuple[str, int], count: int) -> Iterator[dict[str, str]]:
    """Yield entries of the key file for so many new tz1 keys."""
    with WireClient(address) as client:
        for _ in range(0, count, PIPELINE):
            for _ in range(PIPELINE):
                client.send({"Generate": "Ed25519"})
            for _ in range(PIPELINE):
                made = client.receive()["Ok"]
                assert isinstance(made, dict)
                pkh = public_key_hash(PublicKey(KeyType.ED25519, made["public_key"]["Ed25519"]))
                blob = base64.b64encode(made["encrypted_private_key"]).decode()
                yield {"public_key_hash": pkh, "encrypted_private_key": blob}


@contextmanager
def serving(folder: Path, *, keys: int = 0, authorized: int = 0, proxy: str | None = None) -> Iterator[Served]:
    """Run both programs, and a proxy if one is named.

    Args:
        folder: An empty one.
        keys: Further keys that are listed.
        authorized: P-256 keys that may sign requests, the baker's the last of them; 0: requests are not signed.
        proxy: One of `PROXIES`.
    """
    clients = [stranger() for _ in range(authorized)]
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, watermark=WATERMARK)
        made = run_command("generate", "-c", config, "-v", VAULT, "-n", "3")
        assert made.code == 0, made.stderr
        three = stored_hashes(config)
        if keys:
            entries = json.loads(key_file(config).read_text()) + list(_generate(enclave.address, keys))
            key_file(config).write_text(json.dumps(entries))
        policies = dict.fromkeys(stored_hashes(config), BAKER) | dict(
            zip(three[1:], (CONSENSUS, OPERATIONS), strict=True)
        )
        write_config(folder, enclave.port, policies, watermark=WATERMARK)
        more = "" if proxy is None else "trusted_proxies: [127.0.0.1], "
        if clients:
            more += f"authorized_keys: [{', '.join(encode_public_key(client.public_key) for client in clients)}], "
        config.write_text(config.read_text().replace("server: {", f"server: {{{more}"))
        with running_host(config) as host:
            while host.health()[0] != HTTPStatus.OK:
                time.sleep(READY_AGAIN_S)
            with ExitStack() as stack:
                port, utility_port = host.port, host.utility_port
                if proxy is not None:
                    port = stack.enter_context(_in_front(proxy, port))
                    utility_port = stack.enter_context(_in_front(proxy, utility_port))
                baker, consensus, operations = three
                client = clients[-1] if clients else None
                yield Served(host, baker, consensus, operations, client, port, utility_port)


@contextmanager
def _in_front(proxy: str, port: int) -> Iterator[int]:
    # The path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="front-") as folder, PROXIES[proxy](Path(folder), port) as front:
        yield front
