"""Bugs that are planted in the product, one at a time: what the worlds find of them is what their silence is worth.

Each is a change of one function's source. A bug whose line is not there any more is an error: plant it again.
"""

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any
from unittest.mock import patch

from tests.worlds.faults import FIRESTORE, FORGETFUL_ENCLAVE, TWO_STORES, Kind


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug.

    Attributes:
        name: The fault.
        module: Where it is planted.
        function: In which function or method of it.
        right: What stands there, once.
        wrong: What stands there instead.
        kind: In which kind of world it shows soonest.
        soon: The seed of a world in which it showed when this was written: looked at before all others.
    """

    name: str
    module: str
    function: str
    right: str
    wrong: str
    kind: Kind = FORGETFUL_ENCLAVE
    soon: int = 0

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have it in the product meanwhile."""
        module = import_module(self.module)
        function = inspect.unwrap(attrgetter(self.function)(module))
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.right) == 1, f"{self.name}: not there as it was planted"
        names: dict[str, Any] = {}
        exec(source.replace(self.right, self.wrong), vars(module), names)
        holder, _, name = self.function.rpartition(".")
        places = [attrgetter(holder)(module)] if holder else list(_users(function, name))
        with _patched(places, name, names[name]):
            yield


def _users(function: object, name: str) -> Iterator[object]:
    """Yield every module that knows a function by its name."""
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(name) is function:
            yield module


@contextmanager
def _patched(places: list[object], name: str, value: object) -> Iterator[None]:
    if not places:
        yield
        return
    with patch.object(places[0], name, value), _patched(places[1:], name, value):
        yield


_FILE = "host_backend.watermark.file."
_CLOUD = "host_backend.watermark.firestore."
_MARKS = "enclave_signer.tezos.marks"

BUGS = (
    Bug("a sync is left out", f"{_FILE}commits", "Commits.write_synced", "self.file.fdatasync()", "pass"),
    Bug(
        "the mark is stored after the signature",
        *("host_backend.signer", "Signer._sign"),
        """\
    if isinstance(request, ConsensusMessage):
        _check_bakes(pkh, key.public_key.key_type)
        await self._mark(pkh, request, message)
        record.end("watermark")
    signature = await vault.sign_with(key, message, version)
""",
        """\
    signature = await vault.sign_with(key, message, version)
    if isinstance(request, ConsensusMessage):
        await self._mark(pkh, request, message)
""",
        FIRESTORE,
    ),
    Bug(
        "the guard allows everything",
        *("enclave_signer.guard", "Guard._advance"),
        *("chains = self._marks.get(public_key)", "return"),
        TWO_STORES,
    ),
    Bug(
        "a repeat is known by its level",
        *(_MARKS, "judge_mark"),
        *("asked.digest == stored.digest and asked.digest is not None", "asked.level == stored.level"),
    ),
    Bug("the round does not count", _MARKS, "is_above", "mark.round > other.round", "mark.round >= 0"),
    Bug(
        "levels are compared as 32 bits without a sign",
        *(_MARKS, "is_above"),
        *("mark.level > other.level or", "0 < (mark.level - other.level) % 2**32 or"),
    ),
    Bug(
        "a damaged copy is replaced by the older mark",
        *(f"{_FILE}slots", "SlotFile.begin"),
        *("known, refused=True", "known"),
        soon=87,
    ),
    Bug(
        "what a batch says of those before it does not count",
        *(f"{_FILE}opening", "_require_nothing_fell_back"),
        *("if not any(", "if False and not any("),
    ),
    Bug("nothing seals the store", f"{_FILE}slots", "SlotFile.seal", "if not self._sealed:", "if False:"),
    Bug("the older of two copies counts", f"{_FILE}opening", "_read_slot", "newest = max(", "newest = min("),
    Bug(
        "a batch does not know what it has allowed",
        *(f"{_FILE}batches", "Batches._judge"),
        *("advanced.get(key) or ", ""),
    ),
    Bug(
        "an error of the disk is taken for success",
        *(f"{_FILE}batches", "Batches.answer"),
        """\
        return self._fail(batch, error)
    except Exception""",
        """\
        return locals().get("outcomes") or self._fail(batch, error)
    except Exception""",
        soon=329,
    ),
    Bug("marks that were read are believed to be durable", f"{_FILE}slots", "SlotFile.begin", "if last:", "if False:"),
    Bug(
        "handles outlive their connection",
        *("host_backend.enclave.in_service", "InService.put"),
        "self._client = client",
        """\
self.handles = client._handles = {**getattr(self, "handles", {}), **client._handles}
    self._client = client""",
        soon=114,
    ),
    Bug(
        "answers go to the newest call",
        *("host_backend.enclave.replies", "ReplyLine._answer"),
        *("call = self._calls[0]", "call = self._calls[-1]"),
    ),
    Bug(
        "a new key is asked for again",
        *("host_backend.enclave.client", "EnclaveClient.generate"),
        "return await self._ask(GenerateAndImport(key_type), SealedKey)",
        """\
try:
        return await self._ask(GenerateAndImport(key_type), SealedKey)
    except Exception:
        return await self._ask(GenerateAndImport(key_type), SealedKey)""",
    ),
    Bug(
        "one chain stands for all",
        *("host_backend.signer", "Signer._mark"),
        *("MarkKey(request.chain_id, ", 'MarkKey("NetXdQprcVkpaWU", '),
    ),
    Bug(
        "an opened key is not compared with its hash",
        *("host_backend.vault.keys", "opened_key"),
        *("if actual != pkh:", "if False:"),
    ),
    Bug(
        "a signature is not verified",
        *("host_backend.vault.verification", "Verification.pass_signature"),
        *("check.verify()", "pass"),
        soon=29,
    ),
    Bug(
        "a transaction writes whatever others wrote",
        *(f"{_CLOUD}transactions", "Transactions._once"),
        *("commit(writes, attempt.transaction)", "commit(writes)"),
        FIRESTORE,
    ),
    Bug(
        "an answer that was lost is taken for success",
        *(f"{_CLOUD}transactions", "Transactions._once"),
        "await self._database.commit(writes, attempt.transaction)",
        """\
try:
                await self._database.commit(writes, attempt.transaction)
            except OutcomeUnknown:
                pass""",
        FIRESTORE,
        soon=67,
    ),
    Bug(
        "one attestation document is read",
        *(f"{_CLOUD}layout", "Layout.present"),
        *("for kind in KINDS[key.right]]", "for kind in KINDS[key.right]][:1]"),
        FIRESTORE,
    ),
)
