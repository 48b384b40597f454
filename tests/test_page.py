"""Results as a page: what it shows is what the tables say, it asks nobody for anything, and a browser can use it."""

import base64
import csv
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic import MANIFEST, cost, fill, finetuned

from snp.cli import main
from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.tables import TABLES, rows
from snp.report import page as pages
from snp.report.board import Line, front
from snp.report.charts import KINDS, PARTS
from snp.report.claims import CLAIMED, claims
from snp.report.frame import Measured
from snp.report.page import content, dump, loss, page
from snp.report.runs import rounded, series, told
from snp.report.table import table
from snp.runs.store import Store

PLAN = {"cost": {"towers": {}}, "units": {}, "masks": 0, "note": ""}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Dense 90, 91, 92 per cent; snp 88, 90, 89; two of three seeds of upop; multiflow; cross-modal; no other."""
    store = Store(tmp_path_factory.mktemp("page") / "results")
    fill(store, find("scenes/dense@100", "desk"), [0.90, 0.91, 0.92], flops_ratio=1.0)
    fill(
        store,
        find("scenes/snp@60", "desk"),
        [0.88, 0.90, 0.89],
        kind="joint",
        plan=PLAN,
        options={"block": 2},
    )
    fill(store, find("scenes/upop@60", "desk"), [0.85, 0.86], flops_ratio=0.70)
    fill(
        store,
        find("scenes/multiflow@60", "desk"),
        [0.91, 0.90, 0.92],
        kind="unstructured",
        stored_ratio=1.0,
        flops_ratio=1.0,
    )
    fill(store, find("scenes/cross-modal@60", "desk"), [0.70, 0.71, 0.72], kind="shared", flops_ratio=1.0)
    return store


@pytest.fixture(scope="module")
def tables(store: Store) -> dict[str, Measured]:
    return {name: Measured(rows(name, "desk"), store) for name in TABLES}


@pytest.fixture(scope="module")
def shown(tables: dict[str, Measured], store: Store) -> dict[str, Any]:
    return content(tables, store, "desk")


def line(shown: dict[str, Any], label: str, benchmark: str = "refcoco") -> Line:
    (found,) = [line for line in shown["lines"] if (line["label"], line["benchmark"]) == (label, benchmark)]
    return found


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are made without the libraries that draw them."""
    monkeypatch.setattr(pages, "libraries", lambda: dict.fromkeys(["datatables", "datatables_style", "vega"], ""))
    monkeypatch.setattr(pages, "charts", dict)


def cells(text: str, label: str) -> list[str]:
    """What stands in the first line of a row on the leaderboard, as text."""
    link = f'href="#/row/{label.replace("/", "%2F").replace("@", "%40")}"'
    (found, *_) = [part for part in re.findall(r"<tr data-line.*?</tr>", text, re.DOTALL) if link in part]
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[dh].*?</t[dh]>", found, re.DOTALL)]


@pytest.mark.slow
def test_scores_losses_and_costs_are_those_of_the_table(shown: dict[str, Any], store: Store) -> None:
    long = list(csv.DictReader(io.StringIO(table("table1", store, "desk", "scenes", "csv"))))
    printed = table("table1", store, "desk", "scenes")
    for label in ("scenes/dense@100", "scenes/snp@60", "scenes/multiflow@60"):
        found = line(shown, label, "refcoco+")
        splits = [
            one
            for one in long
            if (one["label"], one["benchmark"], one["type"], one["metric"]) == (label, "refcoco+", "all", "precision@1")
        ]
        assert found["score"] == pytest.approx(sum(float(one["mean"]) for one in splits) / len(splits))
        for cost_ in ("stored_ratio", "nonzero_ratio", "flops_ratio"):
            assert found[cost_] == pytest.approx(float(splits[0][cost_]))
        assert f"| {loss(found)} " in printed  # all benchmarks have equal scores here
    # by hand: differences of -2, -1 and -3 points, as in the tests of tables
    snp = line(shown, "scenes/snp@60")
    assert (snp["score"], snp["score_low"], snp["score_high"]) == (89.0, 86.516, 91.484)
    assert loss(snp) == "-2.0 [-4.5, +0.5]"


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
def test_every_row_of_every_table_is_there_once_and_missing_ones_are_marked(shown: dict[str, Any]) -> None:
    labels = {row.label for name in TABLES for row in rows(name, "desk")}
    assert shown["rows"].keys() == labels == {line["label"] for line in shown["lines"]}
    assert len(shown["lines"]) == len({(line["label"], line["benchmark"]) for line in shown["lines"]})
    text = page(shown, "")
    assert cells(text, "scenes/snp@60")[0] == "snp" and cells(text, "scenes/snp@60")[-1] == "3 of 5"
    assert cells(text, "scenes/snp@60")[5:7] == ["89.0 [86.5, 91.5]", "-2.0 [-4.5, +0.5]"]
    assert cells(text, "scenes/upop@60")[-1] == "2 of 5"
    assert (
        cells(text, "scenes/lottery@60")[5:7] == ["missing", ""] and cells(text, "scenes/lottery@60")[-1] == "missing"
    )
    assert line(shown, "scenes/lottery@60")["score"] is None
    # a size without results has the kind of its method all the same, so that a filter finds it
    assert cells(text, "scenes/snp@30")[7] == "joint"


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
def test_all_claims_are_there_with_their_verdicts(shown: dict[str, Any], tables: dict[str, Measured]) -> None:
    wanted = [claim for name in CLAIMED if not tables[name].scores.empty for claim in claims(tables[name])]
    assert wanted and [(one["where"], one["verdict"]) for one in shown["claims"]] == [
        (c.where, c.verdict) for c in wanted
    ]
    assert page(shown, "").count('<li data-verdict="') == len(wanted)


