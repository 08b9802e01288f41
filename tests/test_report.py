"""The report of a small run whose every number is known."""

import html.parser
import io
import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import rich.console

from keras_lt import checkpoints, report
from keras_lt.metrics import ShotGroups
from keras_lt.report import plots, style, tables

CLASS_NAMES = ["cat", "<script>alert('dog')</script>", "$5_$ up", "emu"]
# The rows of Places-LT in the paper's table 4, with one group left empty.
RESULTS = {
    "dataset": "places_lt",
    "classes": 4,
    "groups": {"many": 2, "medium": 1, "few": 1},
    "train_images": 1234,
    "stage_one": {"epochs": 30, "seconds": 4380.0, "images_per_second": 412.3},
    "classifiers": {
        "joint": {
            "val": {"all": 0.31},
            "test": {"many": 0.457, "medium": None, "few": 0.082, "all": 0.302, "class_mean": 0.302},
            "seconds": 0.0,
        },
        "tau_norm": {
            "val": {"all": 0.38},
            "test": {"many": 0.378, "medium": None, "few": 0.318, "all": 0.379, "class_mean": 0.379},
            "chosen": {"tau": 0.7},
            "seconds": 77.0,
        },
        "lws": {
            "val": {"all": 0.37},
            "test": {"many": 0.406, "medium": math.nan, "few": 0.286, "all": 0.376, "class_mean": 0.37904},
            "seconds": 845.0,
        },
    },
    "best": "tau_norm",
    "notes": ["validation split carved from train"],
}
ROWS = [
    "| Joint | **45.7** | — | 8.2 | 30.2 | 30.2 | — | — | — | 0.0 s |",
    "| τ-normalized | 37.8 | — | **31.8** | **37.9** | **37.9** | +23.6 | +7.7 | τ = 0.7 | 77 s |",
    "| LWS | 40.6 | — | 28.6 | 37.6 | **37.9** | +20.4 | +7.4 | — | 14 min |",
]  # 0.379 and 0.37904 print alike, so both are the best class mean


def run_details(**changes):
    arrays = {
        "class_names": CLASS_NAMES,
        "class_counts": np.array([50, 500, 5, 679]),
        "groups": ShotGroups([50, 500, 5, 679]),
        "per_class": {
            "joint": np.array([0.3, 0.6, np.nan, 0.7]),
            "tau_norm": np.array([0.4, 0.5, np.nan, 0.6]),
        },
        "curves": {
            "tau_norm": [
                {"tau": 0.0, "many": 0.5, "medium": None, "few": 0.1, "all": 0.3},
                {"tau": 0.7, "many": 0.4, "medium": None, "few": 0.3, "all": 0.38},
            ]
        },
        "weight_norms": {"joint": np.array([1.0, 2.0, 0.5, 2.5]), "tau_norm": np.ones(4)},
        "flags": {"dataset": "places_lt", "classifiers": "joint,lws", "jit_compile": "false", "pretrained": ""},
    }
    return report.RunDetails(**(arrays | changes))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return report.write_report(tmp_path_factory.mktemp("run"), RESULTS, run_details())


