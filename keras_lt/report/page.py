"""The page that shows one run: one file that needs nothing else."""

import re
from collections.abc import Mapping, Sequence

import jinja2

from keras_lt.report import tables
from keras_lt.report.plots import Plot
from keras_lt.report.style import DARK_COLORS


def render_page(results: Mapping, plots: Sequence[Plot], flags: Mapping[str, object]) -> str:
    """report.html: headline, table, plots and flags; the plots are inline and follow the page's dark mode."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_lt"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        dataset=results["dataset"],
        headline=tables.headline(results),
        facts=tables.facts(results),
        notes=results.get("notes", []),
        header=tables.HEADER,
        numeric=tables.NUMERIC,
        rows=tables.score_rows(results),
        figures=[(plot, _inline(plot.svg)) for plot in plots],
        colors=[(_variable(color), color, dark) for color, dark in DARK_COLORS.items()],
        flags={name: _flag(value) for name, value in flags.items()},
    )


def _inline(svg: bytes) -> str:
    """The svg element alone: colors are variables of the page, ids that plots would share are gone."""
    text = svg.decode()
    text = re.sub(r' id="[\w.]+_\d+"', "", text[text.index("<svg") :])
    for color in DARK_COLORS:
        text = text.replace(color, f"var({_variable(color)})")
    return text


def _variable(color: str) -> str:
    return f"--c{color.removeprefix('#')}"


def _flag(value: object) -> str:
    """A flag's value as a flag file writes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
