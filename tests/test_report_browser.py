"""The page of `dspylab report` in a real headless Chromium, opened from disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_pages import Row, answered, call, failed, material_of, page_of, scored
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from dspylab.records import Message

CHROMIUM = shutil.which("google-chrome") or shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1400,1000",
)  # fmt: skip
HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\"><b>bold</b> \x1b[31mred \u202egpj.exe"

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no Chromium with its driver: apt-get install chromium chromium-driver",
    ),
    # One browser for all of these tests, beside the other tests that import what draws.
    pytest.mark.xdist_group("report"),
]


class Reader:
    """Somebody who reads pages in the browser."""

    def __init__(self, chrome: Chrome, folder: Path) -> None:
        self.chrome = chrome
        self.folder = folder

    def open(self, page: str, fragment: str = "") -> None:
        """Opens a page from disk and waits until it can be used."""
        path = self.folder / "report.html"
        path.write_text(page, encoding="utf-8")
        self.chrome.get("about:blank")
        self.chrome.get(f"{path.as_uri()}{fragment}")
        self.until("return document.documentElement.dataset.ready")

    def until(self, script: str) -> Any:
        """Waits until a script gives something."""
        deadline = time.monotonic() + 30
        while not (found := self.chrome.execute_script(script)):
            assert time.monotonic() < deadline, f"{script}: {self.complaints()}"
            time.sleep(0.02)
        return found

    def all(self, selector: str) -> list[WebElement]:
        return list(self.chrome.find_elements(By.CSS_SELECTOR, selector))

    def one(self, selector: str) -> WebElement:
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def press(self, *keys: str) -> None:
        self.chrome.switch_to.active_element.send_keys(*keys)

    def complaints(self) -> list[str]:
        """What the browser says went wrong: exceptions, and what the page's policy forbade."""
        return [entry["message"] for entry in self.chrome.get_log("browser")]  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = Options()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(str(DRIVER)))
    yield browser
    browser.quit()


