"""Kills a host in the middle of its transactions, again and again: `python -m tests.endurance.firestore_kills N`.

Two hosts share one store in Firestore. Sixteen clients of the first one sign ascending levels at once; it is killed with
SIGKILL when the service has begun a transaction, has read for one, is about to write, or has written and not answered.
Then one of the two is asked, the survivor and the one that was started again in turns: for half of the clients for the
last message again, for the other half for another message at every level first.

- The same message is never refused where no other was allowed, and gets the same signature.
- Wherever a message had left a host for the enclave, another one at its level is refused.
- Of all messages of one key, right and level, the enclave is asked for one only.
- After every kill each document is whole, and holds the digest of a message that a client has sent.

Both ways in which Firestore may keep transactions apart are tried, one after the other.
"""

import random
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from pathlib import Path

from enclave_signer.tezos import parse_consensus
from host_backend.watermark.rule import Mark, MarkKey
from tests.doubles.enclave_proxy import EnclaveProxy, enclave_proxy
from tests.doubles.google.clients import signatory_marks
from tests.doubles.google.firestore import FirestoreDouble, no_faults, running_firestore
from tests.doubles.google.site import IN_FIRESTORE, Site
from tests.doubles.host_process import VAULT, Host
from tests.doubles.known_keys import FOUR
from tests.doubles.processes import PATIENCE_S, unguarded_enclave
from tests.endurance.kill_host import SEED, Counts, Series, all_series, asked_twice, check

#: The call of the service at which a host is killed, and whether that is before it is done.
MOMENTS = (("BeginTransaction", False), ("BatchGetDocuments", False), ("Commit", True), ("Commit", False))
#: Such calls to let pass before the kill, at most.
LONGEST_RUN_CALLS = 80


@dataclass
class KillCounts(Counts):
    """What happened to marks, and what must never happen to documents."""

    #: Marks that were written, and whose host never sent the message to the enclave.
    only_written: int = 0
    #: Documents with a digest that is of no message that was sent at their level.
    not_whole: int = 0

    @property
    def failures(self) -> tuple[int, int, int, int]:
        """What must all be 0."""
        return self.lost_marks, self.not_repeated, self.signed_twice, self.not_whole


def kill_at(double: FirestoreDouble, host: Host, method: str, *, before: bool, calls: int) -> None:
    """Have a host killed at the last of so many calls of the service."""
    seen = count(1)

    def reached(called: str) -> None:
        if called == method and next(seen) == calls:
            host.process.kill()

    if before:
        double.faults = reached
    else:
        double.on_done = reached


def load_and_kill(double: FirestoreDouble, host: Host, every: Sequence[Series], proxy: EnclaveProxy) -> None:
    """Let every series sign until the host is dead, and all that it has sent is known."""
    threads = [threading.Thread(target=series.sign_until_killed, args=(host,)) for series in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    host.discard()
    proxy.wait_for_silence()
    double.faults, double.on_done = no_faults, lambda _method: None


def check_documents(marks: dict[MarkKey, Mark], every: Sequence[Series], asked: set[bytes], counts: KillCounts) -> None:
    """Compare every mark, of which both documents are alike, with what was sent."""
    for series in every:
        place = parse_consensus(series.message(1, 0))
        mark = marks.get(MarkKey(place.chain_id, series.key.pkh, place.kind.right))
        if mark is None:
            continue
        sent = {blake2b(message, digest_size=32).digest(): message for message in _both(series, mark.level)}
        counts.not_whole += mark.digest not in sent or not 0 < mark.level <= series.level
        counts.only_written += mark.digest in sent and sent[mark.digest] not in asked


def _both(series: Series, level: int) -> tuple[bytes, bytes]:
    return series.message(level, 0), series.message(level, 1)


def check_repeat(host: Host, series: Series, counts: KillCounts) -> None:
    """Ask for the last message again, and then for another one."""
    counts.requests += len(series.sent)
    counts.signatures += len(series.signed)
    answer = host.sign(series.key.pkh, series.sent[series.level])
    repeated = answer.status == 200 and answer.signature == series.signed.get(series.level, answer.signature)
    counts.repeated += repeated
    counts.not_repeated += not repeated
    counts.lost_marks += host.sign(series.key.pkh, series.message(series.level, 1)).status != 409


@contextmanager
def two_hosts(double: FirestoreDouble, folder: Path) -> Iterator[tuple[tuple[Site, EnclaveProxy], ...]]:
    """Give two configurations for one store and one enclave, and the proxy between each of them and the enclave."""
    with ExitStack() as stack:
        enclave = stack.enter_context(unguarded_enclave(folder / "sealing.key"))
        found = []
        for name in ("killed", "survivor"):
            proxy = stack.enter_context(enclave_proxy(enclave.address))
            site = Site(double, folder / name, proxy)
            site.configure(IN_FIRESTORE, *(key.pkh for key in FOUR))
            found.append((site, proxy))
        yield tuple(found)


def run(kills: int, folder: Path, *, pessimistic: bool) -> KillCounts:
    """Kill a host so many times, and count.

    Args:
        kills: How many.
        folder: For the folders of both hosts.
        pessimistic: Whether readers lock, and writers wait for them.
    """
    chance, counts, every = random.Random(SEED), KillCounts(), all_series()
    with (
        running_firestore(pessimistic=pessimistic) as double,
        two_hosts(double, folder) as ((killed, proxy), (surviving, other_proxy)),
    ):
        # The service lets go of what a dead host has locked after a minute.
        double.documents.idle_s = 0.5
        killed.command("import", "--vault", VAULT, *(key.secret for key in FOUR))
        store_id = double.names()["watermark/enclave-host"].fields["id"].string_value
        with surviving.running("--accept-store", store_id) as survivor:
            for number in range(kills):
                method, before = MOMENTS[number % len(MOMENTS)]
                with killed.running() as host:
                    kill_at(double, host, method, before=before, calls=chance.randint(1, LONGEST_RUN_CALLS))
                    load_and_kill(double, host, every, proxy)
                counts.kills += 1
                asked = {*proxy.messages, *other_proxy.messages}
                check_documents(signatory_marks(double), every, asked, counts)
                with ExitStack() as stack:
                    # Every moment comes with either host, and with either half of the clients.
                    again = number // len(MOMENTS) % 2 == 1
                    checking = stack.enter_context(killed.running()) if again else survivor
                    for series in every:
                        if (series.number + number) % 2:
                            check(checking, series, asked, counts)
                        else:
                            check_repeat(checking, series, counts)
        counts.signed_twice += asked_twice(every, {*proxy.messages, *other_proxy.messages})
    return counts


def main() -> None:
    """Run in both ways, print the counts, and fail when anything happened that must not."""
    failed = False
    for pessimistic in (False, True):
        with tempfile.TemporaryDirectory(prefix="firestore-kills-") as folder:
            counts = run(int(sys.argv[1]) if len(sys.argv) > 1 else 50, Path(folder), pessimistic=pessimistic)
        print(f"{'locks' if pessimistic else 'aborts'}:\n{counts}", flush=True)
        failed |= any(counts.failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
