"""The verdicts of `conformance/` that are made from recorded vectors: messages, and exchanges of the enclave's wire.

`python -m tests.contract.conformance_data` writes both files again. The others are written by hand.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2

from tests.conformance.test_protocol_vectors import REFUSED

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
VERDICTS = ROOT / "conformance" / "verdicts"
Verdict = dict[str, Any]

MESSAGES = (
    "Whole messages as a signer is asked to sign them. `{chain}` stands for the 4 bytes of the chain, `{level}` for the 4 "
    "bytes of a level that the runner chooses; `round` is the one that the bytes have. Public test data."
)
WIRE = (
    "Requests to an enclave over the wire of tee-signer, one connection for each verdict, each frame a CBOR item after its "
    "length (4 bytes, big-endian). `value` is the CBOR of what stands under `Ok`, without sealed keys, byte strings where "
    "tee-signer sends arrays of integers. Public test keys."
)
#: Sessions that no other enclave can repeat: they hold blobs of an enclave that does not seal, or are too long.
LEFT_OUT = ("legacy blob in clear", "messages of 4096, 4097 and 32768 bytes")
#: Answers that other signers rightly give in their own way, by session; the reason.
STRICTER = {
    "trailing bytes, then a good call": "tee-signer ignores bytes after the item",
    "unknown field in Sign": "tee-signer ignores fields that it does not know",
}


def by_signatory(group: str, name: str) -> bool:
    """Whether Signatory gave the same answers when the verdict of this name was played to it, for each of its kinds."""
    different = load("signatory-verdicts.json")["different"].get(group, {})
    return not any(each == name or each.startswith(f"{name}: ") for each in different)


def load(name: str) -> dict[str, Any]:
    """Read a file of vectors."""
    data: dict[str, Any] = json.loads((VECTORS / name).read_text())
    return data


def _agreed(name: str, others: list[str]) -> list[str]:
    """Return who agrees on a message: others, and Signatory if it does."""
    return [*others, "signatory"] if by_signatory("messages", name) else [*others]


def _template(message: str) -> tuple[str, str, int]:
    """Return a consensus message with its places for chain and level, what kind it is, and its round."""
    data = bytes.fromhex(message)
    rest = message[10:]
    if data[0] == 0x11:
        # The fitness begins at byte 87, after its length; its level at 96; its round is its end.
        end = 87 + int.from_bytes(data[83:87], "big")
        template = f"11{{chain}}{{level}}{message[18:192]}{{level}}{message[200:]}"
        return template, "block", int.from_bytes(data[end - 4 : end], "big")
    tag = data[37]
    kind = {0x12: "preattestation", 0x13: "attestation"}[data[0]] + ("_with_dal" if tag == 23 else "")
    place = 38 if tag in {40, 41} else 40
    template = f"{message[:2]}{{chain}}{rest[: 2 * place - 10]}{{level}}{message[2 * place + 8 :]}"
    return template, kind, int.from_bytes(data[place + 4 : place + 8], "big")


def _protocol_messages() -> Iterator[Verdict]:
    seen: set[str] = set()
    for item in load("protocols.json")["operations"]:
        name = item["name"]
        if name in seen:
            name += f", {'and'.join(item['protocols'])}"
        seen.add(item["name"])
        verdict: Verdict = {"name": name, "kind": item["kind"]}
        refused = REFUSED.get(item["name"])
        if item["kind"] in {"generic", "pack"}:
            verdict |= {"operations": item["operations"]} if item["operations"] else {}
            verdict["hex"] = item["hex"]
        elif refused:
            verdict["hex"] = item["hex"]
        else:
            verdict["hex"], verdict["kind"], verdict["round"] = _template(item["hex"])
        verdict["answer"] = "refused" if refused else "signed"
        if refused:
            verdict["why"] = refused
        yield verdict | {
            "protocols": item["protocols"],
            "source": item["source"],
            "agreed_by": _agreed(name, [] if refused else item["confirmed_by"]),
        }


def _forged_messages() -> Iterator[Verdict]:
    for number, item in enumerate(load("forged-operations.json")["payloads"]):
        name = f"forged by Taquito, {number}: {item['kind']}"
        yield {
            "name": name,
            "kind": "generic",
            "operations": item["kind"].split("+"),
            "hex": item["hex"],
            "answer": "signed",
            "source": "Taquito's local forger, v21",
            "agreed_by": _agreed(name, ["taquito 21"]),
        }


def _signatory_messages() -> Iterator[Verdict]:
    for item in load("signatory-vectors.json")["payloads"]:
        if item["id"] == "policy_very_long_batch":
            continue
        verdict: Verdict = {"name": f"Signatory's {item['id']}", "kind": item["kind"], "hex": item["hex"]}
        verdict |= {"operations": item["operations"]} if "operations" in item else {}
        if "level" in item:
            verdict["hex"], verdict["kind"], verdict["round"] = _template(item["hex"])
            assert verdict["round"] == item["round"]
        surplus = item["id"] == "pack_sign_bytes"
        verdict["answer"] = "refused" if surplus else "signed"
        if surplus:
            verdict["why"] = "bytes follow the packed value; Signatory ignores them"
        yield verdict | {"source": f"Signatory, {item['source']}", "agreed_by": _agreed(verdict["name"], [])}


def _plain(value: object) -> object:
    """Return a reply in a form that all enclaves share: no sealed keys, byte strings for arrays of integers."""
    if isinstance(value, list) and value:
        return bytes(value)
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items() if name != "encrypted_private_key"}
    return value


def _wire_step(step: Verdict, *, stricter: bool) -> Verdict:
    request = step["request"]
    name = request if isinstance(request, str) else "/".join(request) if isinstance(request, dict) else str(request)
    made: Verdict = {"call": name[:60] or "{}", "request": step["request_hex"]}
    arguments = request.get("Sign") if isinstance(request, dict) else None
    if isinstance(arguments, dict) and "version" not in arguments and "message" in arguments and "Sign" in name:
        return made | {"answer": "any", "why": "tee-signer wants a version; others take its absence for the latest"}
    if "reply_hex" not in step:
        return made | {"answer": "refused", "why": "tee-signer ends the connection, others may answer Err"}
    reply = cbor2.loads(bytes.fromhex(step["reply_hex"]))
    if "Err" in reply:
        made["answer"] = "Err"
        if (text := reply["Err"]["message"]) in {"uninitialized", "already initialized"}:
            made["message"] = text
        return made
    if stricter and name not in {"Initialize", "ImportUnencrypted"}:
        return made | {"answer": "Err"}
    return made | {"answer": "Ok", "value": cbor2.dumps(_plain(reply["Ok"])).hex()}


def _wire_verdicts() -> Iterator[Verdict]:
    for session in load("enclave-transcripts.json")["sessions"]:
        name = session["name"]
        if name.endswith(LEFT_OUT):
            continue
        stricter = name in STRICTER
        steps = [_wire_step(step, stricter=stricter) for step in session["steps"]]
        if name == "wrong types and names":
            # What follows imports a blob in clear.
            steps = steps[:-2]
        if name == "trailing bytes, then a good call":
            steps[1] = {key: value for key, value in steps[1].items() if key != "value"} | {"answer": "Err"}
        yield {
            "name": name,
            **({"why": STRICTER[name]} if stricter else {}),
            "source": "recorded from tee-signer's confidential_signer_mock",
            "agreed_by": [] if stricter else ["tee-signer"],
            "steps": steps,
        }


def _text(group: str, about: str, verdicts: Iterator[Verdict]) -> str:
    """Write a file with a line for each verdict."""
    lines = ",\n  ".join(json.dumps(verdict, ensure_ascii=False) for verdict in verdicts)
    return f'{{\n "group": "{group}",\n "about": {json.dumps(about)},\n "verdicts": [\n  {lines}\n ]\n}}\n'


def messages() -> str:
    """Return the text of `messages.json`."""
    verdicts = [*_protocol_messages(), *_signatory_messages(), *_forged_messages()]
    return _text("messages", MESSAGES, iter(verdicts))


def wire() -> str:
    """Return the text of `wire.json`."""
    return _text("wire", WIRE, _wire_verdicts())


if __name__ == "__main__":
    (VERDICTS / "messages.json").write_text(messages())
    (VERDICTS / "wire.json").write_text(wire())
