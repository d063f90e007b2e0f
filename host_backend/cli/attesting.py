"""What `enclave-host attest` does: looks at a token as a policy does, and shows every check."""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click

from host_backend.attestation.checks import Check, State
from host_backend.attestation.keys import KeySource
from host_backend.attestation.policy_file import load_policy, policy_text
from host_backend.attestation.report import token_and_nonce
from host_backend.attestation.token import Claims, NoToken, read_token, shown
from host_backend.attestation.verifier import (
    PinnedRoot,
    Report,
    Trust,
    TrustedKeys,
    examine,
    verify,
    verify_unbound,
)
from host_backend.cli.answer import Answer
from host_backend.config import VaultConfig
from host_backend.enclave.connection import connect
from host_backend.enclave.proving import Proving
from host_backend.endpoints import configured_endpoint
from host_backend.errors import AttestationRefused, ConfigError, reason_of

#: Bytes of a file with a root, or with keys.
MAX_FILE_BYTES = 65536
UNBOUND = "not bound to a connection: the token proves that such an enclave exists, not that you talk to it"
BOUND = "bound to a connection: the enclave at its other end proved itself just now, for a nonce of this host"
_SUMMARY = {
    "image": "submods.container.image_reference",
    "image digest": "submods.container.image_digest",
    "project": "submods.gce.project_id",
    "zone": "submods.gce.zone",
    "instance": "submods.gce.instance_name",
    "hardware": "hwmodel",
    "arguments": "submods.container.args",
}


