"""`make demo`: signs with every curve, shows a refused double signature, and ends."""

import signal

# Before the other imports take their time: until there is something to stop, Ctrl-C ends the process without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio
import http.client
import json
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from enclave_signer.curves import curve
from enclave_signer.protocol.key_types import KeyType, SigningVersion
from enclave_signer.tezos import parse_public_key, parse_signature
from host_backend.errors import HostError
from quickstart.folder import StartFailed
from quickstart.local_signer import LocalSigner, running_signer
from quickstart.messages import attestation
from quickstart.stopping import until_signal

KEY_TYPES = tuple(key_type.facts.address for key_type in KeyType if key_type.facts.bakes)


def ask(url: str, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """Return status and body of one HTTP request."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, path, body=body)
        response = connection.getresponse()
        return response.status, response.read().decode().strip()
    finally:
        connection.close()


def sign_and_verify(signer: LocalSigner, pkh: str) -> None:
    """Sign one attestation and verify it with the public key that the host names."""
    message = attestation(1)
    status, body = ask(signer.url, "POST", f"/keys/{pkh}", json.dumps(message.hex()))
    if status != 200:
        raise StartFailed(f"no signature by {pkh}: {status} {body}")
    signature = parse_signature(json.loads(body)["signature"])
    _, body = ask(signer.url, "GET", f"/keys/{pkh}")
    public_key = parse_public_key(json.loads(body)["public_key"])
    curve(public_key.key_type).parse_public_key(public_key.data).verify(signature, message, SigningVersion.V2)
    print(f"  {pkh}  {public_key.key_type:<9}  signed and verified")


def show_refusal(signer: LocalSigner, pkh: str) -> None:
    """Ask for another attestation at the same level and show that there is none."""
    status, body = ask(signer.url, "POST", f"/keys/{pkh}", json.dumps(attestation(1, payload=b"\x23" * 32).hex()))
    if status != 409:
        raise StartFailed(f"a double signature was not refused: {status} {body}")
    print(f"  {pkh}  {status}  {json.loads(body)[0]['msg']}")


async def demo() -> int:
    """Run both programs on a folder of their own and show what they do; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="enclave-signer-demo-") as folder:
        print("Starting the enclave and the host, making a key of each curve inside the enclave.")
        async with running_signer(Path(folder), KEY_TYPES, in_memory_allowed=True) as signer:
            print("\nOne attestation, level 1, by each key:")
            for pkh in signer.keys:
                await asyncio.to_thread(sign_and_verify, signer, pkh)
            print("\nAnother attestation of level 1, which would be a double signature:")
            await asyncio.to_thread(show_refusal, signer, signer.keys[-1])
    print("\nDone; both programs are stopped and nothing is left behind.")
    return 0


async def run() -> int:
    """Do that until its end, or until a signal."""
    code = await until_signal(demo())
    if code is None:
        print("\nStopped; nothing is left behind.")
    return code or 0


def main() -> None:
    """Run, or say in words what went wrong."""
    try:
        sys.exit(asyncio.run(run()))
    except (StartFailed, HostError) as error:
        sys.exit(f"make demo: {error}")


if __name__ == "__main__":
    main()
