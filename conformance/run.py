#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Play the verdicts beside this file to a Tezos remote signer, and say which hold. Longer than most: one file, to be copied.

- Only a throw-away key: it signs blocks and attestations of made-up chains, and operations that move funds.
- Python's standard library is enough. With `cryptography` installed, signatures are verified, except those of tz4 keys.
- Every level of a run lies above those of the runs before it, so that the same signer can be asked again.

Exit codes: 0 every verdict holds, 1 at least one is broken, 2 they could not be played.
"""

import argparse
import hashlib
import http.client
import json
import re
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

    CAN_VERIFY = True
except ImportError:  # pragma: no cover
    CAN_VERIFY = False

Verdict = dict[str, Any]

GROUPS = ("messages", "sequences", "http", "wire", "frames")
#: Chains that no network has: two whose marks are compared, and two where a broken signer may burn its marks.
CHAINS = {"main": "c0f0a001", "other": "c0f0a002", "levels": "c0f0a003", "rounds": "c0f0a004"}
#: Levels between two tries to get above the marks of earlier runs; a run takes fewer.
LEVELS_OF_A_RUN = 1000
MAX_RUNS = 5000
#: The shape whose mark a kind of message moves.
RIGHTS = {"attestation_with_dal": "attestation"}
MAX_ANSWER_BYTES = 1 << 20

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
#: By the beginning of a hash: tag and prefix of the hash, prefixes of the public key and of signatures.
CURVES = {
    "tz1": (0, "06a19f", "0d0f25d9", "09f5cd8612"),
    "tz2": (1, "06a1a1", "03fee256", "0d7365133f"),
    "tz3": (2, "06a1a4", "03b28b7f", "36f02c34"),
    "tz4": (3, "06a1a6", "069587cc", "28ab40cf"),
}
GENERIC_SIGNATURE = "04822b"
#: Half the order of secp256k1: Octez takes no signature whose second number is above it.
SECP256K1_LOW_S = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class CannotPlay(Exception):
    """Verdicts cannot be played to this signer at all; the text says why."""


def base58_decode(text: str) -> bytes:
    """Return the bytes of a base58 text with a checksum; ValueError if it is not one."""
    number = 0
    for letter in text:
        number = number * 58 + ALPHABET.index(letter)
    zeros = len(text) - len(text.lstrip("1"))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    if hashlib.sha256(hashlib.sha256(data[:-4]).digest()).digest()[:4] != data[-4:]:
        raise ValueError(f"the checksum of {text} is wrong")
    return data[:-4]


def unprefixed(text: str, *prefixes: str) -> bytes:
    """Return what follows one of these prefixes (hex) in a base58 text; ValueError if none is there."""
    data = base58_decode(text)
    for prefix in prefixes:
        if data.startswith(bytes.fromhex(prefix)):
            return data[len(prefix) // 2 :]
    raise ValueError(f"{text} is not of the kind that was expected")


@dataclass
class Key:
    """The key under test."""

    pkh: str
    public_key: bytes = b""
    verified: int = 0
    unverified: int = 0

    def __post_init__(self) -> None:
        """Read the hash."""
        if self.pkh[:3] not in CURVES:
            raise CannotPlay(f"{self.pkh} is not the hash of a key: it begins with tz1, tz2, tz3 or tz4")
        self.tag, prefix, self.key_prefix, self.signature_prefix = CURVES[self.pkh[:3]]
        try:
            self.hash = unprefixed(self.pkh, prefix)
        except ValueError as error:
            raise CannotPlay(str(error)) from error

    @property
    def why_unverified(self) -> str | None:
        """Why signatures are not verified; None if they are."""
        if self.tag == 3:
            return "signatures of tz4 keys need a library for BLS12-381"
        return None if CAN_VERIFY else "the Python package cryptography is not installed"

    def take(self, text: str) -> None:
        """Keep the public key that the signer names, if it is the one of this hash."""
        raw = unprefixed(text, self.key_prefix)
        if hashlib.blake2b(raw, digest_size=20).digest() != self.hash:
            raise ValueError(f"{text} is not the public key of {self.pkh}")
        self.public_key = raw

    def check(self, signature: bytes, message: bytes) -> str | None:
        """Say what is wrong with a signature; None if nothing is known to be."""
        if len(signature) != (96 if self.tag == 3 else 64):
            return f"a signature of {len(signature)} bytes"
        if self.why_unverified is not None:
            self.unverified += 1
            return None
        digest = hashlib.blake2b(message, digest_size=32).digest()
        try:
            if self.tag == 0:
                ed25519.Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, digest)
            else:
                curve: ec.EllipticCurve = ec.SECP256K1() if self.tag == 1 else ec.SECP256R1()
                numbers = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                if self.tag == 1 and numbers[1] > SECP256K1_LOW_S:
                    return "a signature with a high S, which Octez does not take"
                ec.EllipticCurvePublicKey.from_encoded_point(curve, self.public_key).verify(
                    encode_dss_signature(*numbers), digest, ec.ECDSA(Prehashed(hashes.SHA256()))
                )
        except InvalidSignature:
            return "a signature that does not verify"
        self.verified += 1
        return None

    def check_text(self, text: object, message: bytes) -> str | None:
        """Say what is wrong with a signature in base58; None if nothing is known to be."""
        try:
            return self.check(unprefixed(str(text), self.signature_prefix, GENERIC_SIGNATURE), message)
        except ValueError:
            return "no signature of this kind of key"


@dataclass
class Answer:
    """What came back: `signed`, `signed wrongly`, `refused`, `not allowed` by the policy, or `broken`; and in words."""

    outcome: str
    words: str


@dataclass
class Http:
    """The signer under test, over HTTP; one connection, made again when the signer has closed it."""

    url: str
    key: Key
    timeout_s: float
    connection: http.client.HTTPConnection | None = None

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CannotPlay(f"{self.url} is not the URL of a signer: http://HOST:PORT")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname, parts.port, timeout=self.timeout_s)

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        """Return status and body; OSError or HTTPException when no answer came."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        path = urlsplit(self.url).path.rstrip("/") + path
        while True:
            fresh = self.connection is None
            self.connection = self.connection or self._connect()
            try:
                self.connection.request(method, path, body, headers)
                response = self.connection.getresponse()
                return response.status, response.read(MAX_ANSWER_BYTES).decode(errors="replace")
            except (OSError, http.client.HTTPException):
                self.close()
                if fresh:
                    raise

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def sign(self, message: bytes) -> Answer:
        """Have a message signed."""
        try:
            status, body = self.ask("POST", f"/keys/{self.key.pkh}", json.dumps(message.hex()))
        except (OSError, http.client.HTTPException) as error:
            return Answer("broken", f"no answer ({error or type(error).__name__})")
        if status == 200:
            wrong = self.key.check_text(member(body, "signature"), message)
            return Answer("signed", "signed") if wrong is None else Answer("signed wrongly", wrong)
        if status == 401:
            raise CannotPlay("the signer wants requests authenticated; switch that off for the test")
        words = f"refused ({status}: {body.strip()[:160]})"
        if status == 403:
            return Answer("not allowed", words)
        # octez-signer answers 500 to what it refuses.
        if 400 <= status < 500 or (status == 500 and is_error_list(body)):
            return Answer("refused", words)
        return Answer("broken", f"status {status}: {body.strip()[:160]}")

    def public_key(self) -> None:
        """Find the public key of the key under test."""
        try:
            status, body = self.ask("GET", f"/keys/{self.key.pkh}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CannotPlay(f"no answer from {self.url}: {error}") from error
        if status != 200:
            raise CannotPlay(f"the signer does not have {self.key.pkh}: {status} {body.strip()[:160]}")
        try:
            self.key.take(str(member(body, "public_key")))
        except ValueError as error:
            raise CannotPlay(f"GET /keys/{self.key.pkh}: {error}") from error


def parsed(body: str) -> Any:
    """Return a JSON value; None if the text is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def member(body: str, name: str) -> object:
    """Return a member of a JSON object; None if there is none."""
    value = parsed(body)
    return value.get(name) if isinstance(value, dict) else None


def is_error_list(body: str) -> bool:
    """Whether a body has the form of Octez' errors."""
    value = parsed(body)
    return isinstance(value, list) and value != [] and all(isinstance(item, dict) and "id" in item for item in value)


def is_authorized_keys(body: str) -> bool:
    """Whether a body says which keys may ask, or that every client may."""
    value = parsed(body)
    return isinstance(value, dict) and isinstance(value.get("authorized_keys", []), list)


#: Forms of bodies that can be told without the key.
FORMS: dict[str, Callable[[str], bool]] = {"errors": is_error_list, "authorized_keys": is_authorized_keys}


@dataclass
class Result:
    """What came of one verdict: `holds`, `broken`, `not allowed` or `not played`; and in words."""

    group: str
    name: str
    outcome: str
    detail: str = ""
    source: str = ""
    agreed_by: list[str] = field(default_factory=list)


class Broken(Exception):
    """A verdict does not hold; the text says where."""


class NotAllowed(Exception):
    """The signer's policy refuses what the verdict needs."""


@dataclass
class Levels:
    """Levels that no earlier run has used."""

    next: int

    def take(self, count: int) -> int:
        """Return the first of so many levels of which the rest of the run takes none."""
        first, self.next = self.next, self.next + count
        return first


@dataclass
class Player:
    """Plays the groups of verdicts, one after the other."""

    verdicts: Path
    key: Key | None
    http: Http | None
    wire: str | None
    octez: str | None
    timeout_s: float
    agreed_only: bool
    levels: Levels | None = None

    def load(self, group: str) -> list[Verdict]:
        """Read the verdicts of a group."""
        return [verdict for verdict in self.read(group)["verdicts"] if verdict["agreed_by"] or not self.agreed_only]

    def read(self, group: str) -> Any:
        """Read a file of verdicts."""
        try:
            return json.loads((self.verdicts / f"{group}.json").read_text())
        except (OSError, ValueError) as error:
            raise CannotPlay(f"verdicts that cannot be read: {error}") from error

    @cached_property
    def shapes(self) -> dict[str, str]:
        """Templates of consensus messages, by kind."""
        shapes: dict[str, str] = self.read("sequences")["shapes"]
        return shapes

    def made(self, step: Verdict, base: int) -> bytes:
        """Return the message that a step describes."""
        level = step["absolute_level"] if "absolute_level" in step else base + step.get("level", 0)
        text = self.shapes[step["message"]]
        text = text.replace("{chain}", CHAINS[step.get("chain", "main")]).replace("{level}", f"{level:08x}")
        text = text.replace("{round}", f"{step.get('round', 0):08x}")
        text = text.replace("{payload}", f"{step.get('payload', 1):02x}" * 32)
        message = step.get("first_byte", text[:2]) + text[2:] + step.get("after", "")
        return bytes.fromhex(message[: len(message) - 2 * step.get("cut", 0)])

    def find_levels(self, signer: Http) -> None:
        """Sign one message of each right on two chains, at a level above the marks of earlier runs."""
        level = LEVELS_OF_A_RUN
        for chain in ("main", "other"):
            for right in ("block", "preattestation", "attestation"):
                probe = {"message": right, "chain": chain}
                while not (answer := signer.sign(self.made(probe, level))).outcome.startswith("signed"):
                    if answer.outcome == "not allowed":
                        return
                    if answer.outcome == "broken" or level > MAX_RUNS * LEVELS_OF_A_RUN:
                        raise CannotPlay(f"no {right} is signed at level {level}, the first of a run: {answer.words}")
                    level += LEVELS_OF_A_RUN
        self.levels = Levels(level + 1)

    def play(self, groups: Sequence[str]) -> Iterator[Result]:
        """Play these groups."""
        plays: dict[str, Callable[[Verdict], None]] = {
            "messages": self.play_message,
            "sequences": self.play_sequence,
            "http": self.play_exchange,
            "wire": self.play_wire,
            "frames": self.play_frames,
        }
        for group in groups:
            if missing := self.missing(group):
                yield Result(group, "", "not played", missing)
                continue
            for verdict in each_kind(self.load(group)):
                outcome, detail = outcome_of(plays[group], verdict)
                yield Result(group, verdict["name"], outcome, detail, verdict["source"], verdict["agreed_by"])

    def missing(self, group: str) -> str | None:
        """Say what a group needs that was not given; None if nothing."""
        if group == "wire":
            return None if self.wire else "needs --wire"
        if group == "frames" and not self.octez:
            return "needs --octez"
        return None if self.http else "needs the URL of a signer"

    def signer(self) -> Http:
        """Return the signer, which every group except `wire` has."""
        assert self.http is not None
        return self.http

    def take_levels(self, count: int) -> int:
        """Take levels for a verdict."""
        if self.levels is None:
            raise NotAllowed("the signer does not let this key sign blocks, preattestations and attestations")
        return self.levels.take(count)

    def ask(self, message: bytes, answer: str, what: str) -> None:
        """Have a message signed, and compare with the answer that it must get."""
        expect(self.signer().sign(message), answer, what)

    def play_message(self, verdict: Verdict) -> None:
        """Ask for one message; if it is of a consensus kind, find out which kind, level and round the signer read."""
        text = verdict["hex"]
        if "{level}" not in text:
            self.ask(bytes.fromhex(text), verdict["answer"], "the message")
            return
        level = self.take_levels(1)
        message = bytes.fromhex(text.replace("{chain}", CHAINS["main"]).replace("{level}", f"{level:08x}"))
        self.ask(message, verdict["answer"], "the message")
        twin = {"message": RIGHTS.get(verdict["kind"], verdict["kind"]), "round": verdict["round"], "payload": 0x77}
        self.ask(self.made(twin, level), "refused", f"another {twin['message']} of the same level and round")
        twin["round"] += 1
        self.ask(self.made(twin, level), "signed", f"another {twin['message']} of the next round")

    def play_sequence(self, verdict: Verdict) -> None:
        """Ask for messages one after the other, or all at once."""
        steps = verdict["steps"]
        base = self.take_levels(1 + max(step.get("level", 0) for step in steps))
        if "at_once" in verdict:
            self.play_at_once([self.made(steps[0] | {"payload": n + 1}, base) for n in range(verdict["at_once"])])
            return
        broken = []
        for number, step in enumerate(steps, start=1):
            level = step.get("absolute_level", base + step.get("level", 0))
            what = f"step {number}: {step['message']}, level {level}, round {step.get('round', 0)}"
            try:
                self.ask(self.made(step, base), step["answer"], what)
            except Broken as reason:
                # What follows shows what comes of it.
                broken.append(str(reason))
        if broken:
            raise Broken("\n  ".join(broken))

    def play_at_once(self, messages: list[bytes]) -> None:
        """Ask for messages of one right over as many connections: one of them is signed."""
        known = self.signer()
        others = [Http(known.url, known.key, known.timeout_s) for _ in messages]
        with ThreadPoolExecutor(len(messages)) as pool:
            answers = list(pool.map(Http.sign, others, messages))
        for other in others:
            other.close()
        for answer in answers:
            if answer.outcome == "not allowed":
                raise NotAllowed(answer.words)
            if answer.outcome not in {"signed", "refused"}:
                raise Broken(answer.words)
        signed = sum(answer.outcome == "signed" for answer in answers)
        if signed != 1:
            raise Broken(f"{signed} of {len(messages)} messages of one level and round were signed, expected 1")

    def play_exchange(self, verdict: Verdict) -> None:
        """Make one HTTP request, and compare status and form of the answer."""
        signer = self.signer()
        body = verdict["body"]
        status, got = signer.ask(verdict["method"], verdict["path"].replace("{key}", signer.key.pkh), body)
        if status == 403 and 403 not in verdict["status"]:
            raise NotAllowed(f"status {status}: {got.strip()[:160]}")
        if status not in verdict["status"]:
            expected = " or ".join(map(str, verdict["status"]))
            raise Broken(f"status {status}, expected {expected}: {got.strip()[:160]}")
        form = verdict["form"]
        if form == "signature" and body is not None:
            if wrong := signer.key.check_text(member(got, "signature"), bytes.fromhex(json.loads(body))):
                raise Broken(wrong)
        elif form == "public_key":
            signer.key.take(str(member(got, "public_key")))
        elif form in FORMS and not FORMS[form](got):
            raise Broken(f"the body does not have the form of {form.replace('_', ' ')}: {got.strip()[:160]}")

    def play_wire(self, verdict: Verdict) -> None:
        """Send frames to the enclave over one connection, and compare what it answers."""
        assert self.wire is not None
        with connect(self.wire, self.timeout_s) as stream:
            for number, step in enumerate(verdict["steps"], start=1):
                request = bytes.fromhex(step["request"])
                stream.sendall(struct.pack(">I", len(request)) + request)
                data = receive(stream, ">I")
                what = f"step {number}, {step['call']}"
                if data is None:
                    if step["answer"] == "refused":
                        return
                    raise Broken(f"{what}: the connection was closed, expected {step['answer']}")
                compare_reply(cbor_item(data), step, what)

    def play_frames(self, verdict: Verdict) -> None:
        """Send Octez' frames over one connection, between them requests over HTTP, and compare what comes back."""
        assert self.octez is not None
        base = self.take_levels(1) if any("message" in step for step in verdict["steps"]) else 0
        with connect(self.octez, self.timeout_s) as stream:
            for number, step in enumerate(verdict["steps"], start=1):
                self.play_frame(stream, step, base, f"step {number}")

    def play_frame(self, stream: socket.socket, step: Verdict, base: int, what: str) -> None:
        """Send one frame, and compare what comes back."""
        key = self.signer().key
        message = self.made(step["message"], base) if "message" in step else bytes.fromhex(step.get("data", ""))
        if step.get("over") == "http":
            self.ask(message, step["answer"], what)
            return
        pkh = f"{key.tag:02x}{key.hash.hex()}"
        text = step["request"].replace("{signer}", f"03{pkh}02" if key.tag == 3 else pkh).replace("{pkh}", pkh)
        request = bytes.fromhex(text.replace("{data}", f"{len(message):08x}{message.hex()}"))
        frame = struct.pack(">H", len(request)) + request
        size = step.get("pieces", len(frame))
        for place in range(0, len(frame), size):
            stream.sendall(frame[place : place + size])
        data = receive(stream, ">H")
        expect(frame_answer(data, step["answer"], key, message), step["answer"], what)


def outcome_of(play: Callable[[Verdict], None], verdict: Verdict) -> tuple[str, str]:
    """Play a verdict; return what came of it, and in words."""
    try:
        play(verdict)
    except NotAllowed as denied:
        return "not allowed", str(denied)
    except Broken as broken:
        return "broken", str(broken)
    except (OSError, http.client.HTTPException, ValueError, struct.error) as error:
        return "broken", f"no answer that can be read ({error or type(error).__name__})"
    return "holds", ""


def expect(answer: Answer, expected: str, what: str) -> None:
    """Compare an answer with the one that there must be."""
    if answer.outcome == "not allowed":
        if expected == "signed":
            raise NotAllowed(f"{what}: {answer.words}")
        return
    if answer.outcome != expected:
        raise Broken(f"{what}: {answer.words}, expected {expected}")


def each_kind(verdicts: list[Verdict]) -> Iterator[Verdict]:
    """Yield verdicts; one that is for several kinds of messages, once for each."""
    for verdict in verdicts:
        if "kinds" not in verdict:
            yield verdict
        for kind in verdict.get("kinds", []):
            steps = [{"message": kind} | step for step in verdict["steps"]]
            yield verdict | {"name": f"{verdict['name']}: {kind}", "steps": steps}


def address(text: str) -> str:
    """Check an argument that says where a socket is."""
    if not re.fullmatch(r"tcp:.+:[0-9]{1,5}|unix:.+", text):
        raise argparse.ArgumentTypeError(f"{text} is neither tcp:HOST:PORT nor unix:PATH")
    return text


def connect(where: str, timeout_s: float) -> socket.socket:
    """Return a connection to `tcp:HOST:PORT` or `unix:PATH`."""
    if where.startswith("unix:"):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(timeout_s)
        try:
            stream.connect(where.removeprefix("unix:"))
        except OSError:
            stream.close()
            raise
        return stream
    host, _, port = where.removeprefix("tcp:").rpartition(":")
    stream = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
    # Frames that are sent in pieces leave at once.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def receive(stream: socket.socket, length: str) -> bytes | None:
    """Return the content of the next frame, whose length has this form; None when the connection was closed."""
    head = receive_exactly(stream, struct.calcsize(length))
    if head is None:
        return None
    (size,) = struct.unpack(length, head)
    if size > MAX_ANSWER_BYTES:
        raise ValueError(f"a frame of {size} bytes")
    return receive_exactly(stream, size)


def receive_exactly(stream: socket.socket, size: int) -> bytes | None:
    """Return so many bytes; None when the connection was closed before."""
    data = b""
    while len(data) < size:
        try:
            part = stream.recv(size - len(data))
        except ConnectionError:
            return None
        if not part:
            return None
        data += part
    return data


def frame_answer(data: bytes | None, form: str, key: Key, message: bytes) -> Answer:
    """Say what came back over Octez' sockets: the expected form, or `refused`, or `broken`."""
    if data is None:
        return Answer("refused", "the connection was closed")
    if data[:1] == b"\1" and len(data) > 5 and struct.unpack(">I", data[1:5])[0] == len(data) - 5:
        return Answer("refused", "an error: " + re.sub(r"[^ -~]+", " ", data[5:].decode("latin-1"))[:160])
    value = data[1:]
    forms = {
        "public_key": value == bytes([key.tag]) + key.public_key,
        "flag": value in {b"\0", b"\xff"},
        "authorized_keys": value == b"\0" or (value[:1] == b"\1" and is_hashes(value[1:])),
    }
    if data[:1] == b"\0" and form == "signature":
        wrong = key.check(value, message)
        return Answer("broken", wrong) if wrong else Answer(form, form)
    if data[:1] == b"\0" and forms.get(form):
        return Answer(form, form)
    return Answer("broken", f"the answer {data.hex()[:80]}")


def is_hashes(data: bytes) -> bool:
    """Whether bytes are a list of hashes of keys."""
    return len(data) >= 4 and struct.unpack(">I", data[:4])[0] == len(data) - 4 and len(data) % 21 == 4


def cbor_item(data: bytes) -> Any:
    """Return the value of one CBOR item, of the kinds that the enclave's wire has; ValueError if it is not one."""
    value, end = cbor_value(data, 0)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes after the CBOR item")
    return value


def cbor_value(data: bytes, at: int) -> tuple[Any, int]:
    """Return the value at a place, and where it ends."""
    if at >= len(data):
        raise ValueError("the CBOR item ends too early")
    major, low, at = data[at] >> 5, data[at] & 31, at + 1
    if major == 7:
        return {20: False, 21: True, 22: None}[low], at
    size = 1 << (low - 24) if 24 <= low < 28 else 0
    number, at = (int.from_bytes(data[at : at + size], "big") if size else low), at + size
    if major == 0:
        return number, at
    if major in {2, 3}:
        raw = data[at : at + number]
        return (raw if major == 2 else raw.decode()), at + number
    items = []
    for _ in range(number * (2 if major == 5 else 1)):
        item, at = cbor_value(data, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2], strict=True)) if major == 5 else items), at


