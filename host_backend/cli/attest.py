"""`enclave-host attest` and its commands: their options."""

from pathlib import Path

import click

from host_backend.cli.answer import Answer
from host_backend.cli.command_help import Group
from host_backend.cli.named_path import NamedPath
from host_backend.cli.options import Options, takes_json, takes_options
from host_backend.cli.parameters import VaultName, named_vault

_TOKEN = click.option(
    "--token",
    "token_file",
    type=NamedPath(allow_dash=True),
    help="File with a token; - for standard input.",
)
_ROOT = click.option(
    "--root",
    type=NamedPath(),
    help="PEM file with the root certificate for tokens [default: Google's, by its hash].",
)
_JWKS = click.option(
    "--jwks",
    type=NamedPath(),
    help="File with the keys for tokens without a certificate chain [default: fetched from Google].",
)


@click.group(
    cls=Group,
    invoke_without_command=True,
    example="enclave-host attest --policy policy.yaml",
)
@click.option(
    "-v", "--vault", type=VaultName(), metavar="NAME", help="Vault whose enclave to verify [default: the only one]."
)
@_TOKEN
@click.option("--report", type=NamedPath(), help="File with an answer of GET /attestation; needs --nonce.")
@click.option(
    "--policy",
    "policy_file",
    type=NamedPath(),
    help="File with the policy [default: the vault's].",
)
@click.option("--nonce", help="Nonce of the request for the token or report.")
@_ROOT
@_JWKS
@takes_json
@takes_options
def attest(
    options: Options,
    vault: str | None,
    token_file: Path | None,
    report: Path | None,
    policy_file: Path | None,
    nonce: str | None,
    root: Path | None,
    jwks: Path | None,
    *,
    answer: Answer,
) -> None:
    """Verify the attestation of an enclave, claim by claim.

    Each claim is matched, not pinned or refused. --vault opens a new connection to the enclave, which must prove that the
    connection ends there. A token or report in a file proves that such an enclave exists, not that you are connected to it.

    Exits with 0 only if there is a policy and nothing was refused.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    from host_backend.cli import attesting

    if [vault, token_file, report].count(None) < 2:
        raise click.UsageError("name one of --vault NAME, --token FILE and --report FILE")
    if token_file is None and report is None:
        presented, of_vault = attesting.present(named_vault(options.load(), vault))
    else:
        options.start_logging()
        presented, of_vault = attesting.read_presented(token_file, report, nonce), attesting.Terms()
    terms = attesting.Terms(policy_file or of_vault.policy, root or of_vault.root, jwks)
    if not attesting.judge(presented, terms, answer):
        click.get_current_context().exit(1)


@attest.group(cls=Group)
@takes_options
def policy(options: Options) -> None:
    """Write policies."""
    del options


@policy.command("init", example="enclave-host attest policy init --token token.jwt > policy.yaml")
@_TOKEN
@click.option("--audience", help="Audience of future tokens [default: that of this token].")
@_ROOT
@_JWKS
@takes_options
def init_policy(
    options: Options, token_file: Path | None, audience: str | None, root: Path | None, jwks: Path | None
) -> None:
    """Print a policy that pins what a trusted token says.

    It pins the image, project, zone, accounts, hardware and overridden settings. Before you use it, compare its digest with
    that of the image you reviewed.
    """
    from host_backend.cli.attesting import Terms, make_policy, read_presented

    options.start_logging()
    if token_file is None:
        raise click.UsageError("name a token: --token FILE")
    click.echo(make_policy(read_presented(token_file).token, audience, Terms(root=root, jwks=jwks)), nl=False)
