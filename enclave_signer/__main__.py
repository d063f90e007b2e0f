"""The command `enclave-signer`: configuration, provider, listener, signals. Concrete providers are named only here."""

import signal

# Before the other imports take their time: until there is something to stop, Ctrl-C ends the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import ctypes
import gc
import logging
import os
import resource
import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING

from enclave_signer import __version__, log, memory
from enclave_signer.config import Config, parse_config
from enclave_signer.errors import ConfigError, EnclaveSignerError
from enclave_signer.log_writer import open_closed_streams
from enclave_signer.sealing.local_config import LOCAL, LocalKey
from enclave_signer.sealing.vault_config import VAULT_TRANSIT
from enclave_signer.tezos import masked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from enclave_signer.attestation.base import Attester
    from enclave_signer.image import Image
    from enclave_signer.launcher import LauncherSocket
    from enclave_signer.rights import Rules
    from enclave_signer.sealing.base import SealerProvider
    from enclave_signer.serving.listeners import Listener
    from enclave_signer.serving.peers import Peer
    from enclave_signer.serving.server import Server

logger = logging.getLogger("enclave_signer")

#: `prctl(PR_SET_DUMPABLE, …)`. Source: Linux `prctl.h`.
_PR_SET_DUMPABLE = 4

#: Seconds for a token: the launcher itself asks Google twice, with a pause.
LAUNCHER_S = 10.0
#: Exit codes: the table of `docs/architecture.md`.
EXIT_FAILED = 1
EXIT_CONFIG = 2


def main() -> None:
    """Run the daemon until a signal, or end with one line that says why it cannot run."""
    open_closed_streams()
    try:
        forbid_inspection()
        config = _parsed(sys.argv[1:])
        start_logging(config, sys.argv[1:])
        lock_memory()
        run(config, partial(open_providers, config), open_attester(config.image))
    except ConfigError as error:
        sys.exit(_said(error, EXIT_CONFIG))
    except EnclaveSignerError as error:
        sys.exit(_said(error, EXIT_FAILED))


def _parsed(arguments: "Sequence[str]") -> Config:
    try:
        return parse_config(arguments, os.environ)
    except SystemExit:
        # For `--help` and `--version`: what they print is written at the very end otherwise, and its failure with it.
        try:
            sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise EnclaveSignerError(f"standard output cannot be written: {error.strerror}") from None
        raise