class Page(html.parser.HTMLParser):
    """Collects the rows of the table, the places a browser would load from, and the tags left open."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.links, self.tags, self.open, self.images = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag != "meta":  # the only element here without an end
            self.open.append(tag)
        self.links += [v for k, v in attributes.items() if k in ("src", "href", "xlink:href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if attributes.get("role") == "img":
            self.images.append(attributes["aria-label"])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_writes_the_files_and_nothing_else(written):
    folder = written["results.md"].parent
    drawn = ["class_accuracy", "class_counts", "group_accuracy", "tau_curve_tau_norm", "test_distributions"]
    drawn += ["weight_norms"]
    expected = {"results.md", "report.html", *(f"plots/{p}.{kind}" for p in drawn for kind in ("png", "svg"))}
    assert written.keys() == expected
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == expected
    for name, path in written.items():
        assert path == folder / name
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_markdown_has_the_scores_as_printed_in_the_paper(written):
    lines = written["results.md"].read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("| ")][2:] == ROWS
    assert "- validation split carved from train" in lines
    assert "![Training examples per class](plots/class_counts.png)" in lines


def test_page_has_the_same_table(written):
    rows = Page(written["report.html"].read_text("utf-8")).rows
    cells = [[re.sub(r"\*\*(.+)\*\*", r"★ \1", cell) for cell in row.strip("| ").split(" | ")] for row in ROWS]
    assert rows == [tables.HEADER, *cells]


def test_page_loads_nothing(written):
    text = written["report.html"].read_text("utf-8")
    page = Page(text)
    assert page.links
    assert all(link.startswith("#") for link in page.links)
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import|<\?xml|\.dtd", text)
    assert page.open == []


def test_page_describes_every_plot_in_words(written):
    images = Page(written["report.html"].read_text("utf-8")).images
    assert len(images) == 6
    assert images[0] == "4 classes sorted by training examples, from 679 down to 5."
    assert images[1] == (
        "Test accuracy on many: Joint 45.7%, τ-normalized 37.8%, LWS 40.6%; few: Joint 8.2%, τ-normalized 31.8%, "
        "LWS 28.6%; all: Joint 30.2%, τ-normalized 37.9%, LWS 37.6%."
    )
    assert images[4] == (
        "Accuracy on val for τ from 0 to 0.7; many goes from 50.0 to 40.0%; few goes from 10.0 to 30.0%; "
        "all goes from 30.0 to 38.0%; chosen is 0.7."
    )


def test_the_plot_over_test_distributions_weighs_the_classes_accuracies(written):
    """Of 50:1 over four classes: 1, 50^-1/3, 50^-2/3 and 1/50 of the first one's share, and the other way round."""
    said = next(text for text in Page(written["report.html"].read_text("utf-8")).images if " at 50:1, 1:1 " in text)
    shares = 50.0 ** -(np.arange(4) / 3)
    for name, accuracies in {"Joint": [0.7, 0.6, 0.3], "τ-normalized": [0.6, 0.5, 0.4]}.items():  # by training images
        ends = [np.average(accuracies, weights=weights[:3]) for weights in (shares, np.ones(4), shares[::-1])]
        assert f"{name} {', '.join(f'{100 * end:.1f}%' for end in ends)}" in said  # the fourth has no test image


def test_page_ends_with_the_flags(written):
    pre = re.search(r"<pre>(.*)</pre>", written["report.html"].read_text("utf-8"), re.DOTALL).group(1)
    lines = ["--dataset=places_lt", "--classifiers=joint,lws", "--jit_compile=false", "--pretrained="]
    assert pre.split() == lines


def terminal_text(results, width=100):
    console = rich.console.Console(width=width, record=True, file=io.StringIO())
    console.print(report.terminal_table(results))
    return console.export_text()


def test_terminal_table_fits_eighty_columns():
    lines = terminal_text(RESULTS, width=80).splitlines()
    words = [line.split() for line in lines]
    assert ["Joint", "*45.7", "—", "8.2", "30.2", "30.2", *"———", "0.0", "s"] in words
    assert ["LWS", "40.6", "—", "28.6", "37.6", "*37.9", "+20.4", "+7.4", "—", "14", "min"] in words
    assert "…" not in "".join(lines)


def test_inline_plots_take_every_color_from_the_page(written):
    text = written["report.html"].read_text("utf-8")
    svgs = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    used = set(re.findall(r"var\((--c\w+)\)", svgs))
    assert {"--c222222", "--cffffff"} <= used
    for variable in used:  # once for light, once for dark
        assert len(re.findall(f"{variable}: #", text)) == 2
    assert set(re.findall(r"#[0-9a-f]{6}\b", svgs)) <= {style.BARS}


def test_names_are_text_never_markup(tmp_path):
    results = json.loads(json.dumps(RESULTS))
    results["classifiers"]["<b>|[red]"] = results["classifiers"].pop("lws")
    results["notes"] = ["<img src=http://x>"]
    details = run_details(flags={"data_dir": "</pre><img src=x>"})
    page = report.write_report(tmp_path, results, details)["report.html"]
    page = Page(page.read_text("utf-8"))
    assert not {"script", "b", "img"} & set(page.tags)
    assert page.rows[3][0] == "<b>|[red]"
    assert "[red]" in terminal_text(results)
    assert "| &lt;b>\\|[red] |" in tables.markdown(results, {})


def test_a_search_is_drawn_in_the_order_of_tau():
    curve = run_details().curves["tau_norm"]
    backwards = plots.draw_tau_curve("tau_norm", curve[::-1], style=style.PALETTE[0], chosen_tau=0.7)
    assert "from 0 to 0.7; many goes from 50.0 to 40.0%" in backwards.alt


