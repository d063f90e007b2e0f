"""The pages of both addresses in Chromium: at the width of a desk and of a phone, in light and in dark."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.browser import Page, browser
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.processes import running_local_enclave

SIZES = {"desk": (1280, 800), "phone": (390, 844), "narrow": (320, 568)}
#: Each page: whether the utility address has it, and where.
PAGES = {"landing": (True, "/"), "docs": (True, "/docs"), "docs-of-signing": (False, "/docs")}
#: Where pictures are kept to be looked at; else they go with the test.
PICTURES = os.environ.get("SCREENSHOTS")
#: How bright the text and its background are, from 0 to 765.
BRIGHTNESS = """(() => {
  const sum = text => text.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b);
  const style = getComputedStyle(document.body);
  return [sum(style.color), sum(style.backgroundColor)];
})()"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    with running_local_enclave(folder / "sealing.key") as enclave:
        absent = "tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb"
        config = write_config(folder, enclave.port, {**{key.pkh: BAKER for key in FOUR}, absent: BAKER})
        import_keys(config, *FOUR)
        with running_host(config) as running:
            for key in FOUR[:3]:
                assert running.sign(key.pkh, attestation(5_000_000)).status == 200
            yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as shown:
        yield shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_asks_for_nothing_else(
    host: Host, page: Page, tmp_path: Path, name: str, size: str, scheme: str
) -> None:
    width, height = SIZES[size]
    utility, path = PAGES[name]
    url = f"http://127.0.0.1:{host.utility_port if utility else host.port}{path}"
    page.asked.clear()
    page.complaints.clear()
    page.show(url, width, height, scheme)
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value("matchMedia('(prefers-color-scheme: dark)').matches") is (scheme == "dark")
    text, behind = page.value(BRIGHTNESS)
    assert (text > behind) is (scheme == "dark")
    assert [asked for asked in page.asked if asked != "data:,"] == [url]
    assert page.complaints == []
    folder = Path(PICTURES) if PICTURES else tmp_path
    page.screenshot(folder / f"{name}-{size}-{scheme}.png")