def plain(value: Any) -> Any:
    """Return a reply of an enclave without sealed keys, and with byte strings for arrays of integers."""
    if isinstance(value, list) and value:
        return bytes(value)
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items() if name != "encrypted_private_key"}
    return value


def compare_reply(reply: Any, step: Verdict, what: str) -> None:
    """Compare an enclave's reply with the one that there must be."""
    if not isinstance(reply, dict) or len(reply) != 1 or not reply.keys() <= {"Ok", "Err"}:
        raise Broken(f"{what}: {str(reply)[:160]}, expected Ok or Err")
    expected = {"refused": "Err"}.get(step["answer"], step["answer"])
    if expected == "any":
        return
    if expected not in reply:
        raise Broken(f"{what}: {str(reply)[:160]}, expected {expected}")
    if "value" in step and plain(reply["Ok"]) != cbor_item(bytes.fromhex(step["value"])):
        raise Broken(f"{what}: {str(plain(reply['Ok']))[:160]}, expected another value")
    if "message" in step and reply["Err"].get("message") != step["message"]:
        raise Broken(f"{what}: {str(reply)[:160]}, expected the text {step['message']!r}")


def show_table(results: list[Result], key: Key | None) -> None:
    """Print a line for each group, and one for each verdict that does not hold."""
    print(f"{'group':<12}{'verdicts':>9}{'hold':>7}{'broken':>8}{'not allowed':>13}")
    for group in dict.fromkeys(result.group for result in results):
        counts = Counter(result.outcome for result in results if result.group == group)
        if counts["not played"]:
            print(f"{group:<12}{'not played:':>12} {next(r.detail for r in results if r.group == group)}")
            continue
        print(f"{group:<12}{counts.total():>9}{counts['holds']:>7}{counts['broken']:>8}{counts['not allowed']:>13}")
    if key is not None:
        why = f", {key.unverified} not verified: {key.why_unverified}" if key.unverified else ""
        print(f"signatures: {key.verified} verified{why}")
    for result in results:
        if result.outcome == "broken":
            agreed = ", ".join(result.agreed_by) or "no other signer; see README.md"
            print(f"\nBROKEN {result.group}: {result.name}\n  {result.detail}")
            print(f"  source: {result.source}\n  agreed by: {agreed}")


