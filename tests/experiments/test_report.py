"""Report pages, read as text and as a browser shows them."""

import html.parser
import json
import re
import shutil
import subprocess

import folders
import pytest

from tsmjax.experiments import __main__ as command
from tsmjax.experiments import records, report
from tsmjax.monitor import plots

VOID = {"meta", "img", "path", "use", "rect", "circle", "line", "br", "polygon", "polyline"}


class Reader(html.parser.HTMLParser):
    """Collects text by its data attribute, cells of tables by name, and what tags there are."""

    def __init__(self):
        super().__init__()
        self.found, self.tables, self.tags, self.best = {}, {}, [], []
        self._open, self._table = [], None

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag in VOID:
            return
        keys = [f"{k[5:]} {v}" for k, v in attributes.items() if k.startswith("data-")]
        self._open.append((tag, keys))
        if tag == "table":
            self._table = self.tables.setdefault(attributes.get("data-table", ""), [])
        if tag == "tr":
            self._table.append([])
            self.best.append(attributes.get("class") == "best")
        if tag in ("td", "th"):
            self._table[-1].append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open and self._open[-1][0] == tag, f"{tag} closes {self._open[-1:]}"
            self._open.pop()

    def handle_data(self, data):
        for _, keys in self._open:
            for key in keys:
                self.found[key] = self.found.get(key, "") + data
        if any(tag in ("td", "th") for tag, _ in self._open):
            self._table[-1][-1] += data


def read(markup):
    reader = Reader()
    reader.feed(markup)
    assert not reader._open
    return reader


@pytest.fixture
def run(tmp_path):
    rows = [
        (step, {"loss": 3.0 / step, "loss_ema": 3.0 / step, "grad_norm": 1.0}) for step in (1, 2)
    ]
    rows += [(2, {"m/wql": 0.4}), (2, {"health/goodput": 0.5, "health/explosions": 1.0})]
    folder = folders.write(
        tmp_path / "ttm" / "lr" / "run_1", 0.25, rows=rows, test={"m/wql": 0.3}, optim__lr=1e-3
    )
    results = json.loads((folder / "results.json").read_text())
    results["time"] = {"step": 6.0, "compile": 3.0, "input": 0.0, "other": 1.0}
    results["goodput"] = 0.6
    results["findings"] = [{"step": 2, "finding": "The gradient exploded <once>."}]
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "config.json").write_text(
        json.dumps({"name": "<b>x</b>", "evals": {"metric": "m/wql", "mode": "min"}})
    )
    figure = plots.new_figure(2, 2)
    plots.save(figure, folder / "plots" / "forecasts_m_test.png")
    plots.save(figure, folder / "plots" / "loss.png")
    return folder


def test_the_page_of_a_run_holds_its_numbers_and_nothing_from_elsewhere(run):
    markup = report.write_run(run).read_text()
    page = read(markup)
    assert page.found["fact m/wql, validation"].startswith("0.25000")
    assert page.found["fact goodput"].startswith("60.0 %")
    assert page.found["score test:m/wql"] == "0.30000"
    assert page.found["score test:m/mase"] == "–"
    assert page.found["share compile"].strip() == "compile 30.0 %"
    assert "share input" not in page.found
    assert page.tables["health"] == [["step", "goodput", "explosions"], ["2", "50.0 %", "1"]]
    assert ["name", "<b>x</b>"] in page.tables["config"]  # escaped, not a tag
    assert "exploded &lt;once&gt;" in markup
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 1 and images[0]["src"].startswith("data:image/png;base64,")
    assert sum(tag == "svg" for tag, _ in page.tags) == 3  # loss, score, gradient norm
    assert "loss</text>" in re.sub(r"\s", "", markup) and "var(--ink)" in markup
    assert not any(tag in ("script", "link", "iframe") for tag, _ in page.tags)
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", markup.replace("xmlns:", ""))


def test_a_run_that_failed_shows_its_error(tmp_path):
    folder = folders.write(tmp_path / "run_1")
    (folder / "logs").mkdir()
    (folder / "logs" / "error.log").write_text("InputError: no <data>\n")
    page = read(report.write_run(folder, tmp_path / "page.html").read_text())
    assert page.found["fact status"].startswith("failed")
    assert "InputError: no &lt;data&gt;" in (tmp_path / "page.html").read_text()


def test_the_page_of_several_runs_ranks_them_and_links_theirs(run, capsys):
    worse = folders.write(run.parent / "run_2", 0.5, optim__lr=1e-4, rows=[(1, {"loss": 1.0})])
    folders.write(run.parent / "run_3", None, optim__lr=1e-5)
    report.write_run(worse)
    assert command.main(["report", str(run.parent)]) == 0
    page = read((run.parent / "report.html").read_text())
    assert [row[0] for row in page.tables["runs"]] == ["run", "run_1", "run_2", "run_3"]
    assert page.best[:4] == [False, True, False, False]
    assert page.found["fact best run"].startswith("run_1")
    assert ("a", {"href": "run_2/report.html"}) in page.tags
    assert ["m/nile/wql", "0.20000", "0.20000", "–"] in page.tables["scores"]
    assert command.main(["report", str(run), str(worse)]) == 2
    assert "--output" in capsys.readouterr().err


PROBE = """<script>
const style = getComputedStyle(document.body);
document.body.dataset.background = style.backgroundColor;
document.body.dataset.overflow = document.documentElement.scrollWidth > innerWidth;
document.body.dataset.width = document.querySelector(".card svg").getBoundingClientRect().width;
document.body.dataset.score = document.querySelector('[data-score="test:m/wql"]').textContent;
document.body.dataset.colour = getComputedStyle(document.querySelector("svg text")).fill;
</script>"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_browser_shows_it_in_both_schemes_on_a_phone(run, tmp_path, scheme):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("chromium is not installed")
    markup = report.write_run(run).read_text()
    probed = tmp_path / "probed.html"
    probed.write_text(markup.replace("</body>", PROBE + "</body>"))
    told = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=1000"),
            f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}",
            *("--dump-dom", probed.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    body = re.search(r"<body[^>]*>", told.stdout)
    assert body, told.stderr[-500:]
    data = dict(re.findall(r'data-(\w+)="([^"]*)"', body[0]))
    background = {"dark": "rgb(18, 24, 31)", "light": "rgb(245, 247, 250)"}
    ink = {"dark": "rgb(228, 231, 235)", "light": "rgb(31, 41, 51)"}
    assert data["background"] == background[scheme] and data["colour"] == ink[scheme]
    assert data["score"] == "0.30000" and data["overflow"] == "false"
    assert float(data["width"]) > 300


def test_the_deciding_metric_can_be_chosen(run):
    folders.write(run.parent / "run_2", 0.1)
    runs = records.find([run.parent])
    markup = report.write_comparison(runs, "m/mase", "max", run.parent / "x.html").read_text()
    assert "best by m/mase (max)" in markup
