"""The metrics, under Signatory's names where they are sane.

- Values of labels are bounded: keys that are configured, chains up to a limit, words of this program. Nothing that a
  client makes up becomes a label, neither does an address of the network.
- A series begins with its first event. Histograms, of a dozen lines each, are not kept for each key, unless asked for.
- Counters are kept for each key up to a number of series, so that a page has some megabytes whatever keys and clients
  do; what would be more counts as the key `other`.
- Counting costs the hot path a few dictionary look-ups.

Source: Signatory's `pkg/metrics`; `docs/signatory-compatibility.md` has the differences.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, time
from typing import Final, NamedTuple

from enclave_signer.tezos import ConsensusMessage
from host_backend.errors import HookUnavailable, PolicyDenied, StoreUnavailable, WatermarkRejected
from host_backend.operations.messages import GenericMessage
from host_backend.record import VAULT_DRIVER, Record

#: Milliseconds: Signatory's bounds, and finer ones below and between.
MILLISECONDS: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0, 10000.0, 100000.0)
#: Seconds per stage, from half a millisecond.
STAGE_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
#: Seconds of a watermark: Signatory's bounds.
WATERMARK_SECONDS: Final = tuple(0.001 * 2**power for power in range(10))
#: Seconds of one write to the disk: Signatory's bounds.
WRITE_SECONDS: Final = tuple(0.0001 * 2**power for power in range(14))
#: Chains with counts of their own; there is one mainnet, and a few test networks.
MAX_CHAINS = 16
#: Rounds with counts of their own; a block that needs more than a few is news already.
MAX_ROUNDS = 20
#: Series of a counter that name a key: enough for some hundred keys, in half a megabyte.
MAX_SERIES = 4096
#: Series of signatures that name a key: three kinds for each of 10 000 keys, in five megabytes.
MAX_SIGNING_SERIES = 32768
#: Series of requests by status that name a key: one status for each of 10 000 keys, and some more.
MAX_HANDLED_SERIES = 16384
#: Series of rounds that name a key: a dozen rounds of three kinds for each of 200 keys.
MAX_ROUND_SERIES = 8192
#: What counts as the value of a label once others have all the places.
_OTHER = "other"

Labels = tuple[str, ...]


class LastSigned(NamedTuple):
    """What a key signed last.

    Attributes:
        kind: Of the message.
        level: Of a consensus message; None for others.
        round: As above.
        at: Seconds since 1970.
    """

    kind: str
    level: int | None
    round: int | None
    at: float


class Counters:
    """A counter for every combination of labels that occurred.

    Args:
        name: Of the family.
        help_: What it tells.
        labels: Their names.
        limit: Series from which on a new one counts as the key `other`.
    """

    __slots__ = ("_key", "_limit", "help", "labels", "name", "values")

    def __init__(self, name: str, help_: str, *labels: str, limit: int = MAX_SERIES) -> None:
        self.name, self.help, self.labels = name, help_, labels
        self._limit = limit
        self._key = labels.index("address") if "address" in labels else None
        self.values: dict[Labels, int] = {}

    def add(self, *labels: str, by: int = 1) -> None:
        """Count."""
        count = self.values.get(labels)
        if count is None:
            labels = self._bounded(labels)
            count = self.values.get(labels, 0)
        self.values[labels] = count + by

    def _bounded(self, labels: Labels) -> Labels:
        if self._key is None or len(self.values) < self._limit:
            return labels
        return (*labels[: self._key], _OTHER, *labels[self._key + 1 :])


class Histograms:
    """A histogram for every combination of labels that occurred."""

    __slots__ = ("bounds", "help", "labels", "name", "values")

    def __init__(self, name: str, help_: str, bounds: Sequence[float], *labels: str) -> None:
        self.name, self.help, self.bounds, self.labels = name, help_, bounds, labels
        #: How many fell below each bound and above the one before; how many above all; their sum.
        self.values: dict[Labels, list[float]] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Count a value."""
        row = self.values.get(labels)
        if row is None:
            row = self.values[labels] = [0] * (len(self.bounds) + 2)
        row[bisect_left(self.bounds, value)] += 1
        row[-1] += value