def show_json(results: list[Result], key: Key | None) -> None:
    """Print everything as one JSON object."""
    found: dict[str, Any] = {"verdicts": [asdict(result) for result in results]}
    if key is not None:
        found |= {"key": key.pkh, "signatures_verified": key.verified, "signatures_not_verified": key.unverified}
        found["not_verified_because"] = key.why_unverified
    print(json.dumps(found, indent=1))


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    first, _, rest = str(__doc__).partition("Longer than most")
    parser = argparse.ArgumentParser(description=first, epilog=rest.partition("\n")[2])
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("url", nargs="?", help="the signer: http://HOST:PORT")
    parser.add_argument("--key", help="hash of a throw-away key of the signer: tz1…, tz2…, tz3… or tz4…")
    parser.add_argument("--wire", type=address, help="the enclave behind the signer: tcp:HOST:PORT or unix:PATH")
    parser.add_argument("--octez", type=address, help="the signer's socket of Octez' kind: tcp:HOST:PORT or unix:PATH")
    parser.add_argument("--only", action="append", choices=GROUPS, metavar="GROUP", help=f"{', '.join(GROUPS)}; repeat")
    parser.add_argument("--agreed", action="store_true", help="only verdicts that another program agrees with")
    parser.add_argument("--first-level", type=int, help="the lowest level of this run, instead of searching for it")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for each answer; 30 by default")
    parser.add_argument("--verdicts", type=Path, default=Path(__file__).parent / "verdicts", help="folder of verdicts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(given)
    if not (options.url or options.wire):
        parser.error("nothing to play to: give the URL of a signer, or --wire")
    if options.url and not options.key:
        parser.error("--key is missing: the hash of a throw-away key")
    if options.octez and not options.url:
        parser.error("--octez needs the URL of the same signer")
    return options


def run(options: argparse.Namespace) -> list[Result]:
    """Play what the command line asks for; the table is printed at the end."""
    key = Key(options.key) if options.url else None
    signer = Http(options.url, key, options.timeout) if key is not None else None
    player = Player(
        options.verdicts, key, signer, options.wire, options.octez, options.timeout, agreed_only=options.agreed
    )
    try:
        for place in filter(None, (options.wire, options.octez)):
            try:
                connect(place, options.timeout).close()
            except OSError as error:
                raise CannotPlay(f"no connection to {place}: {error}") from error
        if signer is not None:
            signer.public_key()
            if options.first_level is not None:
                player.levels = Levels(options.first_level)
            elif not options.only or {*options.only} - {"http", "wire"}:
                player.find_levels(signer)
        results = list(player.play(options.only or GROUPS))
    finally:
        if signer is not None:
            signer.close()
    (show_json if options.json else show_table)(results, key)
    return results


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    try:
        results = run(arguments(sys.argv[1:] if given is None else given))
    except CannotPlay as reason:
        print(f"Error: {reason}", file=sys.stderr)
        return 2
    outcomes = Counter(result.outcome for result in results)
    if outcomes["broken"]:
        return 1
    if not outcomes["holds"]:
        print("Error: no verdict could be played", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
