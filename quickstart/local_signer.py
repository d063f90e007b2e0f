"""The enclave daemon on a Unix socket and the host on loopback as two processes, with everything they keep in one folder."""

import asyncio
import os
import re
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import IO

from enclave_signer.addresses import MAX_UNIX_PATH_BYTES
from host_backend.config import load_config
from quickstart.folder import StartFailed, follow_folder, held_folder
from quickstart.stopping import dies_with_parent

#: Seconds for a program to say that it is ready, or to end.
PATIENCE_S = 30.0
VAULT = "enclave"
#: Where the host reaches the daemon, within the folder; the daemon makes the folder of it, for this user alone.
ENCLAVE_SOCKET = Path("run") / "enclave.sock"
#: What the keys of the first look may sign: what a baker's may.
_POLICY = "{block: , preattestation: , attestation: , attestation_with_dal: }"
_PROGRAMS = {"enclave_signer": "enclave-signer", "host_backend": "enclave-host"}


class LocalSigner:
    """Both programs, their folder and their addresses. Use `running_signer`."""

    def __init__(self, folder: Path, *, in_memory_allowed: bool = False) -> None:
        self.folder = folder
        self.config_file = folder / "signatory.yaml"
        self.first_run = False
        #: What keeps the folder held while a program that was started here lives; see `held_folder`.
        self.held: int | None = None
        self._in_memory_allowed = in_memory_allowed
        self._stack = AsyncExitStack()
        #: By module, in the order of their start.
        self._processes: dict[str, Process] = {}

    @property
    def url(self) -> str:
        """Where clients sign."""
        return f"http://{load_config(self.config_file).server.address}"

    @property
    def utility_url(self) -> str:
        """Where the state of the host is asked."""
        return f"http://{load_config(self.config_file).server.utility_address}"

    @property
    def keys(self) -> tuple[str, ...]:
        """The hashes of the keys that the configuration lists."""
        return tuple(load_config(self.config_file).policies)

    def write_config(self, keys: Sequence[str], ports: tuple[int, int]) -> None:
        """Write the configuration: the host's two ports, and the keys."""
        port, utility_port = ports
        in_memory = ", config: {allow_memory_file_system: true}" if self._in_memory_allowed else ""
        lines = [
            f"base_dir: {self.folder / 'host'}",
            f"server: {{address: 127.0.0.1:{port}, utility_address: 127.0.0.1:{utility_port}}}",
            "vaults:",
            f"  {VAULT}:",
            "    driver: confidentialspace",
            f"    config: {{host: 'unix:{self.folder / ENCLAVE_SOCKET}'}}",
            f"watermark: {{driver: file{in_memory}}}",
            "tezos:",
            *(f"  {pkh}: {{allow: {_POLICY}}}" for pkh in keys),
        ]
        self.config_file.write_text("\n".join(lines) + "\n")

    async def start_enclave(self) -> None:
        """Start the daemon where the configuration says."""
        address = load_config(self.config_file).vaults[VAULT].enclave
        await self._start(
            "enclave_signer",
            ("--listen", str(address), "--sealing-key", str(self.folder / "sealing.key"), "--make-sealing-key"),
            "listening on",
        )

    async def generate(self, key_type: str) -> str:
        """Make a key inside the enclave and return its hash."""
        command = ("-m", "host_backend", "generate", "-c", str(self.config_file), "-v", VAULT, "-t", key_type)
        async with _child(command, stdout=PIPE) as process:
            said, errors = await process.communicate()
        found = re.search(r"^Public Key Hash:\s+(\S+)$", said.decode(), re.MULTILINE)
        if process.returncode or found is None:
            raise StartFailed(f"no key could be made:\n{errors.decode()}")
        return found[1]

    async def start_host(self) -> None:
        """Start the host."""
        try:
            await self._start("host_backend", ("serve", "-c", str(self.config_file)), '"HTTP server is listening')
        except StartFailed as error:
            raise StartFailed(f"{error}Its addresses stand in {self.config_file}") from None

    async def _start(self, module: str, arguments: Sequence[str], ready: str) -> None:
        log = self._stack.enter_context(self._log(module).open("ab", buffering=0))
        process = await self._stack.enter_async_context(_process(module, arguments, log, self.held))
        self._processes[module] = process
        said: list[bytes] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while ready.encode() not in (line := await _line(process)):
                    said.append(line)
                    log.write(line)
                    if not line:
                        raise StartFailed(f"{module} did not start:\n{b''.join(said).decode()}")
        except TimeoutError:
            raise StartFailed(f"{module} was not ready within {PATIENCE_S:g} s:\n{b''.join(said).decode()}") from None
        log.write(line)
        self._stack.push_async_callback(_cancel, asyncio.create_task(_copy(process, log)))

    async def wait_ended(self) -> str:
        """Return which program has ended by itself, how, and where its log is."""
        waiting = {asyncio.create_task(process.wait()): module for module, process in self._processes.items()}
        try:
            (ended, *_), _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        module, code = waiting[ended], ended.result()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"{_PROGRAMS[module]} {how} (its log: {self._log(module)})"

    def _log(self, module: str) -> Path:
        return self.folder / f"{module}.log"

    async def stop(self) -> None:
        """Stop the host, then the enclave."""
        await self._stack.aclose()


