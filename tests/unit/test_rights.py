"""Rules for clients: whom they name, what those may do, and what cannot be said in an image."""

from pathlib import Path
from typing import cast

import pytest

from enclave_signer.addresses import Address, UnixAddress
from enclave_signer.errors import BlobCorrupt, ConfigError, NotAllowed, SealingError, SealingRefused
from enclave_signer.image import parse_image
from enclave_signer.protocol.calls import CALLS
from enclave_signer.protocol.messages import Import, PublicKey
from enclave_signer.rights import Client, Condition, Fact, Rights, Rule, Rules
from enclave_signer.rights_config import UnixSocketConfig, check_rights
from tests.doubles.known_keys import FOUR, KnownKey
from tests.doubles.local_world import rule

ALICE, BOB = FOUR[:2]
IMAGE = 'development = true\nsealers = ["local"]\n'
LOCAL = '[local]\nsealing_key = "key"\n'
UNIX, PORT = UnixAddress(Path("/run/enclave/s")), Address("127.0.0.1", 2000)


def key_of(key: KnownKey) -> PublicKey:
    return PublicKey(key.key_type, key.public_key_bytes)


def rules_of(*texts: str) -> tuple[Rule, ...]:
    rights = parse_image(IMAGE + "".join(texts) + LOCAL, "image.toml").rights
    assert rights is not None
    return rights


def rights_of(client: Client, *texts: str) -> Rights | None:
    return Rules(rules_of(*texts), lambda _: None).rights_of(client)


@pytest.mark.parametrize(
    ("peer", "client", "named"),
    [
        (["uid:1001"], Client(uid=1001), True),
        (["uid:1001"], Client(uid=1002), False),
        (["uid:1001"], Client(gid=1001, groups=frozenset({1001})), False),
        (["uid:0"], Client(), False),
        (["gid:1001"], Client(gid=1001), True),
        (["gid:1001"], Client(uid=1001, groups=frozenset({1001})), False),
        (["group:1500"], Client(groups=frozenset({7, 1500})), True),
        (["group:1500"], Client(gid=1500, groups=frozenset({7})), False),
        (["uid:1001", "group:1500"], Client(uid=1001, groups=frozenset({1500})), True),
        (["uid:1001", "group:1500"], Client(uid=1001), False),
        (["cgroup:/shop.slice/a"], Client(cgroup="/shop.slice/a"), True),
        (["cgroup:/shop.slice/a"], Client(cgroup="/shop.slice/a/b"), False),
        (["cgroup:/shop.slice/a"], Client(cgroup="/shop.slice/ab"), False),
        (["cgroup:/shop.slice/"], Client(cgroup="/shop.slice/a/b"), True),
        (["cgroup:/shop.slice/"], Client(cgroup="/shop.slice"), False),
        (["cgroup:/shop.slice/"], Client(cgroup="/shop.slice2/a"), False),
        (["cgroup:/shop.slice/"], Client(), False),
        ([f"client:{'ab' * 32}"], Client(key="ab" * 32), True),
        ([f"client:{'ab' * 32}"], Client(key="cd" * 32), False),
        ([f"client:{'ab' * 32}"], Client(), False),
    ],
)
def test_whom_a_rule_names(peer: list[str], client: Client, named: bool) -> None:
    assert (rights_of(client, rule(peer, ["Sign"], ["*"])) is not None) is named


def test_what_no_rule_allows_is_refused_and_told() -> None:
    told: list[str] = []
    rules = Rules(rules_of(rule(["uid:1"], ["UseKey", "Sign"], [ALICE.pkh])), told.append)
    rights = rules.rights_of(Client(uid=1))
    assert rights is not None
    for _ in range(2):
        assert rights.narrowed("Sign")
        rights.check("Sign", key_of(ALICE))
    rights.check_hash("UseKey", ALICE.pkh)
    with pytest.raises(NotAllowed, match=f"^not allowed: no rule lets this client make the call Sign with '{BOB.pkh}'"):
        rights.check("Sign", key_of(BOB))
    with pytest.raises(NotAllowed, match=r"make the call PublicKey$"):
        rights.narrowed("PublicKey")
    with pytest.raises(NotAllowed, match=r"make the call UseKey with 'tz1'$"):
        rights.check_hash("UseKey", "tz1")
    with pytest.raises(NotAllowed, match="Sign does not name its key beforehand"):
        rights.check("Sign", None)
    assert len(told) == 4
    assert rules.rights_of(Client(uid=2)) is None


def test_a_key_that_is_named_in_no_known_way_is_refused() -> None:
    rights = rights_of(Client(uid=1), rule(["uid:1"], ["Import"], [ALICE.pkh]))
    assert rights is not None
    with pytest.raises(NotAllowed, match="Import does not name its key beforehand"):
        rights.check_call(Import(cast("bytes", bytearray(5))), lambda _: key_of(ALICE))


def test_a_client_has_the_rights_of_each_rule_that_names_it() -> None:
    mine = rule(["uid:1"], ["UseKey", "Sign"], [ALICE.pkh]), rule(["group:5"], ["UseKey", "PublicKey"], [BOB.pkh])
    rights = rights_of(Client(uid=1, groups=frozenset({5})), *mine)
    assert rights is not None
    rights.check("Sign", key_of(ALICE))
    rights.check("PublicKey", key_of(BOB))
    for call, key in (("Sign", BOB), ("PublicKey", ALICE)):
        with pytest.raises(NotAllowed):
            rights.check(call, key_of(key))
    every = rights_of(Client(uid=1), *mine, rule(["uid:1"], ["*"], ["*"]))
    assert every is not None
    assert not [call for call in CALLS if every.narrowed(call)]


