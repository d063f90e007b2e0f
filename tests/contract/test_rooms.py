"""The table of rooms says what the code does: where every module is, and what each room imports."""

import pytest

from tests.contract.rooms import IMPORTS, PACKAGES, ROOMS, TABLE, Row, does_of, imports_of, module_of, room_of, within


def test_every_module_has_a_room_and_every_room_is_there() -> None:
    without = {name for name in IMPORTS if room_of(name) is None} - {*PACKAGES}
    # Folders whose files are rooms of their own hold nothing but a line about themselves.
    assert not {name for name in without if IMPORTS[name]}
    assert not {name for name in without if not any(within(room, (name,)) for room in ROOMS)}
    assert not {room for room in ROOMS if not any(within(name, (room,)) for name in IMPORTS)}
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.rooms[0])
def test_a_room_imports_what_the_table_says(row: Row) -> None:
    """`make fix` writes the column: then see whether the room should need the new imports in it."""
    assert row.imports == imports_of(row)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.rooms[0])
def test_a_room_does_what_its_modules_say_in_their_first_lines(row: Row) -> None:
    """`make fix` writes the column."""
    assert row.does == does_of(row)


def test_no_module_imports_itself_by_a_detour() -> None:
    """Imports below `TYPE_CHECKING`, and those that are made late, count as well: a circle is one all the same."""
    graph = {name: {module_of(other) for other in imported} - {None, name} for name, imported in IMPORTS.items()}
    while leaves := {name for name, imported in graph.items() if not imported & graph.keys()}:
        graph = {name: imported for name, imported in graph.items() if name not in leaves}
    assert not graph
