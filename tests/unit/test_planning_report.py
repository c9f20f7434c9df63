"""The report page: self-contained, readable in a real browser, and printable."""

import base64
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from extproc.planning.design.answer import Plan
from extproc.planning.design.plan import PlanOptions, make_plan
from extproc.planning.design.pool import Tuning
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.costs import Costs
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.options import RunOptions
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

pytest.importorskip("matplotlib", reason="the report needs matplotlib")
from matplotlib.axes import Axes

from extproc.planning.output.report import render_report, write_report

CHROMIUM = which("chromium") or which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # anything that the page tries to fetch fails
)
LIMIT_S = 120
COSTS = Costs(gpus_per_instance=1, spare=1, usd_per_gpu_hour=2.95)


@pytest.fixture(scope="module")
def lengths() -> Lengths:
    """Return a workload with a long tail, whose name must be escaped."""
    rng = np.random.default_rng(0)
    return Lengths(rng.geometric(1 / 900, 3000), rng.geometric(1 / 120, 3000), "<b>trace & co</b>")


@pytest.fixture(scope="module")
def plan(lengths: Lengths) -> Plan:
    """Return a plan with simulated fleets."""
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    setup = Setup("llama-3-8b", "h100-80g", instance, 16_384, Objective(), price_usd_h=2.95)
    runs = RunOptions(
        requests=2_000,
        longest=2_000,
        seeds=2,
        thresholds=(1024,),
        router="byteclass",
        balancing=Balancing(Balance.FULL_SCAN),
        arrivals="poisson",
        jobs=1,
    )
    return make_plan(
        lengths,
        30,
        setup,
        DeclaredRule.TRUTH,
        options=PlanOptions(runs, Tuning(parallelism=False, knobs=False)),
        cache=ResultCache(None),
        progress=lambda *_: None,
    )


def test_the_page_needs_nothing_from_the_network(plan: Plan, lengths: Lengths) -> None:
    """All images are embedded, and the page refers to no other resource."""
    page = render_report(plan, lengths, COSTS)
    assert set(re.findall(r'(?:src|href)="([^":]+:)', page)) == {"data:"}
    assert "@import" not in page
    assert "<script" not in page


def test_every_plot_is_there_and_is_an_image(plan: Plan, lengths: Lengths) -> None:
    """Length CDF, savings, fleets, TTFT and sensitivity are well-formed SVG."""
    page = render_report(plan, lengths, COSTS)
    images = re.findall(r'alt="([^"]+)" src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert [title for title, _ in images] == [
        "Request lengths",
        "Cost model: saving by threshold",
        "Fleet sizes",
        "Time to first token",
        "Sensitivity to declared max_tokens",
    ]
    for _, data in images:
        assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")  # noqa: S314  (our own image)


def test_each_cell_knows_its_column(plan: Plan, lengths: Lengths) -> None:
    """On a phone, rows are shown as cards without a header: each cell carries its column's name."""
    page = render_report(plan, lengths, COSTS)
    for table in page.split("<table>")[1:]:
        names = re.findall(r"<th>(.*?)</th>", table.split("</thead>")[0])
        for row in re.findall(r"<tr>(.*?)</tr>", table.split("<tbody>")[1].split("</tbody>")[0]):
            assert names == re.findall(r'<td data-column="([^"]*)">', row)


def test_names_from_the_trace_are_escaped(plan: Plan, lengths: Lengths) -> None:
    """A file name cannot inject markup into the page."""
    page = render_report(plan, lengths, COSTS)
    assert "&lt;b&gt;trace &amp; co&lt;/b&gt;" in page
    assert "<b>trace" not in page


@pytest.fixture(scope="module")
def page(plan: Plan, lengths: Lengths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report to a directory that does not exist yet."""
    return write_report(plan, lengths, COSTS, tmp_path_factory.mktemp("report") / "new")


def chromium(page: Path, profile: Path, *arguments: str) -> str:
    """Open the page in headless Chromium and return its standard output."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout


def test_chromium_shows_the_recommendation_and_all_plots(page: Path, plan: Plan, tmp_path: Path) -> None:
    """The page renders without a network: its text, and five images that are not blank."""
    dom = chromium(page, tmp_path / "profile", "--virtual-time-budget=5000", "--dump-dom")
    assert plan.recommendation in dom
    assert dom.count("<figure>") == 5

    picture = tmp_path / "page.png"
    chromium(page, tmp_path / "profile", "--window-size=1300,2400", f"--screenshot={picture}")
    image = pytest.importorskip("PIL.Image", reason="pillow comes with matplotlib").open(picture)
    assert image.size == (1300, 2400)
    assert len(image.convert("RGB").getcolors(2**24)) > 50, "plots have colours; a blank page has one"


def test_no_table_needs_scrolling_on_a_laptop_or_a_phone(page: Path, tmp_path: Path) -> None:
    """In windows of 1,300 and 390 pixels, neither a table nor the page is wider than the window."""
    script = (
        "<script>const over = doc => Math.max(...[...doc.querySelectorAll('.wide'), doc.documentElement]"
        ".map(box => box.scrollWidth - box.clientWidth));"
        "const phone = document.createElement('iframe'); phone.width = 390; phone.style.border = 0;"
        "phone.onload = () => { document.title = `over ${over(document)}, ${over(phone.contentDocument)} of "
        "${phone.contentWindow.innerWidth}` };"
        "if (self === top) { phone.srcdoc = document.documentElement.outerHTML; document.body.append(phone) }"
        "</script></body>"
    )
    measured = tmp_path / "measured.html"
    measured.write_text(page.read_text("utf-8").replace("</body>", script), "utf-8")
    dom = chromium(
        measured, tmp_path / "profile", "--window-size=1300,2400", "--virtual-time-budget=5000", "--dump-dom"
    )
    assert "<title>over 0, 0 of 390</title>" in dom


def test_simulated_fleets_are_drawn_with_their_spares(
    plan: Plan, lengths: Lengths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bars show only the simulated fleets, in GPUs, including the spares of each pool."""
    drawn: list[float] = []
    barh = Axes.barh

    def note(axes: Axes, place: float, width: float, **how: Any) -> Any:
        drawn.append(width)
        return barh(axes, place, width, **how)

    monkeypatch.setattr(Axes, "barh", note)
    render_report(plan, lengths, COSTS)

    assert drawn == [size + 1 for fleet in plan.fleets for size in fleet.typical.instances]


def test_chromium_prints_it_on_few_pages(page: Path, tmp_path: Path) -> None:
    """Printed on A4, the report takes two to four pages."""
    pdf = tmp_path / "page.pdf"
    chromium(page, tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    pages = len(re.findall(rb"/Type\s*/Page[^s]", pdf.read_bytes()))
    assert 2 <= pages <= 4
