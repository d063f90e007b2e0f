"""Local clients that are other users, groups and control groups, by root: each gets what its rules allow, and no more."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.doubles.known_keys import FOUR
from tests.doubles.local_users import Caller, as_user, tried
from tests.doubles.local_world import LocalEnclave, holding, rule, running_local, write_image
from tests.doubles.processes import PATIENCE_S, ROOT, kept

HOST = rule(["uid:0"], ["*"], ["*"])
USERS = (2001, 2002, 2003, 2004)
CLIENTS_PER_USER = 16
#: What each user may do with the key in its place.
CALLS = (
    ("UseKey", "PublicKey", "Sign"),
    ("UseKey", "Sign"),
    ("UseKey", "PublicKey"),
    ("UseKey", "PublicKey", "Sign", "ProvePossession"),
)
ATTEMPTS: dict[str, object] = {
    "PublicKey": 0,
    "Sign": {"handle": 0, "message": b"\x05"},
    "ProvePossession": 0,
    "Generate": "Ed25519",
    "Import": b"",
}
SHOP = 1500


@pytest.fixture
def path() -> Iterator[Path]:
    """Where every user can reach a socket, which one in pytest's private folder would not be."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "run" / "enclave.sock"


@contextmanager
def open_to_all(path: Path, *rules: str) -> Iterator[LocalEnclave]:
    with running_local(path, "".join([HOST, *rules]), folder_mode="0711", mode="0666") as enclave, holding(path):
        yield enclave


def use(place: int) -> object:
    return {"UseKey": FOUR[place].pkh}


def everything(path: Path, start: int) -> dict[str, str]:
    """Try every key, and every call with the one that can be had."""
    os.read(start, 1)
    caller = Caller(path)
    found = {f"UseKey {place}": caller.call(use(place)) for place in range(len(FOUR))}
    found |= {name: caller.call({name: argument}) for name, argument in ATTEMPTS.items()}
    caller.close()
    return found


def test_64_clients_of_four_users_at_once_get_their_keys_and_calls_only(path: Path) -> None:
    rules = [rule([f"uid:{USERS[place]}"], CALLS[place], [FOUR[place].pkh]) for place in range(4)]
    reading, writing = os.pipe()
    with open_to_all(path, *rules):
        waiting = [
            (place, as_user(USERS[place], [], partial(everything, path, reading)))
            for place in range(4)
            for _ in range(CLIENTS_PER_USER)
        ]
        os.write(writing, bytes(len(waiting)))
        found = [(place, result()) for place, result in waiting]
    os.close(reading)
    os.close(writing)
    assert len(found) == 64
    for place, answers in found:
        allowed = {f"UseKey {place}", *CALLS[place]} - {"UseKey"}
        assert {name for name, answer in answers.items() if answer == "ok"} == allowed
        assert all(answer.startswith("not allowed: ") for name, answer in answers.items() if name not in allowed)


def test_who_no_rule_names(path: Path) -> None:
    shop = rule([f"uid:{USERS[0]}", f"group:{SHOP}"], ["UseKey"], ["*"]), rule(["gid:2002"], ["UseKey"], ["*"])
    with open_to_all(path, *shop) as enclave:
        assert as_user(USERS[0], [SHOP], partial(tried, path, use(0)))() == "ok"
        assert as_user(USERS[1], [], partial(tried, path, use(0)))() == "ok"
        assert as_user(USERS[0], [], partial(tried, path, use(0)))() == "closed"
        enclave.wait_for(rf"connections refused.*uid={USERS[0]},gid=.*no rule of the image names this client")
        # Having the group alone is not enough, nor is it a primary group.
        assert as_user(USERS[2], [SHOP, 2002], partial(tried, path, use(0)))() == "closed"


def test_root_has_no_rights_of_its_own(path: Path) -> None:
    with running_local(path, rule([f"uid:{USERS[0]}"], ["*"], ["*"]), folder_mode="0711", mode="0666") as enclave:
        assert tried(path, {"Initialize": {}}) == "closed"
        enclave.wait_for("connections refused.*uid=0,")
        assert as_user(USERS[0], [], partial(tried, path, {"Initialize": {}}))() == "ok"


