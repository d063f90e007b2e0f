"""The command `enclave-keyprovider`: serves gRPC, answers one request on standard input, or stores a key."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from enclave_signer import __version__, log
from enclave_signer.__main__ import (
    EXIT_CONFIG,
    EXIT_FAILED,
    forbid_inspection,
    missing_extra,
    open_image_providers,
)
from enclave_signer.config import LOG_LEVELS, Parser
from enclave_signer.errors import ConfigError, EnclaveSignerError
from enclave_signer.image import Image, read_image
from enclave_signer.keyprovider.answering import Answering
from enclave_signer.keyprovider.broker_resource import BrokerResource, Fetch
from enclave_signer.keyprovider.config import KeyproviderConfig, read_config
from enclave_signer.keyprovider.errors import KeyproviderError
from enclave_signer.keyprovider.kek_source import KekSource, SealedFile
from enclave_signer.keyprovider.keks import Kek, Keks
from enclave_signer.keyprovider.packets import KEK_BYTES
from enclave_signer.keyprovider.strict_json import MAX_MESSAGE_BYTES
from enclave_signer.log_writer import open_closed_streams
from enclave_signer.sealing.base import Sealer
from enclave_signer.sealing.kbs_kek import checked, commitment
from enclave_signer.sealing.providers import Providers

logger = logging.getLogger("enclave_signer.keyprovider")

_PROGRAM = "enclave-keyprovider"
#: Keeps the lines of the examples, and as many options as fit on one line with their help.
_HELP = partial(argparse.RawDescriptionHelpFormatter, max_help_position=26)
_EXAMPLES = """examples:
  enclave-keyprovider store-kek kbs:///default/key/k1 --config keyprovider.toml
  enclave-keyprovider serve --config keyprovider.toml"""


def main() -> None:
    """Run the command, or end with one line that says why it cannot."""
    open_closed_streams()
    flags = parser().parse_args()
    try:
        forbid_inspection()
        log.configure(log.LEVELS[flags.log], as_json=flags.json_log, in_thread=flags.run is serve)
        config = read_config(flags.config)
        trio.run(flags.run, Keys(config, read_image(config.image)), flags)
    except ConfigError as error:
        sys.exit(_said(error, EXIT_CONFIG))
    except EnclaveSignerError as error:
        sys.exit(_said(error, EXIT_FAILED))
    finally:
        log.flush()


def _said(error: EnclaveSignerError, code: int) -> int:
    log.flush()
    status = f"{error.status.name.lower()}: " if isinstance(error, KeyproviderError) else ""
    sys.stderr.write(f"{_PROGRAM}: {status}{error}\n")
    return code


class Keys:
    """The keys of a configuration, which the sealers of an image open.

    Args:
        config: Of the keyprovider.
        image: That it names.

    Raises:
        ConfigError: A sealer or the key broker cannot be used as configured.
    """

    def __init__(self, config: KeyproviderConfig, image: Image) -> None:
        if image.gated:
            raise ConfigError(
                f"{config.image}: gated: such keys are released again and again, and this program keeps what it opened: "
                "name a configuration without it"
            )
        self.config = config
        self._providers = Providers(open_image_providers(image))
        #: Those in files, by id.
        self.files = {
            kek.key_id: SealedFile(kek.key_id, kek.path, self._open_sealer, kek.commitment)
            for kek in config.keks
            if kek.path is not None
        }
        resources = {kek.key_id: kek.resource for kek in config.keks if kek.resource is not None}
        fetch = _open_broker(image) if resources else None
        self._sources: dict[str, KekSource] = {**self.files}
        if fetch is not None:
            self._sources |= {key_id: BrokerResource(key_id, key, fetch) for key_id, key in resources.items()}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let keys be opened meanwhile."""
        refused: EnclaveSignerError | None = None
        async with self._providers.running():
            try:
                yield
            except EnclaveSignerError as error:
                # Raised below: the tasks of the providers would put it into a group.
                refused = error
        if refused is not None:
            raise refused

    @property
    def answering(self) -> Answering:
        """What answers requests."""
        keks = {kek.key_id: Kek(kek.key_id, self._sources[kek.key_id], kek.wrap) for kek in self.config.keks}
        return Answering(Keks(keks), self.config.provider)

    async def store(self, key_id: str, kek: bytes) -> None:
        """Store a key in its file.

        Raises:
            ConfigError: There is such a file, or none is configured.
            EnclaveSignerError: It was not stored.
        """
        if key_id not in self.files:
            raise ConfigError(f"the key {key_id!r} has no file under keks")
        try:
            await self.files[key_id].store(kek)
        except FileExistsError:
            raise ConfigError(
                f"the key {key_id!r} is stored already: what it encrypted would be lost with it"
            ) from None
        except OSError as error:
            raise EnclaveSignerError(f"the key {key_id!r} was not stored: {error.strerror}") from error
        logger.info("key stored", extra=log.fields(key_id=key_id, commitment=commitment(kek)))

    async def _open_sealer(self) -> Sealer:
        return await self._providers.open_sealer(self.config.credentials)


