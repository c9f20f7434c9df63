"""The report: one self-contained HTML page that can be opened offline and printed."""

from base64 import b64encode
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from rich.table import Table

from extproc.core.errors import ConfigurationError
from extproc.planning.design.answer import Plan
from extproc.planning.model.costs import Costs
from extproc.planning.output.plots import Plot, draw_plots
from extproc.planning.output.tables import plan_tables, plan_texts
from extproc.planning.workload.lengths import Lengths

__all__ = ["render_report", "write_report"]

READING = (
    "Alpha is the share of requests whose budget (an upper bound on the prompt plus the declared output) fits the "
    "short pool; rho is the short pool's rate per instance divided by that of a single pool for all requests. The "
    "closed form assumes that the long pool has the same rate as that single pool; the honest form uses its rate "
    "with long requests only. Numbers of instances are whole and include the requested spares of each pool. The "
    "right-sized pool has the smallest usual context that holds every request: it is the fair comparison. "
    "Simulated fleets are the smallest that meet the objective, in each pool for its own requests; the cost model "
    "leaves 10 % head-room instead. Their GPUs, costs and bars include the spares, too. "
    "The top of this page says whether iteration times are measured or computed by a roofline; docs/planner.md "
    "says how far both are from published figures. Ratios are more reliable than counts."
)


def write_report(plan: Plan, lengths: Lengths, costs: Costs, directory: Path) -> Path:
    """Write `index.html` into a directory, creating it if necessary, and return its path.

    Raises ConfigurationError if it cannot be written.
    """
    path = directory / "index.html"
    page = render_report(plan, lengths, costs)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(page, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"--report {directory}: {error.strerror}") from error
    return path


def render_report(plan: Plan, lengths: Lengths, costs: Costs) -> str:
    """Return the report as HTML."""
    template = Template(resources.files("extproc.planning.output").joinpath("report.html").read_text("utf-8"))
    return template.substitute(
        profile=escape(plan.profile),
        rate=f"{plan.rate:,g}",
        workload="\n".join(f'<p class="soft">{escape(text.plain)}</p>' for text in plan_texts(plan)),
        recommendation=escape(plan.recommendation),
        plots="\n".join(_figure(plot) for plot in draw_plots(plan, lengths, costs)),
        tables="\n".join(_table(table) for table in plan_tables(plan, costs, full=True)),
        reading=escape(READING),
    )


def _figure(plot: Plot) -> str:
    # An <img>, not inline SVG: the ids of several inline SVGs would collide.
    image = b64encode(plot.svg.encode()).decode()
    return (
        f"<figure><h3>{escape(plot.title)}</h3>"
        f'<img alt="{escape(plot.title)}" src="data:image/svg+xml;base64,{image}">'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    columns = [list(column.cells) for column in table.columns]
    names = [escape(str(column.header)) for column in table.columns]
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = (
        "".join(
            f'<td data-column="{name}">{escape(str(cell))}</td>' for name, cell in zip(names, row, strict=True)
        )
        for row in zip(*columns, strict=True)
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<h2>{escape(str(table.title))}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