@pytest.mark.slow
def test_a_front_is_what_no_row_beats_at_the_same_or_a_lower_cost(shown: dict[str, Any]) -> None:
    def of(cost: float, score: float | None) -> Line:
        return {"cost": cost, "score": score}

    cheap, level, best, worse, same, unknown = (
        of(0.3, 70.0),
        of(0.6, 80.0),
        of(1.0, 85.0),
        of(0.8, 79.0),
        of(0.60004, 79.9),
        of(0.1, None),
    )
    assert front([best, worse, level, same, unknown, cheap], "cost") == [cheap, level, best]
    # upop has the least arithmetic; single weights, which save none, do not stand against whole units in size
    assert line(shown, "scenes/snp@60")["fronts"] == ["size", "FLOPs"]
    assert line(shown, "scenes/upop@60")["fronts"] == ["FLOPs"]
    assert line(shown, "scenes/multiflow@60")["fronts"] == ["size"]
    assert line(shown, "scenes/cross-modal@60")["fronts"] == []


@pytest.mark.slow
def test_a_row_leads_to_its_runs_and_a_run_has_plan_options_and_manifest(shown: dict[str, Any]) -> None:
    row = find("scenes/snp@60", "desk")
    own = shown["rows"][row.label]
    assert [run["slug"] for run in own["runs"] if run["seed"] == 0] == [run.slug for run in row.runs(0)]
    assert own["tables"] == ["table1", "figure1", "ablations"]
    run = shown["runs"][row.compress(0).slug]
    assert run["metrics"]["plan"] == PLAN and run["metrics"]["options"] == {"block": 2}
    assert run["parent"] == row.pretrain.slug and run["spec"]["method"] == "snp"
    assert {name: run["manifest"][name] for name in MANIFEST} == MANIFEST
    tuned = shown["runs"][row.finetune(1, "refcoco").slug]
    assert tuned["metrics"] == rounded(finetuned("refcoco", 0.90)) and tuned["parent"] == row.compress(1).slug


def test_what_manifests_share_is_told_once(tmp_path: Path) -> None:
    store, row = Store(tmp_path), find("scenes/snp@60", "desk")
    manifest = MANIFEST | {"config": {"recipe": {"lr": 0.001}, "spec": {}}, "packages": {"torch": "2"}}
    for seed in row.seeds:
        store.save(row.compress(seed), manifest, cost(row))
    values = told({row.label: ["table1"]}, {row.label: row}, store)
    assert values["shared"] == [{"recipe": {"lr": 0.001}}, {"torch": "2"}]
    runs = [values["runs"][row.compress(seed).slug]["manifest"] for seed in row.seeds]
    assert [(one["config"], one["packages"]) for one in runs] == [({"shared": 0}, {"shared": 1})] * len(row.seeds)