class Metrics:
    """Counts requests. Longer than most: an attribute for each thing that is counted.

    Args:
        addresses: The keys that are configured; asked at every request, as they may change.
        backend: The name of the watermark store.
        per_key: Whether the histograms of requests are kept for each key, as Signatory does.
    """

    def __init__(self, addresses: Callable[[], Collection[str]], backend: str, *, per_key: bool = False) -> None:
        # Longer than most: see above.
        self._addresses = addresses
        self._backend = backend
        self._per_key = per_key
        key = ("address",) if per_key else ()
        self._chains: set[str] = set()
        #: By the hash of the key, as far as it is configured.
        self.last_signed: dict[str, LastSigned] = {}
        self.operations = Counters(
            "signing_ops",
            "Total number of signing operations completed.",
            *("address", "vault", "op", "kind", "chain_id"),
            limit=MAX_SIGNING_SERIES,
        )
        self.vault_ms = Histograms(
            "vault_sign_request_duration_milliseconds",
            "Vaults signing requests latencies in milliseconds",
            MILLISECONDS,
            *("vault", *key, "op", "chain_id"),
        )
        self.vault_errors = Counters(
            "vault_sign_request_error", "Vaults signing requests error count", "vault", "code", "chain_id"
        )
        self.handled_ms = Histograms(
            "sign_handler_request_duration_milliseconds",
            "Total processing time for sign handler requests in milliseconds",
            MILLISECONDS,
            *(*key, "status"),
        )
        self.handled_requests = Counters(
            "sign_handler_requests",
            "Total number of sign handler requests",
            *("address", "status"),
            limit=MAX_HANDLED_SERIES,
        )
        self.rounds = Counters(
            "consensus_round",
            "Total consensus signing operations by round",
            *("address", "operation_type", "chain_id", "round"),
            limit=MAX_ROUND_SERIES,
        )
        self.violations = Counters(
            "policy_violation", "Total count of policy violations", "violation_type", "address", "operation_type"
        )
        self.rejections = Counters(
            "watermark_rejection",
            "Total count of operations rejected due to watermark protection",
            *("address", "operation_type", "chain_id", "reason"),
        )
        self.authentications = Counters(
            "authentication_failure", "Total count of authentication failures", "status", "auth_method"
        )
        self.marks = Counters(
            "watermark_operations", "Total number of watermark operations", "result", "backend", "request_type"
        )
        self.mark_seconds = Histograms(
            "watermark_operation_duration_seconds",
            "Watermark operation duration in seconds",
            WATERMARK_SECONDS,
            "backend",
        )
        self.writes = Counters(
            "watermark_io_operations",
            "Total number of watermark backend I/O operations",
            *("backend", "operation", "table_name", "result"),
        )
        self.write_seconds = Histograms(
            "watermark_io_latency_seconds",
            "Watermark backend I/O latency in seconds",
            WRITE_SECONDS,
            *("backend", "operation", "table_name"),
        )
        self.proofs = Counters("proofs_of_possession", "Total number of proofs of possession made", "address")
        self.stages = Histograms(
            "signing_stage_duration_seconds", "Duration of the stages of a request in seconds", STAGE_SECONDS, "stage"
        )

    def handled(self, pkh: str, status: int, seconds: float) -> None:
        """Count a request for a signature, whatever became of it."""
        address, code = self._address(pkh), str(status)
        self.handled_requests.add(address, code)
        self.handled_ms.observe(seconds * 1e3, *self._key(address), code)

    def not_authenticated(self, method: str, status: int) -> None:
        """Count a caller who was not who it should be, or did not say."""
        self.authentications.add(str(status), method)

    @contextmanager
    def writing_marks(self) -> Iterator[None]:
        """Count a write of marks to the disk, in the store's thread; marks that waited together are one write."""
        labels = (self._backend, "write", "")
        began, result = perf_counter(), "error"
        try:
            yield
            result = "success"
        finally:
            self.writes.add(*labels, result)
            self.write_seconds.observe(perf_counter() - began, *labels)

    def ended(self, record: Record) -> None:
        """Count a request that came to the signer."""
        for stage, seconds in record.stages:
            self.stages.observe(seconds, stage)
        # Only what was signed makes a chain known: refused messages may name any.
        known = record.error is None
        address, chain = self._address(record.pkh), self._chain(record.chain_id, new_is_known=known)
        if record.error is not None:
            self._count_refusal(record, address, chain)
        elif record.message is None:
            self.proofs.add(address)
        else:
            self._count_signature(record, address, chain)

    def _count_signature(self, record: Record, address: str, chain: str) -> None:
        kind, message = record.kind, record.message
        taken = dict(record.stages)
        milliseconds = (taken["sign"] + taken.get("watermark", 0.0)) * 1e3
        self.vault_ms.observe(milliseconds, VAULT_DRIVER, *self._key(address), kind, chain)
        level, round_ = (message.level, message.round) if isinstance(message, ConsensusMessage) else (None, None)
        self.last_signed[address] = LastSigned(kind, level, round_, time())
        if isinstance(message, GenericMessage):
            for operation in message.operations:
                self.operations.add(address, VAULT_DRIVER, kind, operation.partition(":")[0], chain)
            return
        self.operations.add(address, VAULT_DRIVER, kind, kind, chain)
        if isinstance(message, ConsensusMessage):
            self.rounds.add(address, kind, chain, str(min(message.round, MAX_ROUNDS)))
            self._count_mark("success", kind, taken["watermark"])

    def _count_refusal(self, record: Record, address: str, chain: str) -> None:
        error, kind = record.error, record.kind
        if isinstance(error, PolicyDenied):
            self.violations.add(error.violation, address, kind)
            return
        taken = dict(record.stages)
        if error is None or "check" not in taken or isinstance(error, HookUnavailable):
            return
        self.vault_errors.add(VAULT_DRIVER, str(error.http_status), chain)
        marked = "watermark" in taken
        if isinstance(error, WatermarkRejected):
            # What the store allowed, the enclave's own guard may still refuse.
            self.rejections.add(address, kind, chain, "enclave guard" if marked else "watermark validation failed")
        if marked:
            self._count_mark("success", kind, taken["watermark"])
        elif isinstance(error, WatermarkRejected | StoreUnavailable):
            result = "rejected" if isinstance(error, WatermarkRejected) else "error"
            self._count_mark(result, kind, record.seconds_in_stage)

    def _count_mark(self, result: str, kind: str, seconds: float) -> None:
        self.marks.add(result, self._backend, kind)
        self.mark_seconds.observe(seconds, self._backend)

    def _address(self, pkh: str) -> str:
        return pkh if pkh in self._addresses() else "unknown"

    def _key(self, address: str) -> Labels:
        return (address,) if self._per_key else ()

    def _chain(self, chain: str, *, new_is_known: bool) -> str:
        if not chain or chain in self._chains:
            return chain
        if not new_is_known or len(self._chains) >= MAX_CHAINS:
            return _OTHER
        self._chains.add(chain)
        return chain

    def tables(self) -> Iterator[Counters | Histograms]:
        """Yield everything that is counted."""
        yield from (each for each in vars(self).values() if isinstance(each, Counters | Histograms))