def _open_broker(image: Image) -> Fetch:
    if image.kbs is None:
        raise ConfigError("commitment: the image has no key broker: name kbs among its sealers")
    try:
        from enclave_signer.sealing.kbs import open_client  # httpx is an extra
    except ImportError as error:
        raise missing_extra("kbs", error, "enclave-kbs") from error
    return open_client(image.kbs, use=checked).fetch


async def serve(keys: Keys, flags: argparse.Namespace) -> None:
    """Serve gRPC until SIGINT or SIGTERM."""
    del flags
    try:
        from enclave_signer.keyprovider.server import Server  # h2 is an extra
    except ImportError as error:
        raise missing_extra("gRPC", error, "keyprovider") from error
    from enclave_signer.serving.listeners import TcpListener, listen

    config = keys.config
    if not config.listeners:
        raise ConfigError("listeners: name a Unix socket, or 127.0.0.1:50011, to serve at")
    with ExitStack() as stack:
        listeners = [stack.enter_context(listen(address)) for address in config.listeners]
        for listener in listeners:
            logger.info("listening on %s", listener.address)
            if isinstance(listener, TcpListener):
                logger.warning("every user of this machine can have layers decrypted at a port: prefer a Unix socket")
        async with keys.running():
            for kek in config.keks:
                if kek.make and kek.path is not None and not kek.path.exists():
                    await keys.store(kek.key_id, os.urandom(KEK_BYTES))
            await _until_signal(Server(listeners, keys.answering).serve, keys=len(config.keks))
    logger.info("stopped")


async def _until_signal(run: Callable[[], Awaitable[None]], *, keys: int) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            logger.info("%s is ready", _PROGRAM, extra=log.fields(version=__version__, keys=keys))
            number = await anext(signals)
            logger.info("stopping: %s", signal.Signals(number).name)
            nursery.cancel_scope.cancel()


async def answer(keys: Keys, flags: argparse.Namespace) -> None:
    """Answer the request on standard input."""
    del flags
    request = sys.stdin.buffer.read(MAX_MESSAGE_BYTES + 1)
    async with keys.running():
        answered = await keys.answering.answer(request)
    sys.stdout.buffer.write(answered)
    sys.stdout.buffer.flush()


async def store_kek(keys: Keys, flags: argparse.Namespace) -> None:
    """Store a new key, or one that is given, and print the commitment to it."""
    kek = os.urandom(KEK_BYTES) if flags.given is None else _given(flags.given)
    async with keys.running():
        await keys.store(flags.id, kek)
    sys.stdout.write(f"{commitment(kek)}\n")


def _given(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            kek = file.read(KEK_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(kek) != KEK_BYTES:
        raise ConfigError(f"{path} must have {KEK_BYTES} bytes: the key itself, not base64, no line end")
    return kek


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = Parser(
        prog=_PROGRAM,
        description="Wrap and unwrap keys of encrypted container images (ocicrypt).",
        epilog=_EXAMPLES,
        formatter_class=_HELP,
    )
    top.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}", help="show the version")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add(commands, "serve", serve, "serve gRPC at the configured addresses until a signal", "info")
    _add(commands, "answer", answer, "answer the request on standard input (ocicrypt's `cmd`)", "error")
    storing = _add(commands, "store-kek", store_kek, "store a new key in the file that is configured for it", "info")
    storing.add_argument("id", metavar="ID", help="id of the key, as in the configuration")
    storing.add_argument("--from", dest="given", metavar="FILE", type=Path, help="take its 32 bytes from a file")
    return top


def _add(
    commands: "argparse._SubParsersAction[Parser]",
    name: str,
    run: Callable[..., object],
    help_text: str,
    level: str,
) -> argparse.ArgumentParser:
    description = f"{help_text[0].upper()}{help_text[1:]}."
    added = commands.add_parser(name, help=help_text, description=description, formatter_class=_HELP)
    added.set_defaults(run=run)
    added.add_argument("--config", metavar="FILE", type=Path, required=True, help="configuration, TOML")
    added.add_argument("--log", choices=LOG_LEVELS, default=level, help="minimum log level (default: %(default)s)")
    added.add_argument("--json-log", action="store_true", help="log as JSON, one object per line")
    return added


if __name__ == "__main__":
    main()
