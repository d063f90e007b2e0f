"""Signatory's own watermark cases, and where we differ on purpose.

- Its comparison wraps around at 32 bits, so that -2 comes after 2147483647; we refuse negative levels.
- It keeps a mark per kind of attestation; with and without DAL is one right here.
"""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import TypedDict

import base58
import pytest

from enclave_signer.tezos.consensus import Right, parse_consensus
from host_backend.errors import WatermarkRejected
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.rule import MAX_LEVEL, Mark, MarkKey, Verdict, judge
from tests.doubles.watermarks import created, opened, read_marks, some_pkh


class _Mark(TypedDict):
    level: int
    round: int
    hash: str | None


class _Case(TypedDict, total=False):
    level: int
    round: int
    digest: str
    accept: bool


class _Rules(TypedDict):
    stored: _Mark
    cases: list[_Case]


class _Step(TypedDict):
    delegate: int
    kind: str
    level: int
    round: int
    digest: int
    accept: bool


class _Sequence(TypedDict):
    steps: list[_Step]


class _Scenario(TypedDict):
    title: str
    pkh: str
    chain_file: str
    requests: list[str]
    expected_status: list[int]
    file_before: dict[str, dict[str, _Mark]] | None
    file_after: dict[str, dict[str, _Mark]]


class _Concurrency(TypedDict):
    pkh: str
    requests: list[str]
    expected_200: int
    expected_409: int
    file_after_level: int
    file_after_round: int
    file_after_hash_one_of: list[str]


class _Payload(TypedDict):
    id: str
    kind: str
    hex: str


class _Vectors(TypedDict):
    payloads: list[_Payload]
    watermark_rules: list[_Rules]
    watermark_sequence: _Sequence
    watermark_scenarios: list[_Scenario]
    watermark_concurrency: _Concurrency


VECTORS: _Vectors = json.loads((Path(__file__).parents[1] / "vectors" / "signatory-vectors.json").read_bytes())
MESSAGES = {payload["id"]: bytes.fromhex(payload["hex"]) for payload in VECTORS["payloads"]}
#: Of the hashes in Signatory's files ("vh…"); 32 bytes of digest follow.
PREFIX_BYTES = 3
KEY = MarkKey("NetXo5iVw1vBoxM", some_pkh(1), Right.BLOCK)


def digest_of(text: str | None) -> bytes | None:
    return None if text is None else hashlib.blake2b(text.encode(), digest_size=32).digest()


def mark_of(stored: _Mark) -> Mark:
    """A mark of one of Signatory's files."""
    digest = None if stored["hash"] is None else base58.b58decode_check(stored["hash"])[PREFIX_BYTES:]
    return Mark(stored["level"], stored["round"], digest)


def marks_of(content: dict[str, dict[str, _Mark]], chain_id: str) -> dict[MarkKey, Mark]:
    return {
        MarkKey(chain_id, pkh, Right(kind)): mark_of(stored)
        for pkh, kinds in content.items()
        for kind, stored in kinds.items()
    }


def request_of(pkh: str, message: bytes) -> tuple[MarkKey, Mark]:
    parsed = parse_consensus(message)
    digest = hashlib.blake2b(message, digest_size=32).digest()
    return MarkKey(parsed.chain_id, pkh, parsed.kind.right), Mark(parsed.level, parsed.round, digest)


async def status_of(store: WatermarkStore, pkh: str, message: bytes) -> int:
    try:
        await store.advance(*request_of(pkh, message))
    except WatermarkRejected as refusal:
        return refusal.http_status
    return 200


def accepts(stored: Mark, asked: Mark, max_level_jump: int) -> bool:
    try:
        judge(KEY, stored, asked, max_level_jump)
    except WatermarkRejected:
        return False
    return True


RULES = [(rules["stored"], case) for rules in VECTORS["watermark_rules"] for case in rules["cases"] if "accept" in case]


@pytest.mark.parametrize(("stored", "case"), RULES)
def test_rules(stored: _Mark, case: _Case) -> None:
    was = Mark(stored["level"], stored["round"], digest_of(stored["hash"]))
    asked = Mark(case["level"], case["round"], digest_of(case.get("digest", "new")))
    assert accepts(was, asked, MAX_LEVEL) is case["accept"]


def test_rules_do_not_wrap_around() -> None:
    (rules,) = (rules for rules in VECTORS["watermark_rules"] if rules["stored"]["level"] == 20878)
    stored = mark_of(rules["stored"])
    highest, negative, again = (
        Mark(case["level"], case["round"], digest_of(str(index))) for index, case in enumerate(rules["cases"])
    )
    assert not accepts(stored, highest, 5_000_000)
    assert accepts(stored, highest, MAX_LEVEL)
    assert not accepts(highest, negative, MAX_LEVEL)
    assert not accepts(highest, again, MAX_LEVEL)


def test_sequence(tmp_path: Path) -> None:
    rights = {"kind0": Right.BLOCK, "kind1": Right.PREATTESTATION}

    async def scenario() -> None:
        store = await opened(created(tmp_path))
        for step in VECTORS["watermark_sequence"]["steps"]:
            key = MarkKey(KEY.chain_id, some_pkh(step["delegate"]), rights[step["kind"]])
            asked = Mark(step["level"], step["round"], digest_of(str(step["digest"])))
            if step["accept"]:
                assert await store.advance(key, asked) in Verdict
            else:
                with pytest.raises(WatermarkRejected):
                    await store.advance(key, asked)
        await store.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("vector", VECTORS["watermark_scenarios"], ids=lambda vector: str(vector["title"]))
def test_scenarios(vector: _Scenario, tmp_path: Path) -> None:
    chain_id = Path(vector["chain_file"]).stem

    async def scenario() -> list[int]:
        store = await opened(created(tmp_path))
        for key, mark in marks_of(vector["file_before"] or {}, chain_id).items():
            await store.advance(key, mark)
        statuses = [await status_of(store, vector["pkh"], MESSAGES[name]) for name in vector["requests"]]
        await store.aclose()
        return statuses

    assert asyncio.run(scenario()) == vector["expected_status"]
    assert read_marks(tmp_path) == marks_of(vector["file_after"], chain_id)


def test_concurrency(tmp_path: Path) -> None:
    vector = VECTORS["watermark_concurrency"]

    async def scenario() -> list[int]:
        store = await opened(created(tmp_path))
        statuses = await asyncio.gather(
            *(status_of(store, vector["pkh"], MESSAGES[name]) for name in vector["requests"])
        )
        await store.aclose()
        return statuses

    statuses = asyncio.run(scenario())
    assert statuses.count(200) == vector["expected_200"]
    assert statuses.count(409) == vector["expected_409"]
    (after,) = read_marks(tmp_path).values()
    assert after in [
        mark_of({"level": vector["file_after_level"], "round": vector["file_after_round"], "hash": text})
        for text in vector["file_after_hash_one_of"]
    ]


def test_attestations_with_and_without_dal_share_one_mark() -> None:
    plain = MESSAGES["watermark_C3"]
    tag_offset = 37
    assert plain[tag_offset] == 21
    with_dal = plain[:tag_offset] + bytes([23]) + plain[tag_offset + 1 :] + b"\x01"
    (key, without), (key_with_dal, asked) = request_of(KEY.pkh, plain), request_of(KEY.pkh, with_dal)
    assert key == key_with_dal
    assert not accepts(without, asked, MAX_LEVEL)
    assert not accepts(asked, without, MAX_LEVEL)