@pytest.fixture
def reader(chrome: Chrome, tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(chrome, tmp_path)
    yield reader
    assert reader.complaints() == []


@pytest.fixture(scope="module")
def tickets_page() -> str:
    """Three runs, 30 examples: `a` fails on one, `b` is wrong on ten, `c` on all."""
    b = [answered(i, float(i >= 10), prediction={"label": f"b says {i}"}) for i in range(30)]
    b[20] = answered(20, 1.0, call(response="spoken by b"), prediction={"label": "needle"}, example_s=9.0)
    runs = {"a": scored(*[1.0] * 29, None), "b": b, "c": scored(*[0.0] * 30)}
    return page_of(material_of(runs), plots=[])


def test_an_example_stands_side_by_side_over_runs(reader: Reader, tickets_page: str) -> None:
    reader.open(tickets_page, "#example-21")
    assert reader.one("#detail h3").text.startswith("Example 21")
    assert "Ticket 20 broke." in reader.one("#detail .inputs").text
    assert reader.texts(".card header code") == ["a", "b", "c"]
    assert reader.texts(".card header .chip") == ["right", "right", "wrong"]
    assert "needle" in reader.all(".card")[1].text
    reader.all(".card summary")[1].click()
    reader.until("return document.querySelector('.call')")
    call_text = reader.one(".call").text
    assert "route · mini · ChatAdapter" in call_text
    assert "Route the ticket." in call_text
    assert "spoken by b" in call_text


def test_filters_and_orders(reader: Reader, tickets_page: str) -> None:
    reader.open(tickets_page)
    filters = {button.get_attribute("data-filter"): button for button in reader.all("#filters button")}
    assert [button.text for button in filters.values()] == [
        "all 30", "failed 1", "flipped 30", "slow 3", "all wrong 0", "all right 0",
    ]  # fmt: skip
    filters["failed"].click()
    assert reader.one("#shown").text == "1 of 30 examples"
    assert reader.texts(".line .number") == ["30"]
    filters["all"].click()
    reader.one("#order option[value=slowest]").click()
    assert reader.texts(".line .number")[0] == "21"
    # Without the worst run fewer examples differ.
    reader.one("input[data-run=c]").click()
    assert filters["flipped"].text == "flipped 10"
    assert reader.texts(".list-head .cell") == ["1", "2"]


def test_search_finds_answers_and_says_how_many(reader: Reader, tickets_page: str) -> None:
    reader.open(tickets_page)
    reader.press("/")
    reader.press("needle broke")
    reader.until("return document.getElementById('shown').textContent.startsWith('1 of')")
    assert reader.texts(".line .number") == ["21"]
    reader.press(Keys.ENTER)
    assert reader.one("#detail h3").text.startswith("Example 21")
    reader.press("/")
    reader.press(Keys.ESCAPE)
    reader.until("return document.getElementById('shown').textContent.startsWith('30 of')")


def test_everything_works_by_keyboard(reader: Reader, tickets_page: str) -> None:
    reader.open(tickets_page)
    reader.one("#list").send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    reader.until("return document.querySelector('#detail h3').textContent.startsWith('Example 2 ')")
    selected = reader.one("[role=option][aria-selected=true]")
    assert reader.one("#list").get_attribute("aria-activedescendant") == selected.get_attribute("id")
    reader.press(Keys.END)
    reader.until("return document.querySelector('#detail h3').textContent.startsWith('Example 30')")
    reader.press(Keys.ENTER)
    assert reader.chrome.switch_to.active_element.get_attribute("id") == "detail"
    reader.press("c")
    reader.until("return document.querySelectorAll('.call').length === 3")
    reader.press("k", "c")
    reader.until("return document.querySelector('#detail h3').textContent.startsWith('Example 29')")
    reader.press("f")
    assert reader.one("[data-filter=failed]").get_attribute("aria-pressed") == "true"
    reader.press("?")
    assert reader.one("#keys").is_displayed()
    reader.press(Keys.ESCAPE)
    assert not reader.one("#keys").is_displayed()


def test_the_table_is_sorted_by_any_column(reader: Reader, tickets_page: str) -> None:
    reader.open(tickets_page)
    heading = next(th for th in reader.all("#runs th") if th.text == "accuracy")
    assert reader.texts("#runs tbody code") == ["a", "b", "c"]
    heading.find_element(By.TAG_NAME, "button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    heading.find_element(By.TAG_NAME, "button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert reader.texts("#runs tbody code") == ["c", "b", "a"]


def test_dark_and_light(reader: Reader, tickets_page: str) -> None:
    def background() -> str:
        return str(reader.chrome.execute_script("return getComputedStyle(document.body).backgroundColor"))

    def prefer(theme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": theme}]
        reader.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    prefer("light")
    reader.open(tickets_page)
    light = background()
    prefer("dark")
    dark = background()
    assert light != dark
    reader.one("#theme").click()
    assert background() == light
    reader.press("t")
    assert background() == dark
    reader.press("t")
    prefer("light")
    assert background() == light


def test_scores_that_are_not_pass_or_fail_have_levels(reader: Reader) -> None:
    graded = [answered(i, i / 10, metrics={"accuracy": i / 10, "tone": 1.0}) for i in range(11)]
    reader.open(page_of(material_of({"graded": graded}), plots=[]))
    assert reader.texts("#filters button") == ["all 11", "failed 0", "flipped 0", "slow 0"]
    cells = reader.texts(".line .cell")
    assert (cells[0], cells[-1]) == ("▁", "█")
    assert "tone 1.00" in reader.one(".card").text


def test_what_models_say_can_not_act(reader: Reader) -> None:
    rows: list[Row] = [
        answered(
            index, 1.0, call(response=HOSTILE, prompt=(Message(role=HOSTILE, text=HOSTILE),)),
            example_id=HOSTILE, inputs={HOSTILE: HOSTILE}, labels={HOSTILE: HOSTILE},
            prediction={HOSTILE: HOSTILE}, metric_details={HOSTILE: HOSTILE},
        )
        for index in range(3)
    ]  # fmt: skip
    runs = {HOSTILE: [*rows, failed(3, HOSTILE)], "b": scored(0.0, 0.0, 0.0, 0.0)}
    reader.open(page_of(material_of(runs, description=HOSTILE)))
    reader.press("c")
    reader.until("return document.querySelectorAll('.call').length === 2")
    assert reader.chrome.title == "triage · dspylab"
    assert reader.all("img") == []
    assert len(reader.all("script:not([type])")) == 1
    assert reader.all("#detail b:not(.rank)") == []
    shown = reader.one(".card").text
    assert "</script><img src=x onerror=" in shown
    assert "\\x1b[31mred \\u202egpj.exe" in shown
    assert "\x1b" not in reader.chrome.execute_script("return document.body.innerText")


def test_many_examples_draw_only_what_is_seen(reader: Reader) -> None:
    runs = {f"r{number}": scored(*[1.0] * 700) for number in range(3)}
    reader.open(page_of(material_of(runs), plots=[]))
    assert reader.one("#shown").text == "700 of 700 examples"
    assert 10 < len(reader.all(".line")) < 80
    reader.press("j")
    reader.one("#list").send_keys(Keys.END)
    reader.until("return document.querySelector('#detail h3').textContent.startsWith('Example 700')")
    assert reader.texts(".line .number")[-1] == "700"
    assert "Ticket 699 broke." in reader.one("#detail .inputs").text
