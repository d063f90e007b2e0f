"""`enclave-host attest` and its commands: what they take."""

import sys
from pathlib import Path

import click

from host_backend.cli.options import Options, takes_options

_TOKEN = click.option(
    "--token",
    "token_file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="File with a token; - for standard input.",
)
_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="PEM file of the root that chains in tokens must end at [default: Google's, by its hash].",
)
_JWKS = click.option(
    "--jwks",
    type=click.Path(path_type=Path),
    help="File with the keys of tokens without a chain [default: fetched from Google].",
)


@click.group(invoke_without_command=True)
@click.option("-v", "--vault", help="Vault whose enclave is asked, over a connection that it must prove.")
@_TOKEN
@click.option(
    "--report", type=click.Path(path_type=Path), help="File with an answer of GET /attestation; wants --nonce."
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    help="What the enclave must be [default: as the vault says].",
)
@click.option("--nonce", help="What the token, or the report, was asked for with.")
@_ROOT
@_JWKS
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
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
    as_json: bool,
) -> None:
    """Verify what an enclave says it is: every claim is matched, not pinned or refused.

    The enclave of a vault is asked over a new connection, and must prove that this connection ends there. A token or
    report in a file proves that such an enclave exists, not that anyone talks to it.

    Exits with 0 only if there is a policy and nothing was refused, with 1 if something was, or there is no policy.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    from host_backend.cli import attesting

    if [vault, token_file, report].count(None) != 2:
        raise click.UsageError("name one of --vault NAME, --token FILE and --report FILE")
    if vault is not None:
        config = options.load()
        if vault not in config.vaults:
            raise click.UsageError(f"no vault {vault!r} in the configuration")
        presented, of_vault = attesting.present(config.vaults[vault])
    else:
        options.start_logging()
        presented, of_vault = attesting.read_presented(token_file, report, nonce), attesting.Terms()
    terms = attesting.Terms(policy_file or of_vault.policy, root or of_vault.root, jwks)
    if not attesting.judge(presented, terms, as_json=as_json):
        sys.exit(1)


@attest.group()
@takes_options
def policy(options: Options) -> None:
    """Look after policies."""
    del options


@policy.command("init")
@_TOKEN
@click.option("--audience", help="Whom tokens will be made out to [default: whom this one is made out to].")
@_ROOT
@_JWKS
@takes_options
def init_policy(
    options: Options, token_file: Path | None, audience: str | None, root: Path | None, jwks: Path | None
) -> None:
    """Print a policy made of a token that you choose to trust.

    It pins the image, the project, the zone, the accounts, the hardware, and what was overridden. Compare the digest
    with that of the image that you reviewed before you use it.
    """
    from host_backend.cli.attesting import Terms, make_policy, read_presented

    options.start_logging()
    if token_file is None:
        raise click.UsageError("name a token: --token FILE")
    click.echo(make_policy(read_presented(token_file).token, audience, Terms(root=root, jwks=jwks)), nl=False)
