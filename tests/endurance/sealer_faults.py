"""What becomes of a host whose enclave's sealer fails, and how soon it is back: `python -m tests.endurance.sealer_faults`.

For each fault: the answer while it lasts, from the start of the host, and the seconds from its end to the first signature.
Then how soon 1 000 keys are ready, with a sealer of 50 ms a call and with the local one, and how often `Initialize` went out.
"""

import signal
import tempfile
import time
from pathlib import Path

from tests.doubles.host_process import BAKER, Host, import_keys, run_command, running_host, write_config
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.processes import Cloud, running_cloud_enclave

TZ1, TZ2, *_ = FOUR
FAULTS = ("unavailable", "not released", "hanging", "refused")
KEYS = 1000


def first_signature(host: Host) -> float:
    """Return the seconds until a signature is given; a refused key is asked for again at SIGHUP."""
    began = time.monotonic()
    while host.sign(TZ1.pkh, transaction(1)).status != 200:
        pass
    return time.monotonic() - began


def faults(folder: Path) -> None:
    """Print a line for each fault."""
    cloud = Cloud(folder / "cloud.json")
    print(f"{'sealer':<14} {'status':>6} {'back after s':>12}  reason")
    with running_cloud_enclave(cloud) as enclave:
        config = write_config(folder, enclave.port, {key.pkh: BAKER for key in (TZ1, TZ2)})
        import_keys(config, TZ1, TZ2)
        for fault in FAULTS:
            with running_host(config):
                # `Initialize` is done, and kept.
                cloud.set(fault)
            with running_host(config) as host:
                host.wait_for("key out of service")
                answer = host.sign(TZ1.pkh, transaction(1))
                cloud.set("ok")
                if fault == "refused":
                    host.process.send_signal(signal.SIGHUP)
                reason = answer.body.decode().partition("msg")[2][3:90]
                print(f"{fault:<14} {answer.status:>6} {first_signature(host):>12.2f}  {reason}")


def many_keys(folder: Path) -> None:
    """Print how soon many keys are ready."""
    cloud = Cloud(folder / "cloud.json")
    with running_cloud_enclave(cloud) as enclave:
        config = write_config(folder, enclave.port)
        began = time.monotonic()
        made = run_command("generate", "-c", config, "-v", "enclave", "-n", str(KEYS), "-t", "tz1")
        assert made.code == 0, made.stderr
        print(f"generate -n {KEYS}: {time.monotonic() - began:.2f} s")
    for call_ms, initialize_ms in ((50, 0), (50, 2000), (0, 0)):
        cloud.set("ok", call_ms=call_ms, initialize_ms=initialize_ms)
        with running_cloud_enclave(cloud) as enclave:
            config = write_config(folder, enclave.port)
            began = time.monotonic()
            with running_host(config, "--no-list") as host:
                host.wait_for("the link to the enclave is ready")
                seconds = time.monotonic() - began
            exchanges = enclave.log.count("cloud answered initialize_ms")
        took = f"{call_ms} ms a call, {initialize_ms} ms for Initialize"
        print(f"{KEYS} keys, {took}: ready {seconds:.2f} s after the start of the host, {exchanges} exchanges")


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        for part in (faults, many_keys):
            path = Path(folder) / part.__name__
            path.mkdir()
            part(path)


if __name__ == "__main__":
    main()
