"""The pictures of the performance page show the figures of its table."""

from xml.etree import ElementTree

import pytest

from benchmarks.pictures import DOCUMENT, FOLDER, bars, drawn

TABLE = """
| HTTP tz1, 16 clients | 3102 /s | `file` 606 /s, alone | 1.09 | 5.59 | ≥ 6 | no |
| HTTP tz1, 1 client, p50 | 1.002 ms | `file` 1.6 ms, alone | 1.09 | 0.50 | ≤ 0.8 | yes |
| start | 1 s | `file` 0.36 s, side by side | 0.4 | 4.81 | ≤ 1 | does not count |
| wire Bls, 1 in flight | 2209 /s | `tee-signer` 2710 /s, alone | 0.97 | 99 | ≥ 0.95 | yes |
| a signature with 10 and with 10 000 keys | 325 and 339 µs | | | 1.04 | ≤ 1.2 | yes |
"""


def test_a_bar_is_longer_the_faster_we_are() -> None:
    shown = [(bar.name, bar.ours, bar.wanted, bar.held) for bar in bars(TABLE)]
    assert shown == [
        ("HTTP tz1, 16 clients / file", 5.59, 6.0, False),
        ("HTTP tz1, 1 client, p50 / file", 2.0, 1.25, True),
        ("wire Bls, 1 in flight / tee-signer", 99.0, 0.95, True),
    ]


@pytest.mark.parametrize("name", drawn(TABLE))
def test_a_picture_is_well_formed_and_stays_within_its_frame(name: str) -> None:
    picture = ElementTree.fromstring(drawn(TABLE)[name])
    places = [float(text.attrib["x"]) for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert 0 < min(places) < max(places) < float(picture.attrib["width"]) - 30


def test_they_show_the_table_as_it_stands() -> None:
    pictures = drawn(DOCUMENT.read_text())
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == pictures, "python -m benchmarks.pictures"
    assert all(len(text) < 10_000 for text in pictures.values())
