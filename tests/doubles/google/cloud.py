"""Launcher, STS and Cloud KMS together, and the image that may use them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from enclave_signer.sealing.gcp_client import GcpPlaces
from enclave_signer.sealing.gcp_kms import DEFAULT_TIMES, GcpTimes
from tests.doubles.google.kms import KEY, KmsDouble
from tests.doubles.google.launcher import LauncherDouble, token
from tests.doubles.google.places import places
from tests.doubles.google.sts import PROVIDER, StsDouble

IMAGE = f'sealers = ["gcp_kms"]\n[gcp_kms]\nidentity_providers = ["{PROVIDER}"]\nseal_keys = ["{KEY}"]\n'


class GoogleCloud:
    """The three services; running within `running_cloud`."""

    def __init__(self, folder: Path) -> None:
        self.launcher = LauncherDouble(folder)
        self.launcher.write(token())
        self.sts = StsDouble()
        self.kms = KmsDouble(self.sts.issued)
        self.kms_address = ""
        self.sts_address = ("", 0)

    def places(self) -> GcpPlaces:
        return places(self.kms_address, self.sts_address, self.launcher.token_file, self.launcher.socket)

    def environment(self, times: GcpTimes = DEFAULT_TIMES) -> dict[str, str]:
        """What tells `tests.doubles.gcp_enclave` where the services are."""
        where = [self.kms_address, self.sts_address, str(self.launcher.token_file), str(self.launcher.socket)]
        return {"GCP_DOUBLES": json.dumps({"places": where, "times": asdict(times)})}


@contextmanager
def running_google_cloud(folder: Path) -> Iterator[GoogleCloud]:
    """Run the three services on loopback; the launcher's socket is not served."""
    cloud = GoogleCloud(folder)
    with cloud.sts.serving() as cloud.sts_address, cloud.kms.serving() as cloud.kms_address:
        yield cloud
