"""How plots look: one color, marker and line per classifier, as color alone must not tell two apart."""

import dataclasses
from collections.abc import Iterable

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
    marker: str
    dashes: str | tuple


STYLES = {
    "joint": Style(INK, DARK_INK, "o", "-"),
    "ncm": Style("#d650b8", "#eb63a5", "s", ":"),
    "crt": Style("#0a4a9c", "#3f8fee", "^", "--"),
    "tau_norm": Style("#a8430a", "#c9743a", "D", "-"),
    "lws": Style("#35a07c", "#5eecaa", "v", "-."),
    "cosine": Style("#b5881a", "#dcb93c", "P", (0, (6, 1, 1, 1))),
}
SPARE_STYLES = [
    Style("#6a4fb3", "#b5a3f0", "X", (0, (8, 2))),
    Style("#7f4b28", "#cf9f7c", "<", (0, (3, 1))),
    Style("#a3253a", "#f08a9b", ">", (0, (1, 1))),
]
DARK_COLORS = {INK: DARK_INK, PAPER: DARK_PAPER} | {
    style.color: style.dark for style in [*STYLES.values(), *SPARE_STYLES]
}


def styles_for(classifiers: Iterable[str]) -> dict[str, Style]:
    """The style of every classifier; those without one of their own take turns with the spare ones."""
    styles = {}
    for name in classifiers:
        spare = SPARE_STYLES[len(styles.keys() - STYLES.keys()) % len(SPARE_STYLES)]
        styles[name] = STYLES.get(name, spare)
    return styles