@pytest.mark.parametrize(("blob", "error"), [(b"TKSB\x01", BlobCorrupt), (b"TKSB\x02\0\0", SealingRefused)])
def test_a_blob_of_a_later_version_is_refused_and_not_corrupt(blob: bytes, error: type[SealingError]) -> None:
    rights = rights_of(Client(uid=1), rule(["uid:1"], ["Import"], [ALICE.pkh]))
    assert rights is not None
    with pytest.raises(error):
        rights.check_call(Import(blob), lambda _: key_of(ALICE))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("rights = []\n", "rights: is empty"),
        ("[[rights]]\n", r"rights\[0\].peer: must name at least one"),
        (rule([], ["Sign"], ["*"]), r"rights\[0\].peer: must name at least one"),
        (rule(["root"], ["Sign"], ["*"]), "'root' is none of uid:1001"),
        *[
            (rule([peer], ["Sign"], ["*"]), "must be like ")
            for peer in (
                *("uid:", "uid:-1", "uid:01", "uid:alice", "uid:4294967295", "gid:x", "group: 1"),
                *("cgroup:", "cgroup:/", "cgroup:a", "cgroup:/a/../b", "cgroup:/a//b", "cgroup://"),
                *("client:", "client:AB"),
            )
        ],
        (rule(["uid:1"], [], ["*"]), r"rights\[0\].calls: must name at least one"),
        (rule(["uid:1"], ["Encrypt"], ["*"]), "'Encrypt' is not known"),
        (rule(["uid:1"], ["*", "Sign"], ["*"]), r"'\*' is not known, known are '\*' alone"),
        (rule(["uid:1"], ["Sign"], []), r"rights\[0\].keys: must name at least one"),
        (rule(["uid:1"], ["Sign"], ["*", ALICE.pkh]), "alone, or public key hashes"),
        (rule(["uid:1"], ["Sign"], [ALICE.pkh[:-1]]), "alone, or public key hashes"),
        (rule(["uid:1"], ["Generate"], [ALICE.pkh]), "where Generate is allowed: the hash of a new key is not known"),
        (rule(["uid:1"], ["*"], [ALICE.pkh]), "where Generate is allowed"),
        (rule(["uid:1"], ["Sign"], ["*"]) + "who = 1\n", r"rights\[0\].who: is not known here"),
        ("[unix_socket]\n", r"unix_socket: only where \[\[rights\]\] say"),
        *[
            (f"{rule(['uid:1'], ['Sign'], ['*'])}[unix_socket]\n{field}\n", f"unix_socket.{field.partition(' ')[0]}: ")
            for field in (
                *('folder_mode = "0777"', 'folder_mode = "0720"', 'folder_mode = "711"', 'folder_mode = "0611"'),
                *('mode = "0777"', 'mode = "0466"', "mode = 600", 'mode = "0o600"', 'group = "users"', "group = 5"),
                "owner = 1",
            )
        ],
    ],
)
def test_what_cannot_be_said(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_image(IMAGE + text + LOCAL, "image.toml")


def test_rights_about_no_key_need_none() -> None:
    (read,) = rules_of('[[rights]]\npeer = ["uid:1"]\ncalls = ["Initialize", "Attest"]\n')
    assert read == Rule((Condition(Fact.UID, "1"),), frozenset({"Initialize", "Attest"}), frozenset())
    rights = Rules([read], lambda _: None).rights_of(Client(uid=1))
    assert rights is not None
    assert not rights.narrowed("Initialize")


def test_who_reaches_the_socket() -> None:
    text = (
        f'{IMAGE}{rule(["uid:1"], ["Sign"], ["*"])}[unix_socket]\nfolder_mode = "0711"\nmode = "0666"\ngroup = "15"\n'
    )
    assert parse_image(text + LOCAL, "image.toml").unix_socket == UnixSocketConfig(0o711, 0o666, 15)


@pytest.mark.parametrize(
    ("peer", "listen", "tls", "match"),
    [
        ("uid:1", PORT, False, "clients of 127.0.0.1:2000 cannot be distinguished without TLS"),
        ("uid:1", PORT, True, "uid: is never known of clients of 127.0.0.1:2000"),
        ("cgroup:/a", PORT, True, "cgroup: is never known"),
        (f"client:{'ab' * 32}", UNIX, False, "client: is never known of clients of unix:/run/enclave/s"),
    ],
)
def test_rules_that_could_name_no_client_stop_the_start(
    peer: str, listen: Address | UnixAddress, tls: bool, match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        check_rights(rules_of(rule([peer], ["Sign"], ["*"])), None, listen, tls=tls)


def test_rules_that_can() -> None:
    check_rights(rules_of(rule(["uid:1", "cgroup:/a"], ["Sign"], ["*"])), UnixSocketConfig(), UNIX, tls=False)
    check_rights(rules_of(rule([f"client:{'ab' * 32}"], ["Sign"], ["*"])), None, PORT, tls=True)
    check_rights(None, None, PORT, tls=False)
    with pytest.raises(ConfigError, match=r"unix_socket: 127\.0\.0\.1:2000 is no Unix socket"):
        check_rights(rules_of(rule([f"client:{'ab' * 32}"], ["Sign"], ["*"])), UnixSocketConfig(), PORT, tls=True)
