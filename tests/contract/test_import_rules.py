"""Who may import whom. A room that needs more than it may import is in the wrong place, or holds the wrong thing."""

import ast
import sys

import pytest

from tests.contract.rooms import DOORS, IMPORTS, MODULES, TABLE, imports, modules, within

#: Pure rooms: no task, no socket, no file, no clock. Some read and write, by the calls of a port.
CORE = tuple(room for row in TABLE if row.ring == "core" for room in row.rooms)
IMPURE = {"asyncio", "trio", "socket", "subprocess", "sqlite3", "time", "threading", "uvicorn", "starlette"}


def defines_store(tree: ast.Module) -> bool:
    """Tell whether a module has a class that is called a key store and is not the port."""
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("KeyStore")]
    return any(node.name != "KeyStore" for node in found)


#: Concrete providers, and who may name them from outside.
PROVIDERS = {
    "enclave_signer.sealing.local": {"enclave_signer.__main__"},
    "enclave_signer.sealing.kbs": {"enclave_signer.__main__", "enclave_signer.keyprovider.__main__"},
    "enclave_signer.sealing.gcp_kms": {"enclave_signer.__main__"},
    "enclave_signer.sealing.vault_transit": {"enclave_signer.__main__"},
    "enclave_signer.sealing.gcp_client": {"enclave_signer.__main__", "enclave_signer.sealing.gcp_kms"},
    # The library offers the key file; all other key stores have the root alone.
    **{
        name: {"host_backend.stores", *(["host_backend.library"] if name == "host_backend.keystore.file" else [])}
        for name, tree in MODULES.items()
        if within(name, ("host_backend.keystore",)) and defines_store(tree)
    },
    # Whoever keeps marks elsewhere looks whether the folder has a file store, and takes its lock.
    "host_backend.watermark.file": {
        "host_backend.stores",
        "host_backend.watermark.memory",
        "host_backend.watermark.firestore.admin",
        "host_backend.watermark.firestore.moving",
        "host_backend.watermark.firestore.place",
        "host_backend.watermark.firestore.states",
    },
    "host_backend.watermark.firestore": {"host_backend.stores"},
    "host_backend.watermark.memory": {"host_backend.stores"},
    "host_backend.api.signing": {"host_backend.app"},
    "host_backend.api.utility": {"host_backend.app"},
    "host_backend.policy_hook": {"host_backend.app"},
}


def test_the_rooms_are_there() -> None:
    for rooms in (DOORS, CORE, tuple(PROVIDERS)):
        for room in rooms:
            assert room in IMPORTS


def test_the_enclave_never_imports_the_host() -> None:
    for name, imported in IMPORTS.items():
        if within(name, ("enclave_signer",)):
            assert not [other for other in imported if within(other, ("host_backend", "quickstart", "tests"))], name


def test_the_host_enters_by_the_doors() -> None:
    for name, imported in IMPORTS.items():
        if within(name, ("host_backend",)):
            entered = {other for other in imported if within(other, ("enclave_signer",))}
            assert not {other for other in entered if not within(other, DOORS)} - {"enclave_signer.__version__"}, name
            assert not [other for other in imported if within(other, ("quickstart", "tests"))], name


@pytest.mark.parametrize(
    ("room", "libraries", "ours"),
    [
        ("enclave_signer.protocol", {"cbor2"}, ("enclave_signer.protocol",)),
        (
            "enclave_signer.tezos",
            set(),
            ("enclave_signer.tezos", "enclave_signer.protocol", "enclave_signer.errors"),
        ),
        (
            "enclave_signer.curves",
            {"_cffi_backend", "cffi", "coincurve", "cryptography", "eth_typing", "nacl", "py_ecc"},
            ("enclave_signer.curves", "enclave_signer.protocol", "enclave_signer.errors"),
        ),
    ],
)
def test_what_a_door_stands_on(room: str, libraries: set[str], ours: tuple[str, ...]) -> None:
    for name, imported in IMPORTS.items():
        if within(name, (room,)):
            for other in imported:
                library = other.partition(".")[0]
                allowed = library in sys.stdlib_module_names | libraries or within(other, ours)
                assert allowed, f"{name} imports {other}"


def test_the_core_is_pure() -> None:
    for name, tree in modules():
        if within(name, CORE):
            assert not {other.partition(".")[0] for other in IMPORTS[name]} & IMPURE, name
            assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)], name


@pytest.mark.parametrize("provider", PROVIDERS)
def test_concrete_providers_are_named_in_the_composition_root_only(provider: str) -> None:
    users = {name for name, imported in IMPORTS.items() if any(within(other, (provider,)) for other in imported)}
    assert {name for name in users if not within(name, (provider,))} == PROVIDERS[provider]


def test_key_stores_have_one_port_and_one_root() -> None:
    for name, imported in IMPORTS.items():
        if not within(name, ("host_backend.keystore", "host_backend.stores", "host_backend.library")):
            entered = {other for other in imported if within(other, ("host_backend.keystore",))}
            assert not {other for other in entered if not within(other, ("host_backend.keystore.base",))}, name


@pytest.mark.parametrize("elsewhere", ["host_backend.watermark.memory", "host_backend.watermark.firestore"])
def test_marks_that_are_elsewhere_know_of_a_file_store_only_where_it_lies(elsewhere: str) -> None:
    found = {
        other
        for name, imported in IMPORTS.items()
        if within(name, (elsewhere,))
        for other in imported
        if within(other, ("host_backend.watermark.file",))
    }
    rooms = ("host_backend.watermark.file.place", "host_backend.watermark.file.old_sqlite")
    assert not {other for other in found if not within(other, rooms)}


def test_only_the_port_of_the_watermark_file_touches_it() -> None:
    """What decides about marks goes through `blocks`, where tests make a disk fail."""
    for name in ("layout", "opening", "slots", "store"):
        assert not {"os", "fcntl", "mmap"} & {
            other.partition(".")[0] for other in IMPORTS[f"host_backend.watermark.file.{name}"]
        }


def test_connections_know_streams_and_no_sockets() -> None:
    """So that another kind of stream changes nothing there."""
    for name in ("serving.server", "serving.connection", "serving.turn", "session"):
        assert not {"socket", "ssl"} & {other.partition(".")[0] for other in IMPORTS[f"enclave_signer.{name}"]}, name


def test_nothing_of_google_s_is_imported_before_it_is_needed() -> None:
    for name, tree in modules():
        if not within(name, ("host_backend",)):
            continue
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not [other for other in imports(node) if within(other, ("google", "grpc"))], name


def test_nothing_knows_the_command_line_or_http() -> None:
    for name, imported in IMPORTS.items():
        if not within(name, ("host_backend.cli", "host_backend.__main__")):
            assert not [other for other in imported if within(other, ("host_backend.cli", "click"))], name
        if not within(name, ("host_backend.api", "host_backend.app")):
            assert not [other for other in imported if within(other, ("starlette", "uvicorn"))], name


def test_no_clock_decides_about_marks() -> None:
    """A clock that goes backwards changes nothing about marks: no one who looks after them asks one."""
    for name, imported in IMPORTS.items():
        if within(name, ("host_backend.watermark", "enclave_signer.tezos")):
            assert not {other.partition(".")[0] for other in imported} & {"time", "datetime", "calendar"}, name
