"""How plots look: one color, marker and line per classifier, as color alone must not tell two apart."""

import dataclasses
import itertools
from collections.abc import Iterable

from keras_lt.classifiers import CLASSIFIERS
from keras_lt.methods import METHODS
from keras_lt.registry import split

INK, PAPER = "#222222", "#ffffff"
BARS = "#808080"  # seen on both papers
DARK_INK, DARK_PAPER = "#e6e6e6", "#1b1e23"
GROUP_SHADES = {"many": 0.0, "medium": 0.06, "few": 0.13}  # opacity of ink behind the classes of a group
GROUP_LINES = {"many": ("^", "--"), "medium": ("s", "-."), "few": ("v", ":"), "all": ("o", "-")}
RC = {
    "axes.edgecolor": INK,
    "axes.facecolor": PAPER,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": PAPER,
    "font.size": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "savefig.dpi": 160,
    "svg.hashsalt": "keras_lt",  # the same run gives the same bytes
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclasses.dataclass(frozen=True)
class Style:
    """How a classifier is drawn.

    Attributes:
      color, dark: on white, and on the page's dark background; both readable without color vision.
      marker, dashes: of matplotlib.
    """

    color: str
    dark: str
    marker: str | tuple
    dashes: str | tuple

    @property
    def line(self) -> dict[str, object]:
        """Its line with markers, as arguments of `Axes.plot`."""
        return {"color": self.color, "linestyle": self.dashes, "marker": self.marker}


# Of the classifiers in the order of their family, then of the methods that have a row of their own. Kin have kindred
# colors: the cRTs are blue, what has a τ is brown, what learns scales is green.
PALETTE = [
    Style(INK, DARK_INK, "o", "-"),
    Style("#d650b8", "#eb63a5", "s", ":"),
    Style("#0a4a9c", "#3f8fee", "^", "--"),
    Style("#2f7fd6", "#7db4f5", "<", (0, (5, 1))),
    Style("#1d8aa5", "#5cc8e0", ">", (0, (3, 1))),
    Style("#5b6ee0", "#9aa8ff", "X", (0, (1, 1))),
    Style("#6a4fb3", "#b5a3f0", "*", (0, (8, 2))),
    Style("#a8430a", "#c9743a", "D", "-"),
    Style("#d9731a", "#f0a060", "d", (0, (4, 1, 1, 1))),
    Style("#8a5a00", "#d0a050", "p", (0, (2, 1))),
    Style("#35a07c", "#5eecaa", "v", "-."),
    Style("#1f6b3a", "#7fd08f", "h", (0, (5, 2, 1, 2))),
    Style("#b5881a", "#dcb93c", "P", (0, (6, 1, 1, 1))),
    Style("#a3253a", "#f08a9b", "8", "-"),
    Style("#7f4b28", "#cf9f7c", "H", "--"),
    Style("#4a3f8f", "#a79df0", (3, 2, 0), (0, (1, 1))),
    Style("#00828a", "#3fd0d8", "+", ":"),
    Style("#2c7a5f", "#66c9a0", "4", "--"),
    Style("#5d8a3a", "#9fd07a", "|", (0, (4, 1, 1, 1))),
    Style("#14532d", "#8fe3b0", (4, 1, 45), (0, (2, 1))),
    Style("#9c5a2e", "#e0a878", (6, 1, 0), (0, (6, 1, 1, 1))),
    Style("#7a1f5c", "#e08ac4", (4, 1, 0), "-"),
    Style("#c2452d", "#f59a85", (3, 1, 0), "-."),
    Style("#46528c", "#a9b4e8", (5, 1, 36), (0, (5, 2, 1, 2))),
    Style("#3f6694", "#93b8e8", (7, 1, 0), "--"),
    Style("#8a6d10", "#d8bd5c", (5, 2, 0), ":"),
    Style("#7138a8", "#c6a2f0", (8, 2, 0), "-."),
]
SPARE_STYLES = [
    Style("#5f6b2a", "#b9c770", "x", "-."),
    Style("#6b6f76", "#b4b9c1", "1", (0, (8, 2))),
    Style("#b0508f", "#e79fcf", "2", (0, (3, 1))),
    Style("#4f8f1f", "#a5dd72", "3", (0, (1, 1))),
]
DARK_COLORS = {INK: DARK_INK, PAPER: DARK_PAPER} | {style.color: style.dark for style in [*PALETTE, *SPARE_STYLES]}
OWNERS = [*CLASSIFIERS, *(name for name, method in METHODS.items() if method.own_row)]


def styles_for(classifiers: Iterable[str]) -> dict[str, Style]:
    """The style of every classifier; those beyond the palette, or with parameters, take turns with the spare ones."""
    own, styles, spare = dict(zip(OWNERS, PALETTE, strict=False)), {}, itertools.cycle(SPARE_STYLES)
    for name in classifiers:
        style = own.pop(split(name)[0], None)  # of several with other parameters the first has it
        styles[name] = style or next(spare)
    return styles
