"""The host dies at every step between a request and its answer, under load: no mark is lost, it starts again alone."""

import signal
import sys
import threading
from pathlib import Path

import pytest

from tests.doubles.crashing_host import FIRST_STEPS, STEPS
from tests.doubles.enclave_proxy import enclave_proxy
from tests.doubles.host_process import BAKER, Host, import_keys, write_config
from tests.doubles.known_keys import FOUR
from tests.doubles.processes import PATIENCE_S, Program, unguarded_enclave
from tests.endurance.kill_host import Counts, Series, all_series, asked_twice, check

#: Steps at which at least one message has left the host: another one must be refused.
LEFT = list(STEPS)[list(STEPS).index("call sent") :]


class MortalHost(Host):
    """A host that dies at a step once it is armed."""

    def __init__(self, config: Path, step: str) -> None:
        self.config = config
        self.armed = config.parent / "armed"
        self.armed.unlink(missing_ok=True)
        entry = [sys.executable, "-m", "tests.doubles.crashing_host", step, str(self.armed)]
        Program.__init__(self, [*entry, "serve", "-c", str(config)])


def load_until_it_dies(host: MortalHost, every: list[Series]) -> None:
    threads = [threading.Thread(target=series.sign_until_killed, args=(host,)) for series in every]
    for thread in threads:
        thread.start()
    host.armed.touch()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert host.process.wait(PATIENCE_S) == -signal.SIGKILL
    host.discard()


def test_death_at_any_step_loses_no_mark(tmp_path: Path) -> None:
    counts, every = Counts(), all_series()
    with unguarded_enclave(tmp_path / "sealing.key") as enclave, enclave_proxy(enclave.address) as proxy:
        config = write_config(tmp_path, proxy.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        host = MortalHost(config, next(iter(STEPS)))
        try:
            host.ready()
            for step, following in zip(STEPS, [*list(STEPS)[1:], "body read"], strict=True):
                load_until_it_dies(host, every)
                proxy.wait_for_silence()
                host = MortalHost(config, following)
                host.ready()
                refused = counts.refused
                for series in every:
                    check(host, series, set(proxy.messages), counts)
                if step in LEFT:
                    assert counts.refused > refused, step
        finally:
            host.discard()
        counts.signed_twice += asked_twice(every, set(proxy.messages))
    assert (counts.signed_twice, counts.lost_marks, counts.not_repeated) == (0, 0, 0)
    assert counts.repeated >= len(STEPS)


@pytest.mark.parametrize("step", FIRST_STEPS)
def test_death_at_the_first_mark_of_rights_loses_none(tmp_path: Path, step: str) -> None:
    counts, every = Counts(), all_series()
    with unguarded_enclave(tmp_path / "sealing.key") as enclave, enclave_proxy(enclave.address) as proxy:
        config = write_config(tmp_path, proxy.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        host = MortalHost(config, step)
        try:
            host.ready()
            host.armed.touch()
            load_until_it_dies(host, every)
            proxy.wait_for_silence()
            assert proxy.messages == []
            host = MortalHost(config, step)
            host.ready()
            for series in every:
                check(host, series, set(proxy.messages), counts)
            assert host.stop() == 0
        finally:
            host.discard()
        counts.signed_twice += asked_twice(every, set(proxy.messages))
    assert (counts.signed_twice, counts.lost_marks, counts.not_repeated) == (0, 0, 0)