async def _line(process: Process) -> bytes:
    assert process.stderr is not None  # noqa: S101 -- asked for
    return await process.stderr.readline()


async def _copy(process: Process, log: IO[bytes]) -> None:
    while line := await _line(process):
        log.write(line)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def _child(command: Sequence[str], *, stdout: int = DEVNULL, held: int | None = None) -> AsyncIterator[Process]:
    """Run Python with a command; killed at the end if it still runs."""
    # A session of its own, so that Ctrl-C reaches only the program that decides the order of stopping.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        stdin=DEVNULL,
        stdout=stdout,
        stderr=PIPE,
        start_new_session=True,
        preexec_fn=dies_with_parent(),
        pass_fds=() if held is None else (held,),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@asynccontextmanager
async def _process(module: str, arguments: Sequence[str], log: IO[bytes], held: int | None) -> AsyncIterator[Process]:
    """Run one of the programs; stopped in order at the end."""
    async with _child(("-m", module, *arguments), held=held) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await _copy(process, log)
                    await process.wait()


def _check_path(path: Path) -> None:
    odd = next((character for character in str(path) if character in "#$'\":\\" or not character.isprintable()), None)
    if odd is not None:
        raise StartFailed(f"{path.parent.parent}: a configuration does not take {odd!r} in a path: use another folder")
    if (too_long := len(os.fsencode(path)) - MAX_UNIX_PATH_BYTES) > 0:
        raise StartFailed(f"{path}: {too_long} bytes too long for a Unix socket: use a folder with a shorter path")


def free_port(preferred: int) -> int:
    """Return the preferred port of loopback if it is free, else one that is."""
    for port in (preferred, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as listener:
            return int(listener.getsockname()[1])
    raise StartFailed("no port of 127.0.0.1 is free")


@asynccontextmanager
async def running_signer(
    folder: Path, key_types: Sequence[str], *, in_memory_allowed: bool = False
) -> AsyncIterator[LocalSigner]:
    """Start both programs; on a folder's first use make the keys and the configuration, later keep them.

    Args:
        folder: Where everything is kept.
        key_types: Which keys to make.
        in_memory_allowed: Whether the folder may be on a file system in memory, where watermarks do not last.

    Raises:
        StartFailed: A program did not start, and the text shows what it said; or the folder cannot be used.
        ConfigError: The configuration in the folder cannot be used.
    """
    signer = LocalSigner(folder.resolve(), in_memory_allowed=in_memory_allowed)
    with held_folder(signer.folder) as signer.held:
        follow_folder(signer.folder, signer.config_file)
        async with _running(signer, key_types):
            yield signer


@asynccontextmanager
async def _running(signer: LocalSigner, key_types: Sequence[str]) -> AsyncIterator[None]:
    try:
        # A first run that was killed may have left a configuration without keys.
        if signer.config_file.exists() and signer.keys:
            await signer.start_enclave()
        else:
            signer.first_run = True
            _check_path(signer.folder / ENCLAVE_SOCKET)
            ports = free_port(6732), free_port(9583)
            signer.write_config((), ports)
            try:
                await signer.start_enclave()
                signer.write_config([await signer.generate(key_type) for key_type in key_types], ports)
            except BaseException:
                signer.config_file.unlink()
                raise
        await signer.start_host()
        yield
    finally:
        await signer.stop()