@dataclass(frozen=True, slots=True)
class Presented:
    """A token that somebody presented.

    Attributes:
        token: As it came.
        nonce: What must be among its nonces; None: nothing is known about them.
        bound: Whether it came over a connection that it proves.
    """

    token: str = field(repr=False)
    nonce: str | None = None
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What a token is judged by, as files.

    Attributes:
        policy: What it must say; None: nothing is pinned, and nothing proven.
        root: Whose chain counts; None: Google's root.
        jwks: Which keys count; None: those that Google publishes.
    """

    policy: Path | None = None
    root: Path | None = None
    jwks: Path | None = None

    def trust(self, token: str) -> Trust:
        """Return what counts for a token: the pinned root if it brings a chain, keys if it does not.

        Raises:
            ConfigError: A file cannot be used.
            KeysUnavailable: Google's keys cannot be had.
        """
        try:
            header, _ = read_token(token)
        except NoToken:
            header = {}
        try:
            if "x5c" in header:
                return PinnedRoot() if self.root is None else PinnedRoot.from_pem(_read(self.root))
            if self.jwks is not None:
                return TrustedKeys.from_jwks(json.loads(_read(self.jwks)))
        except (ValueError, RecursionError) as error:
            file = self.root if "x5c" in header else self.jwks
            raise ConfigError(f"{file}: {error}") from None
        return asyncio.run(KeySource().keys_for(token))


@dataclass(frozen=True, slots=True)
class _Seen:
    """In place of verified claims: the token is judged afterwards, and the connection used for nothing else."""

    expires_at: float = 0.0


def present(config: VaultConfig) -> tuple[Presented, Terms]:
    """Return what the enclave of a vault shows on a new connection that it proves, and what the vault judges it by.

    Nothing but the question is sent.

    Raises:
        AttestationRefused: It shows nothing, or the connection ends somewhere else.
        EnclaveUnavailable: It cannot be reached, or has no token at the moment.
        ConfigError: A file that the vault names cannot be used.
    """
    wanted = config.attestation
    terms = Terms() if wanted is None else Terms(wanted.policy, wanted.root)
    return asyncio.run(_shown_by(config)), terms


async def _shown_by(config: VaultConfig) -> Presented:
    enclave = configured_endpoint(config)
    taken: list[Presented] = []

    async def take(token: str, nonce: str) -> _Seen:
        taken.append(Presented(token, nonce, bound=True))
        return _Seen()

    connection = await connect(enclave.address, tls=enclave.tls)
    try:
        await Proving(take, 0.0).prove(connection, by_new_token=True)
    finally:
        connection.close()
    return taken[0]


def read_presented(token: Path | None, report: Path | None = None, nonce: str | None = None) -> Presented:
    """Return the token in a file, or in an answer of `GET /attestation`; `-` is standard input.

    Args:
        token: File with a token, maybe with white space around it.
        report: File with an answer, where that is None.
        nonce: What was asked with.

    Raises:
        ConfigError: It cannot be read, or a report is not to be compared with a nonce.
    """
    if token is not None:
        return Presented(_read(token).decode("latin-1").strip(), nonce)
    if report is None or nonce is None:
        raise ConfigError("--report needs --nonce, the nonce of your request")
    try:
        return Presented(*token_and_nonce(json.loads(_read(report)), nonce))
    except ValueError as error:
        raise ConfigError(f"{report}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{report}: nests too deep") from None


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with file.open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {reason_of(error)}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes")
    return data


def judge(presented: Presented, terms: Terms, answer: Answer) -> bool:
    """Print what a token says and every check of it; return whether it fulfils the policy.

    Raises:
        ConfigError: A file cannot be used.
        KeysUnavailable: Google's keys cannot be had.
    """
    policy = None if terms.policy is None else load_policy(terms.policy)
    token, nonce, trust, now = presented.token, presented.nonce, terms.trust(presented.token), time.time()
    report = examine(token, trust=trust, policy=policy, nonce=nonce, now=now)
    accepted = False
    if policy is not None:
        try:
            if nonce is None:
                verify_unbound(token, trust=trust, policy=policy, now=now)
            else:
                verify(token, trust=trust, policy=policy, nonce=nonce, now=now)
        except AttestationRefused:
            pass
        else:
            accepted = True
    outcome = "accepted" if accepted else "refused" if report.refusals else "no policy"
    answer.put(**_object(presented, report, outcome))
    if not answer.as_json:
        _print(presented, report, outcome)
    return accepted


def make_policy(token: str, audience: str | None, terms: Terms) -> str:
    """Return the policy that a token fulfils.

    Raises:
        AttestationRefused: It proves no confidential machine: no policy can be fulfilled by it.
        ConfigError: It does not say enough.
        KeysUnavailable: Google's keys cannot be had.
    """
    report = examine(token, trust=terms.trust(token), policy=None, nonce=None, now=time.time())
    if report.claims is None or report.refusals:
        raise AttestationRefused(report.refusals)
    return policy_text(report.claims, audience)


def _object(presented: Presented, report: Report, outcome: str) -> Mapping[str, object]:
    return {
        "outcome": outcome,
        "bound": presented.bound,
        "checks": [{"claim": check.claim, "state": check.state.value, "text": check.text} for check in report.checks],
        "claims": None if report.claims is None else report.claims.values,
    }


def _print(presented: Presented, report: Report, outcome: str) -> None:
    click.echo(BOUND if presented.bound else UNBOUND)
    if report.claims is not None:
        _print_claims(report.claims, signed=report.checks[0].state is State.MATCHED)
    for check in report.checks:
        click.echo(f"{check.state.value:<12}{_line(check)}")
    refused = len(report.refusals)
    click.echo(
        {
            "accepted": "accepted: the token fulfils the policy",
            "refused": f"refused: {refused} of {len(report.checks)} checks",
            "no policy": "nothing is proven without a policy: --policy FILE; `attest policy init` makes one",
        }[outcome]
    )


def _print_claims(claims: Claims, *, signed: bool) -> None:
    click.echo("the token says:" if signed else "the token says, without a signature that counts:")
    for name, path in _SUMMARY.items():
        value = claims.at(path)
        click.echo(f"  {name:<14}{'nothing' if value is None else shown(value)}")
    for name, claim in (("issued", "iat"), ("expires", "exp")):
        click.echo(f"  {name:<14}{_when(claims.integer(claim))}")


def _when(seconds: int | None) -> str:
    try:
        return "nothing" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "at no time"


def _line(check: Check) -> str:
    return f"{check.claim}: {check.text}"
