"""Policies taken over while the host runs: by a process that reads them, in steps, one reload after the other."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from host_backend.config import Config, MetricsConfig, load_config, reading
from host_backend.config.metrics import MAX_PER_KEY
from host_backend.config.reading import KEYS_PER_PART, ReadingFailed, read_config
from host_backend.errors import ConfigError
from host_backend.policy import DEFAULT_POLICY, KeyPolicy
from host_backend.reload import LINES_AT_ONCE, PolicyReload
from host_backend.reload_note import ReloadNote, read_note, write_note
from host_backend.signer import Signer
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.known_keys import FOUR, KEYS
from tests.doubles.many_keys import many_hashes
from tests.doubles.step_clock import eager_steps

PKH = FOUR[0].pkh
OTHER = KeyPolicy(frozenset({"block"}), frozenset())
STOPPED = "the configuration was not reloaded, the old policies stay: "


def config_of(policies: dict[str, KeyPolicy], *, per_key: bool = False) -> Config:
    return Config(base_dir=Path("/b"), vaults={}, policies=policies, metrics=MetricsConfig(per_key))


def reload_of(
    signer: Signer, read: Callable[[], Awaitable[Config]], started_with: Config | None = None
) -> PolicyReload:
    return PolicyReload(started_with or config_of({}), read, signer, eager_steps())


def signer_of(policies: dict[str, KeyPolicy]) -> Signer:
    return Signer(policies, [], MemoryWatermarkStore())


WHOLE = f"""
base_dir: /b
server:
  address: 127.0.0.1:1
  tls: {{certificate: /c, key: /k}}
  jwt: {{users: {{alice: {{password: "Aa1!aaaaaaaaaaaaaaaa", secret: "Aa1!aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}}}}}
vaults: {{v: {{driver: confidentialspace, config: {{host: h, wip_provider_path: w}}}}}}
watermark: {{driver: mem}}
policy_hook: {{address: "http://h/", authorized_keys: [{KEYS["auth"].public_key}]}}
tezos:
  {FOUR[0].pkh}: {{allow: {{generic: [transaction], block: }}, jwt_users: [alice], allowed_chains: [NetXdQprcVkpaWU]}}
  {FOUR[1].pkh}: {{authorized_keys: [{KEYS["auth"].public_key}], vault: x}}
  {FOUR[2].pkh}:
"""


def test_another_process_reads_what_this_one_would(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(WHOLE)
    assert asyncio.run(read_config(file)) == load_config(file)
    assert asyncio.run(read_config(file, "/other")) == load_config(file, "/other")


def test_another_process_reads_many_keys_in_parts(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    pkhs = many_hashes(2 * KEYS_PER_PART + 1)
    file.write_text("tezos:\n" + "".join(f"  {pkh}: {{allow: {{block: }}}}\n" for pkh in pkhs))
    config = asyncio.run(read_config(file))
    assert config == load_config(file)
    assert list(config.policies) == pkhs
    # One policy for all, whatever part it came in.
    assert len({id(policy) for policy in config.policies.values()}) == 1


def test_what_another_process_refuses_is_refused_in_its_words(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    for text in ("a: 1", f"tezos: {{{PKH}: {{allow: {{nonsense: }}}}}}", "[", None):
        file.write_text(text) if text is not None else file.unlink()
        with pytest.raises(ConfigError) as here:
            load_config(file)
        with pytest.raises(ConfigError) as there:
            asyncio.run(read_config(file))
        assert str(there.value) == str(here.value)
    file.write_text("")
    with pytest.raises(ConfigError, match=r"^--base-dir must not be empty$"):
        asyncio.run(read_config(file, ""))


@pytest.mark.parametrize(
    ("program", "error", "text"),
    [
        ("", ConfigError, "s.yaml: the process that reads it failed: its answer is not whole"),
        (
            r"import sys; sys.stdout.buffer.write(b'\0\0\0\5abc')",
            ConfigError,
            "s.yaml: the process that reads it failed: its answer is not whole",
        ),
        (
            "from host_backend.config import reading; reading.__version__ = '0.0.0'; reading.write_parts()",
            ConfigError,
            "another version of enclave-host was installed since this one was started: restart it",
        ),
        (
            "from host_backend.config import reading; reading.load_config = lambda *_: 1 // 0; reading.write_parts()",
            ReadingFailed,
            "ZeroDivisionError",
        ),
    ],
)
def test_a_process_that_does_not_do_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, error: type[Exception], text: str
) -> None:
    monkeypatch.setattr(reading, "_PROGRAM", program)
    with pytest.raises(error, match=text):
        asyncio.run(read_config(tmp_path / "s.yaml"))


def test_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"the process that reads it failed: .*No such file"):
        asyncio.run(read_config(tmp_path / "s.yaml"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list["Popen[bytes]"]:
    """The processes that were started; none of them ever answers."""
    processes = []

    def start(*arguments: Any, **options: Any) -> "Popen[bytes]":
        process = Popen(*arguments, **options)
        processes.append(process)
        return process

    monkeypatch.setattr(reading, "Popen", start)
    monkeypatch.setattr(reading, "_PROGRAM", "import signal; signal.pause()")
    return processes


def test_a_process_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list["Popen[bytes]"]
) -> None:
    monkeypatch.setattr(reading, "READING_S", 0.001)
    with pytest.raises(ConfigError, match=r"s\.yaml: could not be read within 0\.001 s$"):
        asyncio.run(read_config(tmp_path / "s.yaml"))
    assert [process.wait() for process in started] == [-9]


def test_a_stop_does_not_wait_for_the_process(tmp_path: Path, started: list["Popen[bytes]"]) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(read_config(tmp_path / "s.yaml"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert [process.wait() for process in started] == [-9]


def test_a_bug_is_logged_and_the_old_policies_stay(caplog: pytest.LogCaptureFixture) -> None:
    signer = signer_of({})
    outcomes: list[Exception | Config] = [KeyError("a bug"), config_of({PKH: OTHER})]

    async def read() -> Config:
        assert signer.policies == {}
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    reload = reload_of(signer, read)
    asyncio.run(reload.reload())
    assert "the configuration was not reloaded because of a bug, the old policies stay" in caplog.text
    assert "Traceback" in caplog.text
    assert "KeyError: 'a bug'" in caplog.text
    assert signer.policies == {}
    asyncio.run(reload.reload())
    assert signer.policies == {PKH: OTHER}


def test_reloads_come_one_after_the_other_and_once_more_for_all_that_were_asked_for_meanwhile() -> None:
    begun = 0

    async def scenario() -> None:
        asked, turns = asyncio.Event(), asyncio.Semaphore(0)

        async def read() -> Config:
            nonlocal begun
            begun += 1
            await turns.acquire()
            return config_of({})

        async def let_it_go_on() -> None:
            # As far as it goes.
            for _ in range(100):
                await asyncio.sleep(0)

        task = asyncio.create_task(reload_of(signer_of({}), read).at_each(asked))
        asked.set()
        await let_it_go_on()
        for _ in range(3):
            asked.set()
            await let_it_go_on()
        assert begun == 1
        turns.release()
        await let_it_go_on()
        assert begun == 2
        turns.release()
        await let_it_go_on()
        assert begun == 2
        asked.set()
        await let_it_go_on()
        assert begun == 3
        task.cancel()

    asyncio.run(scenario())


def test_many_changes_are_taken_over_at_once_and_told_in_steps(caplog: pytest.LogCaptureFixture) -> None:
    pkhs = many_hashes(300)
    old = dict.fromkeys(pkhs[:200], DEFAULT_POLICY)
    new = dict.fromkeys(pkhs[100:], OTHER)
    signer = signer_of(old)
    passes: list[object] = []
    most_at_once = 0

    async def read() -> Config:
        return config_of(new)

    async def scenario() -> None:
        task = asyncio.create_task(reload_of(signer, read).reload())
        nonlocal most_at_once
        while not task.done():
            passes.append(signer.policies)
            before = len(caplog.records)
            await asyncio.sleep(0)
            most_at_once = max(most_at_once, len(caplog.records) - before)

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    # Nothing in between, and at least one pass of the loop for each key that was looked at.
    assert {id(policies) for policies in passes} == {id(old), id(new)}
    assert len(passes) > 400
    # No more lines at once than the log's thread can be left to write.
    assert most_at_once <= LINES_AT_ONCE + 1
    told = [record.message for record in caplog.records]
    assert told.count("key not listed any more") == 100
    assert told.count("key listed") == 100
    assert told.count("policy changed") == 100
    assert told[-1] == "policies reloaded"


def test_what_is_counted_for_each_key_stays_as_it_was_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    policies = dict.fromkeys(many_hashes(MAX_PER_KEY + 1), DEFAULT_POLICY)
    signer = signer_of({})

    async def read() -> Config:
        return config_of(policies)

    asyncio.run(reload_of(signer, read, config_of({}, per_key=True)).reload())
    assert signer.policies == {}
    assert (
        f"{STOPPED}metrics.per_key was true when this host was started: histograms for each key are for at most 200 "
        in (caplog.text)
    )
    asyncio.run(reload_of(signer, read, config_of({}, per_key=False)).reload())
    assert signer.policies == policies


KEYS_AND_CHAIN = f"tezos:\n  {PKH}: {{allow: {{block: }}, allowed_chains: [NetXdQprcVkpaWU]}}\n"


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (f"tezos:\n  {PKH}:\n", f"tezos.{PKH}: has no policy any more"),
        (f"tezos:\n  {PKH}:\n    allow: {{block: }}\n    allowed_chains:\n", "allowed_chains: has no value any more"),
        ("", "tezos: has no value any more, as in a file that was cut short"),
        ("tezos:\n", "tezos: has no value any more, as in a file that was cut short"),
        ("tezos: {}\n", None),
        (KEYS_AND_CHAIN.rstrip(), "the file ends within a line, as one that was cut short"),
        (KEYS_AND_CHAIN, None),
        (f"tezos:\n  {PKH}: {{allow: {{block: }}}}\n", None),
        (f"tezos:\n  {PKH}: {{allow: {{block: }}, authorized_keys: }}\n", None),
        (f"tezos:\n  {FOUR[1].pkh}:\n", None),
    ],
)
def test_a_file_that_was_cut_short_is_not_taken(
    tmp_path: Path, text: str, refusal: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(KEYS_AND_CHAIN)
    started_with = load_config(file)
    signer = signer_of(started_with.policies)
    file.write_text(text)
    with caplog.at_level(logging.INFO):
        asyncio.run(reload_of(signer, lambda: read_config(file), started_with).reload())
    if refusal is None:
        assert signer.policies == load_config(file).policies
    else:
        assert signer.policies == started_with.policies
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert refusal in record.message


def test_what_was_null_before_may_stay_so(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"tezos:\n  {PKH}:")
    started_with = load_config(file)
    signer = signer_of(started_with.policies)
    file.write_text(f"tezos:\n  {FOUR[1].pkh}: {{allow: {{block: }}}}\n  {PKH}:")
    asyncio.run(reload_of(signer, lambda: read_config(file), started_with).reload())
    assert signer.policies == load_config(file).policies


def test_what_came_of_each_reload_is_noted_and_a_note_that_cannot_be_is_no_obstacle(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    outcomes: list[Config | Exception] = [
        config_of({PKH: OTHER}),
        ConfigError("line 3: wrong"),
        ZeroDivisionError(),
        config_of({}),
    ]
    signer, notes = signer_of({}), list[ReloadNote | None]()

    async def read() -> Config:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def note(started: float, problem: str | None) -> None:
        if not outcomes:
            raise OSError(28, "No space left on device")
        write_note(tmp_path, started, problem)

    async def scenario() -> None:
        asked = asyncio.Event()

        async def look() -> None:
            notes.append(read_note(tmp_path))
            if outcomes:
                asked.set()
            else:
                done.set()

        done = asyncio.Event()
        reloading = PolicyReload(config_of({}), read, signer, eager_steps(), [look], note)
        asked.set()
        task = asyncio.create_task(reloading.at_each(asked))
        await done.wait()
        task.cancel()

    asyncio.run(scenario())
    first, second, third, last = notes
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.problem, second.problem) == (None, "line 3: wrong")
    assert third.problem == "a bug, see the log of the host"
    assert first.pid == os.getpid()
    assert first.started <= second.started <= third.started
    assert last == third
    assert "what came of the reload cannot be noted: No space left on device" in caplog.text


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"pid": 1}', b"\xff", b"[" * 100_000])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "last-reload.json").write_bytes(data)
    assert read_note(tmp_path) is None


def test_a_pipe_in_place_of_a_note_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "last-reload.json")
    assert read_note(tmp_path) is None
    os.mkfifo(tmp_path / ".last-reload.json")
    write_note(tmp_path, 1.0, None)
    assert read_note(tmp_path) == ReloadNote(os.getpid(), 1.0, None)


def test_a_note_does_not_write_through_another_name(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    (tmp_path / ".last-reload.json").hardlink_to(other)
    write_note(tmp_path, 1.0, None)
    assert other.read_text() == "kept"


def test_a_note_holds_no_secret_key(tmp_path: Path) -> None:
    secret = FOUR[0].secret
    write_note(tmp_path, 1.0, f"unknown value {secret}")
    assert secret not in (tmp_path / "last-reload.json").read_text()