def test_a_process_that_changes_its_user_after_connecting_is_ended(path: Path) -> None:
    def changes() -> list[str]:
        caller = Caller(path)
        before = caller.call(use(0))
        os.setresgid(USERS[0], USERS[0], USERS[0])
        os.setresuid(USERS[0], USERS[0], USERS[0])
        return [before, caller.call({"PublicKey": 0})]

    with open_to_all(path, rule([f"uid:{USERS[0]}"], ["*"], ["*"])) as enclave:
        assert as_user(0, [], changes)() == ["ok", "closed"]
        enclave.wait_for(f"connections ended.*or the same as another user: uid={USERS[0]},")


def test_a_connection_that_is_passed_to_another_user_is_ended(path: Path) -> None:
    with open_to_all(path) as enclave:
        caller = Caller(path)
        assert caller.call(use(0)) == "ok"
        assert as_user(USERS[0], [], partial(caller.call, {"PublicKey": 0}))() == "closed"
        assert caller.call({"PublicKey": 0}) == "closed"
        enclave.wait_for(f"connections ended.*another process writes.*uid={USERS[0]},")
        caller.close()


def test_a_socket_of_a_group_is_for_that_group(path: Path) -> None:
    modes = {"folder_mode": "0750", "mode": "0660", "more": f'group = "{SHOP}"\n'}
    with running_local(path, HOST + rule([f"uid:{USERS[0]}"], ["UseKey"], ["*"]), **modes), holding(path):
        assert path.stat().st_gid == path.parent.stat().st_gid == SHOP
        assert as_user(USERS[0], [SHOP], partial(tried, path, use(0)))() == "ok"
        assert as_user(USERS[0], [], partial(tried, path, use(0)))() == "not allowed to connect"


@contextmanager
def control_group(name: str) -> Iterator[Path]:
    (root,) = [
        Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"
    ]
    folder = root / name
    folder.mkdir()
    try:
        yield folder
    finally:
        folder.rmdir()


def test_control_groups(path: Path) -> None:
    rules = rule(["cgroup:/localuse-a"], ["UseKey"], ["*"]), rule(["cgroup:/localuse-b/"], ["UseKey"], ["*"])
    with (
        control_group("localuse-a") as exact,
        control_group("localuse-b") as above,
        control_group("localuse-b/c") as below,
        control_group("localuse-ab") as other,
        open_to_all(path, *rules) as enclave,
    ):
        for folder, answer in ((exact, "ok"), (above, "closed"), (below, "ok"), (other, "closed"), (None, "closed")):
            assert as_user(USERS[0], [], partial(tried, path, use(0)), cgroup=folder)() == answer, folder
        enclave.wait_for("connections refused.*no rule of the image names this client")


def test_users_that_are_not_mapped_into_a_user_namespace(path: Path) -> None:
    image = write_image(path, HOST + rule([f"uid:{USERS[0]}"], ["*"], ["*"]), folder_mode="0711", mode="0666")
    enclave = LocalEnclave.__new__(LocalEnclave)
    enclave.path = path
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-m", "enclave_signer", "--image", str(image)]
    super(LocalEnclave, enclave).__init__(command)
    with kept(enclave), holding(path):
        assert as_user(USERS[0], [], partial(tried, path, use(0)))() == "closed"
        enclave.wait_for("connections refused.*uid=65534.*is not mapped into the user namespace of this program")


def refusal(image: Path, uid: int) -> str:
    """Start a daemon that cannot, as a user; return why."""
    command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", sys.executable, "-m", "enclave_signer"]
    ended = subprocess.run(
        [*command, "--image", str(image)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 2, ended.stderr
    return ended.stderr.splitlines()[-1]


def test_a_folder_of_another_user_stops_the_start(path: Path) -> None:
    image = write_image(path, HOST, folder_mode="0711")
    path.parent.mkdir()
    path.parent.chmod(0o711)
    os.chown(path.parent, USERS[0], USERS[0])
    assert f"the folder {path.parent} belongs to the user {USERS[0]}, not to 0" in refusal(image, 0)
    os.chown(path.parent, 0, 0)
    os.chown(path.parent.parent, USERS[0], USERS[0])
    assert f"{path.parent.parent} belongs to the user {USERS[0]}, who could put another folder in its place" in refusal(
        image, 0
    )
