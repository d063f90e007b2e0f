"""`enclave-host authenticate`: the signature that authenticates a client's request."""

from pathlib import Path

import click

from host_backend.cli.answer import Answer
from host_backend.cli.command_help import Command
from host_backend.cli.named_path import NamedPath
from host_backend.cli.options import Options, takes_json, takes_options, takes_password
from host_backend.cli.parameters import KeyHash


@click.command(
    cls=Command,
    example="enclave-host authenticate tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb 03a11f5f17",
)
@click.argument("pkh", type=KeyHash())
@click.argument("message", default="", metavar="[MESSAGE]")
@click.option("-f", "--from", "source", type=NamedPath(), help="File with the client's secret key.")
@takes_password
@click.option("--verify", metavar="SIGNATURE", help="Check this signature instead of making one.")
@click.option("--public-key", help="The client's public key, with --verify.")
@takes_json
@takes_options
def authenticate(
    options: Options,
    pkh: str,
    message: str,
    source: Path | None,
    password: str | None,
    password_file: Path | None,
    verify: str | None,
    public_key: str | None,
    *,
    answer: Answer,
) -> None:
    """Sign a request with a client's secret key.

    Prints the value of `authentication` for the query of the request. PKH is the key that will sign, MESSAGE the bytes to
    sign, in hex; without MESSAGE the request is for a proof of possession. The command asks for the secret key, in any form
    that `import` takes; it reads no configuration.
    """
    from host_backend.authentication import authentication_bytes
    from host_backend.inspection import forbid_inspection

    options.start_logging()
    forbid_inspection()
    # The hash is checked first: a secret key given in its place is refused as one.
    signed = authentication_bytes(pkh) + _message(message)
    if verify is not None or public_key is not None:
        _verify(signed, verify, public_key)
        answer.put(valid=True)
    else:
        _sign(answer, signed, source, password, password_file)
    answer.put(signed_bytes=signed.hex())


def _message(text: str) -> bytes:
    from host_backend.errors import MalformedRequest

    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise MalformedRequest("the message must be hex, without spaces around it") from None


def _sign(answer: Answer, signed: bytes, source: Path | None, password: str | None, password_file: Path | None) -> None:
    from enclave_signer.protocol.messages import SigningVersion
    from enclave_signer.tezos import encode_public_key, encode_signature, public_key_hash
    from host_backend.cli.secrets import password_source, read_secret_keys
    from host_backend.errors import MalformedRequest
    from host_backend.secret_keys import open_secret_key

    private_keys = read_secret_keys([], source, password_source(password, password_file))
    if len(private_keys) != 1:
        raise MalformedRequest(f"there are {len(private_keys)} secret keys: give only the client's")
    key = open_secret_key(private_keys[0])
    signature = encode_signature(key.sign(signed, SigningVersion.LATEST))
    answer.put(
        authentication=signature,
        public_key=encode_public_key(key.public_key),
        public_key_hash=public_key_hash(key.public_key),
    )
    answer.say(signature)


def _verify(signed: bytes, signature: str | None, public_key: str | None) -> None:
    from enclave_signer.curves import CurveError, curve
    from enclave_signer.protocol.messages import SigningVersion
    from enclave_signer.tezos import TezosError, parse_public_key, parse_signature
    from host_backend.errors import ConfigError, MalformedRequest, PolicyDenied

    if signature is None or public_key is None:
        raise ConfigError("--verify and --public-key go together: the signature, and the key that should have made it")
    try:
        key = parse_public_key(public_key)
        verifying_key = curve(key.key_type).parse_public_key(key.data)
        parsed = parse_signature(signature, key.key_type)
    except (TezosError, CurveError) as error:
        raise MalformedRequest(str(error)) from None
    try:
        verifying_key.verify(parsed, signed, SigningVersion.LATEST)
    except CurveError:
        text = "the signature is not this key's over this request"
        raise PolicyDenied(text, violation="authentication") from None