@pytest.mark.parametrize(
    ("name", "split", "kept"),
    [
        ("tau_norm", "val", "the best τ on val is kept."),
        ("tau_norm", "test", "the best τ on test is kept."),
        (
            "logit_adjusted:multiplicative=true",
            "val",
            "the best τ on val is kept, or the usual one where that is within a standard error of it.",
        ),
    ],
)
def test_a_curve_says_of_which_split_it_is_and_what_is_kept(name, split, kept):
    plot = plots.draw_tau_curve(
        name, run_details().curves["tau_norm"], style=style.PALETTE[0], chosen_tau=0.7, split=split
    )
    assert plot.caption.endswith(kept)
    assert plot.alt.startswith(f"Accuracy on {split} for τ")


def test_tau_that_was_chosen_on_test_is_not_said_to_be_chosen_on_val(tmp_path):
    page = report.write_report(tmp_path, RESULTS, run_details(flags={"tau_split": "test"}))["report.html"]
    text = page.read_text("utf-8")
    assert "Accuracy on test for τ" in text
    assert "τ, which is chosen on test" in text
    assert "used once" not in text


def test_every_classifier_differs_from_every_other_by_more_than_color():
    names = [*style.OWNERS, "one", "two", "lws:epochs=5"]
    styles = style.styles_for(names)
    assert len({s.marker for s in styles.values()}) == len(names)
    assert len({s.color for s in styles.values()}) == len(names)
    assert style.styles_for(["lws", "joint"])["lws"] == styles["lws"]  # the same in every plot


def test_thousands_of_classes_stay_a_page(tmp_path):
    classes = 8142
    counts = np.linspace(1000, 2, classes).round().astype(int)
    values = np.linspace(0.7, 0.1, classes)
    details = run_details(
        class_names=[f"species {c}" for c in range(classes)],
        class_counts=counts,
        groups=ShotGroups(counts),
        per_class={"joint": values},
        weight_norms={"joint": values},
    )
    results = RESULTS | {"groups": {"many": 4142, "medium": 3000, "few": 1000}, "classes": classes}
    files = report.write_report(tmp_path, results, details)
    assert sum(path.stat().st_size for path in files.values()) < 2**20


def test_same_run_gives_the_same_bytes(written, tmp_path):
    again = report.write_report(tmp_path, RESULTS, run_details())
    assert [again[name].read_bytes() == path.read_bytes() for name, path in written.items()] == [True] * len(written)


def test_without_arrays_there_are_no_plots_of_them(tmp_path):
    counts = np.array([50, 500, 5, 679])
    details = report.RunDetails(
        class_names=CLASS_NAMES, class_counts=counts, groups=ShotGroups(counts), thumbnails=lambda rows: []
    )
    files = report.write_report(tmp_path, RESULTS, details)
    drawn = [f"plots/{name}.{kind}" for name in ("class_counts", "group_accuracy") for kind in ("png", "svg")]
    assert files.keys() == {"results.md", "report.html", *drawn}
    page = files["report.html"].read_text("utf-8")
    assert "<pre>" not in page
    assert "Intervals" not in page
    assert "Beside top-1" not in page
    assert "Rare classes" not in page
    assert "Predictions of" not in page


def test_a_failure_while_rendering_writes_nothing(tmp_path):
    broken = {key: value for key, value in RESULTS.items() if key != "stage_one"}
    with pytest.raises(KeyError, match="stage_one"):
        report.write_report(tmp_path / "run", broken, run_details())
    assert not (tmp_path / "run").exists()


def test_a_failure_while_writing_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def no_space(*paths):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints.os, "replace", no_space)
    with pytest.raises(OSError, match="no space left"):
        report.write_report(tmp_path, RESULTS, run_details())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"per_class\['joint'\].*Received: 3 values, 4 class counts"):
        run_details(per_class={"joint": np.zeros(3)})
    with pytest.raises(ValueError, match=r"only name classifiers of results. Received: \['lsw'\]"):
        report.write_report(tmp_path, RESULTS, run_details(weight_norms={"lsw": np.ones(4)}))
    with pytest.raises(ValueError, match=r"groups must have one value per class.*Received: 9 values, 4 class counts"):
        run_details(groups=ShotGroups(range(9)))