def forbid_inspection() -> None:
    """Keep other processes of the same user, and core dumps, from the memory of this one: it holds every key.

    The kernel then refuses `ptrace` and `/proc/<pid>/mem` to everyone but root.

    Raises:
        ConfigError: The system does not let it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0)):
        raise ConfigError("the system does not let this process hide its memory from others: prctl failed")


def lock_memory() -> None:
    """Keep keys out of swap where the system lets it, and say whether it does."""
    if (why := memory.lock()) is None:
        logger.info("memory is locked: nothing of it is written to swap")
    else:
        logger.info(
            "memory is not locked: it can be written to swap, if this machine has any", extra=log.fields(why=why)
        )


def _said(error: EnclaveSignerError, code: int) -> int:
    log.flush()
    sys.stderr.write(f"enclave-signer: {masked(str(error))}\n")
    return code


def open_providers(config: Config) -> "list[SealerProvider]":
    """Return the sealers that the image or the flags name; the first one seals.

    Raises:
        ConfigError: One cannot be opened as configured.
    """
    return [_open_local(config.local_key)] if config.image is None else open_image_providers(config.image)


def open_image_providers(image: "Image") -> "list[SealerProvider]":
    """Return the sealers that an image names; the first one seals.

    Raises:
        ConfigError: One cannot be opened as configured.
    """
    if image.development:
        logger.warning("this image is for development: not for keys of value")
    return [_open_named(name, image) for name in image.sealers]


def _open_named(name: str, image: "Image") -> "SealerProvider":
    from enclave_signer.sealing.gcp_config import GCP_KMS
    from enclave_signer.sealing.kbs_config import KBS

    if name == LOCAL:
        return _open_local(image.local_key)
    openers = {GCP_KMS: _open_gcp_kms, KBS: _open_kbs, VAULT_TRANSIT: _open_vault_transit}
    return openers[name](image)


def _open_local(file: "LocalKey | None") -> "SealerProvider":
    try:
        from enclave_signer.sealing.local import LocalSealer, read_key_file  # absent in production
    except ImportError:
        raise ConfigError("the local sealer is in images for development alone: use another one") from None
    if file is None:
        raise ConfigError("the local sealer needs a key file")
    key, made = read_key_file(file)
    logger.warning(
        "keys are sealed by a file on this machine: not for keys of value",
        extra=log.fields(file=file.path, made_just_now=made),
    )
    return LocalSealer(key)


def _open_gcp_kms(image: "Image") -> "SealerProvider":
    from enclave_signer.sealing.gcp_config import GCP_KMS
    from enclave_signer.sealing.gcp_environment import check_environment

    check_environment(os.environ)
    try:
        from enclave_signer.sealing.gcp_client import google  # Google's library is an extra
        from enclave_signer.sealing.gcp_kms import GcpKms
    except ImportError as error:
        raise missing_extra(GCP_KMS, error, "enclave-gcp") from error
    if image.gcp_kms is None:
        raise ConfigError(f"{GCP_KMS} is not configured")
    return GcpKms(image.gcp_kms, google())


def _open_vault_transit(image: "Image") -> "SealerProvider":
    try:
        from enclave_signer.sealing.vault_transit import VaultTransit  # its HTTP library is an extra
    except ImportError as error:
        raise missing_extra(VAULT_TRANSIT, error, "enclave-vault") from error
    from enclave_signer.launcher import LAUNCHER_SOCKET, LauncherSocket

    if image.vault_transit is None:
        raise ConfigError(f"{VAULT_TRANSIT} is not configured")
    return VaultTransit(image.vault_transit, LauncherSocket(LAUNCHER_SOCKET, LAUNCHER_S))


def _open_kbs(image: "Image") -> "SealerProvider":
    from enclave_signer.sealing.kbs_config import KBS

    try:
        from enclave_signer.sealing.kbs import open_kbs  # httpx is an extra
    except ImportError as error:
        raise missing_extra(KBS, error, "enclave-kbs") from error
    if image.kbs is None:
        raise ConfigError(f"{KBS} is not configured")
    return open_kbs(image.kbs)


def missing_extra(what: str, error: ImportError, extra: str) -> ConfigError:
    """Return the error for something that needs the libraries of an extra, which are not installed."""
    return ConfigError(f"{what}: {error}: pip install 'enclave-signer[{extra}]'")


def open_attester(image: "Image | None", launcher: "LauncherSocket | None" = None) -> "Attester | None":
    """Return what vouches for this machine; None where the image names nothing.

    Args:
        image: What the image says of itself.
        launcher: The launcher's socket; None: where it is in every Confidential Space image.
    """
    if image is None or image.attestation is None:
        return None
    from enclave_signer.attestation.confidential_space import ConfidentialSpace
    from enclave_signer.launcher import LAUNCHER_SOCKET, LauncherSocket

    wanted = image.attestation
    return ConfidentialSpace(launcher or LauncherSocket(LAUNCHER_SOCKET, LAUNCHER_S), wanted.audience, wanted.kind)


def open_listener(config: Config) -> "Listener":
    """Return what listens as configured.

    Raises:
        ConfigError: The address cannot be had.
    """
    from enclave_signer.serving.listeners import listen
    from enclave_signer.sparse_log import SparseLog

    rules = _rules(config)
    if config.tls_clients is None:
        return listen(config.listen, access=None if config.image is None else config.image.unix_socket, rules=rules)
    from enclave_signer.serving.tls import TlsServer

    refusals = SparseLog()

    def on_refused(peer: "Peer", why: str) -> None:
        refusals.warn("clients without TLS, or with a key that is not listed, refused", source=peer.source, why=why)

    return listen(config.listen, TlsServer(config.tls_clients, on_refused, rules))


def _rules(config: Config) -> "Rules | None":
    """Return what the image's clients may do; None: everything.

    Raises:
        ConfigError: This system cannot say what the rules ask for.
    """
    if config.image is None or config.image.rights is None:
        return None
    from enclave_signer.rights import Rules
    from enclave_signer.serving.local_clients import require_cgroups
    from enclave_signer.sparse_log import SparseLog

    rules = Rules(config.image.rights, SparseLog().tell)
    if rules.ask_for_cgroups:
        require_cgroups()
    return rules


def start_logging(config: Config, flags: "Sequence[str]") -> None:
    """Log to standard error as was asked; the first line says what has started."""
    log.configure(log.LEVELS[config.log_level], as_json=config.json_log, in_thread=True)
    logger.info(
        "enclave-signer is starting",
        extra=log.fields(version=__version__, flags=shlex.join(flags), pid=os.getpid()),
    )


def run(
    config: Config, open_sealers: "Callable[[], Sequence[SealerProvider]]", attester: "Attester | None" = None
) -> None:
    """Check the curves, listen, open the sealers, serve until SIGINT or SIGTERM.

    Args:
        config: Of the daemon.
        open_sealers: Returns the sealers. Called once the address is had: a daemon that cannot serve makes no key file.
        attester: Vouches for the machine and its image; None: nothing does.

    Raises:
        ConfigError: The address cannot be had, or a sealer cannot be opened.
        EnclaveSignerError: A curve does not give the known answers: nothing may be signed with it.
    """
    # Imported objects live as long as the process: searching them for garbage would only make the start longer.
    gc.disable()
    import trio  # `--help` need not wait for it

    from enclave_signer import curves
    from enclave_signer.sealing.providers import Providers
    from enclave_signer.serving.server import Server

    if config.slow_bls:
        curves.install_slow_bls()
    curves.self_test()
    gc.freeze()
    gc.enable()
    with open_listener(config) as listener:
        image = config.image
        providers = Providers(open_sealers(), image.gated if image is not None else ())
        _warn_of(config)
        rules = image.reseal if image is not None else None
        server = Server(listener, providers, config.limits, guard=config.guard, reseal=rules, attester=attester)
        trio.run(_serve, server, f"listening on {listener.address}", providers.names)


async def _serve(server: "Server", listening: str, sealers: str) -> None:
    import trio  # as above

    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            nursery.start_soon(_stop_at_signal, server, signals)
            logger.info("%s", listening, extra=log.fields(sealer=sealers))
            await server.serve()
            nursery.cancel_scope.cancel()
    logger.info("stopped")


def _warn_of(config: Config) -> None:
    if not config.listen.is_loopback and config.tls_clients is None:
        logger.warning(
            "listening beyond this machine: anyone who reaches the port can get signed what the guard allows",
            extra=log.fields(address=str(config.listen)),
        )
    if not config.guard:
        logger.warning("the guard is off: this enclave signs two blocks or attestations for one right when asked to")


async def _stop_at_signal(server: "Server", signals: "AsyncIterator[int]") -> None:
    async for number in signals:
        logger.info("stopping: %s", signal.Signals(number).name)
        server.stop()
        return


if __name__ == "__main__":
    main()
