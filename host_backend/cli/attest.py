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
@_TOKEN
@click.option("--policy", "policy_file", type=click.Path(path_type=Path), help="What the enclave must be.")
@click.option("--nonce", help="What must be among the token's nonces.")
@_ROOT
@_JWKS
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@takes_options
def attest(
    options: Options,
    token_file: Path | None,
    policy_file: Path | None,
    nonce: str | None,
    root: Path | None,
    jwks: Path | None,
    *,
    as_json: bool,
) -> None:
    """Verify what an enclave says it is: every claim is matched, not pinned or refused.

    Exits with 0 only if there is a policy and nothing was refused, with 1 if something was, or there is no policy. A
    token in a file proves that such an enclave exists, not that anyone talks to it.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    from host_backend.cli.attesting import Presented, Trusted, judge, read_presented

    options.start_logging()
    if token_file is None:
        raise click.UsageError("name a token: --token FILE")
    presented = Presented(read_presented(token_file), nonce)
    if not judge(presented, policy_file, Trusted(root, jwks), as_json=as_json):
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
    from host_backend.cli.attesting import Presented, Trusted, make_policy, read_presented

    options.start_logging()
    if token_file is None:
        raise click.UsageError("name a token: --token FILE")
    click.echo(make_policy(Presented(read_presented(token_file)), audience, Trusted(root, jwks)), nl=False)