def test_long_curves_are_thinned_but_for_their_ends_and_what_is_measured() -> None:
    curve = [{"step": step, "loss": 1 / step} | ({"val/mean_iou": 0.5} if step == 57 else {}) for step in range(1, 101)]
    thin = series(curve, 10)
    assert len(thin["step"]) == 11 and {1, 57, 100} <= {*thin["step"]}
    assert list(thin["series"]) == ["val/mean_iou", "loss"]
    assert thin["series"]["val/mean_iou"][thin["step"].index(57)] == 0.5
    assert series(curve[:5], 10)["series"]["loss"] == [1.0, 0.5, 0.3333, 0.25, 0.2]
    assert rounded({"a": [float("nan"), 1.23456, 7]}) == {"a": [None, 1.235, 7]}


def test_kinds_and_parts_have_looks_of_their_own() -> None:
    plain = {kind: look for kind, look in KINDS.items() if " + " not in kind}
    assert len({colour for colour, _ in plain.values()}) == len({mark for _, mark in plain.values()}) == len(plain)
    assert len({*KINDS.values()}) == len(KINDS)
    for kind, look in KINDS.items() - plain.items():  # the mark of the weights, the colour of what is special
        weights, special = kind.split(" + ")
        assert look == (KINDS[special][0], KINDS[weights][1])
    assert len({*PARTS.values()}) == len(PARTS)


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
def test_equal_results_give_equal_bytes_in_the_place_of_the_report_before(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "TABLES", ["tickets"])  # one is enough here
    monkeypatch.setattr(pages, "CLAIMED", [])
    made = pages.report(store, "desk", tmp_path / "a.html")
    before = [path.read_bytes() for path in made]
    assert [path.name for path in made] == ["a.html", "a.json", "a.csv"]
    assert [path.read_bytes() for path in pages.report(store, "desk", tmp_path / "a.html")] == before


def test_what_ends_an_element_cannot_stand_in_one() -> None:
    text = pages._inert('{"a": "</Script><!-- b"}')
    assert "</" not in text and "<!--" not in text and json.loads(text) == {"a": "</Script><!-- b"}


def test_a_page_takes_the_place_of_no_file_of_others(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="is no name of a page"):
        pages.report(store, "desk", tmp_path / "page.json")
    (tmp_path / "package.json").write_text('{"name": "mine"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"package\.json: is there already, and not of `snp report`"):
        pages.report(store, "desk", tmp_path / "package.html")
    monkeypatch.chdir(tmp_path)
    Path("report.html").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["report", "--out", str(store.root)])
    hint = "report.html: is there already (--html report.html replaces it, --html FILE leaves it)"
    assert hint in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"package.json", "report.html"}


def test_an_empty_store_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "--out", str(tmp_path), "--html", str(tmp_path / "a.html")])
    assert "holds no results of any table" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_csv_has_every_metric_of_every_table(tables: dict[str, Measured], store: Store) -> None:
    lines = list(csv.DictReader(io.StringIO(dump(tables))))
    own = [{k: v for k, v in one.items() if k != "table"} for one in lines if one["table"] == "table1"]
    assert own == list(csv.DictReader(io.StringIO(table("table1", store, "desk", format="csv"))))
    assert {one["table"] for one in lines} == {*TABLES}


# the whole page, of the committed results


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of results/desk, as the command makes it."""
    path = tmp_path_factory.mktemp("written") / "report.html"
    code = (
        "import sys; from snp.cli import main; "
        f"main(['report', '--html', {str(path)!r}]); "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *paths, _, said = done.stdout.splitlines()
    assert paths == [str(path.with_suffix(end)) for end in (".html", ".json", ".csv")]
    assert said == f"open {path} in a browser"
    return path


LOADING = ("src", "srcset", "href", "data", "action", "poster")


class Elements(HTMLParser):
    """What the elements of a page load by themselves, and what its links lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        addresses = [value or "" for name, value in attrs if name in LOADING]
        (self.linked if tag == "a" else self.loaded).extend(addresses)


@pytest.mark.slow
def test_the_page_is_small_and_asks_nobody_for_anything(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert len(text.encode()) < 5_000_000
    rules = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    # the browser itself refuses: no rule allows an address, and what no rule names is forbidden
    assert rules and "default-src 'none'" in rules[1] and "connect-src" not in rules[1]
    assert not re.search(r"https?:|\*", rules[1])
    found = Elements()
    found.feed(text)
    assert found.loaded and all(address.startswith("data:") for address in found.loaded)
    assert {address for address in found.linked if not address.startswith("#")} == {
        "report.json",
        "report.csv",
    }
    assert not re.findall(r"url\(\s*[\"']?(?!data:)[a-z]+:?/", text) and "@import" not in text
    own = (Path(pages.__file__).parent / "template" / "page.js").read_text(encoding="utf-8")
    assert not re.findall(r"\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|https?://", own)
    packed = re.search(r'id="values">([^<]+)<', text)
    assert packed and gzip.decompress(base64.b64decode(packed[1])) + b"\n" == written.with_suffix(".json").read_bytes()
    assert "desk scale" in text and "never a paper number" in text


CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium here: apt install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.slow
def test_a_browser_sorts_filters_and_follows_a_link_to_a_run(browser: Any, written: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    wait = WebDriverWait(browser, 20)

    def all_of(selector: str) -> list[Any]:
        return browser.find_elements(By.CSS_SELECTOR, selector)

    def one(selector: str) -> Any:
        return browser.find_element(By.CSS_SELECTOR, selector)

    def listed(column: int) -> list[str]:
        found = f"document.querySelectorAll('#board tbody tr > :nth-child({column})')"
        return browser.execute_script(f"return [...{found}].map(cell => cell.innerText)")

    def wide() -> tuple[int, int]:
        return tuple(browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]"))

    shown = json.loads(written.with_suffix(".json").read_text(encoding="utf-8"))
    for width in (1280, 400):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get("about:blank")
        browser.get(written.as_uri())
        wait.until(lambda _: one("html").get_attribute("data-ready") and len(all_of("#chart-flops svg path")) > 20)
        found, inside = wide()
        assert found <= inside == width

    # sorted by score from the start, the best first; by loss after a click, and the other way after another
    # (at 1280 pixels a click needs no scrolling within the table)
    size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scores = [float(text.split()[0]) for text in listed(3)]
    assert len(scores) == 25 and scores == sorted(scores, reverse=True)
    heads = all_of("#board thead th")
    for turn in (True, False):
        browser.execute_script("arguments[0].click()", heads[3])
        losses = [float(text.split()[0]) for text in listed(4)[:10]]
        assert losses == sorted(losses, reverse=turn)

    # filters, which the charts follow; what is missing comes last and says so
    Select(one("[name=kind]")).select_by_visible_text("joint")
    Select(one("[name=group]")).select_by_visible_text("40%")
    wanted = [
        line["method"]
        for line in shown["lines"]
        if (line["data"], line["title"], line["kind"], line["group"]) == ("scenes", "RefCOCO", "joint", "40%")
        and line["phase"] == "continued pre-training"
    ]
    assert "snp" in wanted and sorted(listed(1)) == sorted(wanted)
    Select(one("[name=group]")).select_by_visible_text("all")
    Select(one("[name=kind]")).select_by_visible_text("all")
    one("[name=search]").send_keys("chita")
    states = {line["state"] for line in shown["lines"] if line["method"].startswith("chita")}
    assert {*listed(1)} == {"chita", "chita++"}
    assert ("missing" in states) == ("missing" in "".join(listed(3)))
    one("[name=search]").clear()
    one("[name=search]").send_keys("snp")

    # to a row, to its first run, and back
    link = next(link for link in all_of("#board tbody a") if link.text == "snp")
    browser.execute_script("arguments[0].click()", link)
    wait.until(lambda _: one("#detail h1").text.startswith("scenes/snp@"))
    # a chart of a detail is drawn when it is about to be seen
    browser.execute_script("document.querySelector('#detail .plan').scrollIntoView()")
    wait.until(lambda _: all_of("#detail .plan svg"))
    assert not one("#overview").is_displayed()
    run = one("#detail details a")
    browser.execute_script("arguments[0].click()", run)
    wait.until(lambda _: one("#detail h1").text.startswith("scenes-snp-keep"))
    browser.execute_script("document.querySelector('#detail .grid').scrollIntoView()")
    wait.until(lambda _: all_of("#detail .grid svg"))
    for width in (1280, 400):
        size |= {"width": width}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        found, inside = wide()
        assert found <= inside == width
    browser.execute_script("arguments[0].click()", one("#detail .trail a"))
    wait.until(lambda _: one("#overview").is_displayed() and not one("#detail").is_displayed())
    browser.execute_script("arguments[0].click()", one("#theme"))
    wait.until(lambda _: len(all_of("#chart-size svg path")) > 3)
    assert [entry["message"] for entry in browser.get_log("browser")] == []
