"""What a data set is like, before anything is trained: its tail, its image sizes, leaks, and augmented samples.

python -m keras_lt.describe --flagfile=flags/fashion_lt.cfg --output_dir=runs/fashion_lt/describe
"""

import functools
import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence

from keras_lt import config
from keras_lt.command import launch, part, plain_errors, quietly

with quietly(__name__, functools.partial(config.answer, config.define_describe_flags)):
    import matplotlib
    import matplotlib.ticker
    import numpy as np
    import rich
    import rich.table
    import tensorflow as tf
    from matplotlib.figure import Figure

    from keras_lt.datasets import LongTailed, Split, check_outside
    from keras_lt.files import atomic, check_own, expanded, write_json
    from keras_lt.inspection import Inspection, bad_images, inspect
    from keras_lt.metrics import ShotGroups
    from keras_lt.preprocessing import Preprocessing
    from keras_lt.report.figures import LONGEST_NAME, lay_grid, mark
    from keras_lt.report.plots import plot_class_counts
    from keras_lt.report.style import BARS, RC
    from keras_lt.run import Run
    from keras_lt.stages import make_preprocessing
    from keras_lt.work_folder import DESCRIPTION_FILES

SHOWN_CLASSES = 5  # of the head and of the tail
SHOWN_LINES = 5  # of leaks, and of bad images
VIEWS = 7  # training views of an image on the page of augmented ones
CELL = 1.0  # inches
PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))

Group = Mapping[str, np.ndarray]  # equal images: split -> rows, in the splits that have one


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of images per class, [C]: 0 for equal classes, 1 - 1/C where one class has all."""
    counts = np.sort(counts)
    ranks = np.arange(1, len(counts) + 1)
    return float(((2 * ranks - len(counts) - 1) * counts).sum() / (len(counts) * counts.sum()))


def find_duplicates(inspections: Mapping[str, Inspection]) -> list[Group]:
    """Groups of two or more images of equal content, within a split or across; bad images are in none."""
    hashes = np.concatenate([inspection.hashes for inspection in inspections.values()])
    rows = np.concatenate([np.arange(len(inspection.hashes)) for inspection in inspections.values()])
    splits = np.repeat(list(inspections), [len(inspection.hashes) for inspection in inspections.values()])
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.r_[True, hashes[order][1:] != hashes[order][:-1]])
    sizes = np.diff(np.append(starts, len(order)))
    several = [order[start : start + size] for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True)]
    return [
        {split: rows[members][splits[members] == split] for split in inspections if split in splits[members]}
        for members in several
        if hashes[members[0]] != b""
    ]


def summarize(data: LongTailed, inspections: Mapping[str, Inspection], duplicates: Sequence[Group]) -> dict:
    """Everything that is written to `describe.json`."""
    counts = data.class_counts
    order = np.argsort(-counts, kind="stable")
    shown = min(SHOWN_CLASSES, max(len(order) // 2, 1))
    leaks = [group for group in duplicates if len(group) > 1]
    return {
        "dataset": data.name,
        "classes": len(counts),
        "groups": data.groups.sizes,
        "imbalance_ratio": float(counts.max() / counts.min()),
        "gini": gini(counts),
        "head": [[data.class_names[c], int(counts[c])] for c in order[:shown]],
        "tail": [[data.class_names[c], int(counts[c])] for c in order[-shown:]],
        "splits": {
            name: {
                "images": len(split),
                "bad": len(inspections[name].problems),
                "rotated": int((inspections[name].orientations > 1).sum()),
                **({} if data.of_features else smallest_and_largest(inspections[name])),
                "repeated": sum(len(group[name]) - 1 for group in duplicates if name in group),
            }
            for name, split in data.all_splits.items()
        },
        "leaked": {
            f"{other} in {first}": sum(len(group[other]) for group in leaks if {first, other} <= group.keys())
            for first, other in PAIRS
        },
        "conflicting_labels": sum(len(group_labels(data, group)) > 1 for group in duplicates),
        "leaks": [
            {name: data.all_splits[name].names[rows].tolist() for name, rows in group.items()} for group in leaks
        ],
        "bad_images": bad_images(data, inspections),
        "notes": list(data.said),
    }


def smallest_and_largest(inspection: Inspection) -> dict[str, str]:
    """The images of fewest and of most pixels, as "width x height"; bad ones aside."""
    sizes = inspection.sizes[inspection.hashes != b""]
    areas = sizes.prod(1, dtype=np.int64)
    ends = {"smallest": areas.argmin(), "largest": areas.argmax()} if len(sizes) else {}
    return {end: f"{sizes[row][1]} x {sizes[row][0]}" for end, row in ends.items()}


def group_labels(data: LongTailed, group: Group) -> set[int]:
    """The labels that equal images have; more than one is a mistake in the lists, or an image of two classes."""
    return {int(label) for name, rows in group.items() for label in data.all_splits[name].labels[rows]}


def print_summary(summary: Mapping):
    """The summary as tables."""
    groups = ", ".join(f"{number:,} {name}" for name, number in summary["groups"].items())
    table = rich.table.Table("", summary["dataset"], show_edge=False)
    table.add_row("classes", f"{summary['classes']:,} ({groups} shot)")
    table.add_row("imbalance ratio", f"{summary['imbalance_ratio']:,.1f}")
    table.add_row("Gini coefficient", f"{summary['gini']:.3f}")
    for end in ("head", "tail"):
        classes = "\n".join(f"{count:>7,}  {name}" for name, count in summary[end])
        table.add_row(end, rich.markup.escape(classes))
    leaked = ", ".join(f"{number:,} of {pair}" for pair, number in summary["leaked"].items() if number)
    table.add_row("leaked examples", leaked or "none")
    table.add_row("equal examples, other labels", f"{summary['conflicting_labels']:,} groups")
    for note in summary["notes"]:
        table.add_row("note", rich.markup.escape(note))
    splits = rich.table.Table("split", show_edge=False)
    columns = dict.fromkeys(column for row in summary["splits"].values() for column in row)
    for column in columns:
        splits.add_column(column.replace("images", "examples"), justify="right")
    for name, row in summary["splits"].items():
        cells = [row.get(column, "") for column in columns]
        splits.add_row(name, *(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells))
    rich.print(table, "", splits, sep="\n")
    leaks = [
        " = ".join(f"{name} {path}" for name, paths in leak.items() for path in paths) for leak in summary["leaks"]
    ]
    for kind, lines in {"leak": leaks, "bad": summary["bad_images"]}.items():
        for line in lines[:SHOWN_LINES]:
            print(f"{kind}: {line}")
        if len(lines) > SHOWN_LINES:
            print(f"{kind}: and {len(lines) - SHOWN_LINES:,} more, all in describe.json")


def draw_sizes(inspections: Mapping[str, Inspection], *, image_size: int) -> Figure:
    """Histograms of the shorter side and of the shape of all good images, with what the network sees."""
    sizes = np.concatenate([inspection.sizes for inspection in inspections.values()])
    sizes = sizes[sizes.min(1) > 0]
    shorter, shape = sizes.min(1), sizes[:, 1] / sizes[:, 0]
    figure = Figure(figsize=(8, 3.4))
    side, ratio = figure.subplots(1, 2)
    _histogram(side, np.append(shorter, image_size), shorter)
    mark(side, image_size, f"network's input {image_size} px, {(shorter < image_size).mean():.0%} are smaller")
    side.set_xlabel("shorter side, pixels")
    side.set_ylabel("images")
    _histogram(ratio, np.append(shape, [0.5, 2]), shape)
    mark(ratio, 1, "square")
    ratio.set_xlabel("width / height")
    return figure


def _histogram(ax, span: np.ndarray, values: np.ndarray):
    """Forty-one bins, equal on a log scale, over the span with a margin: a single value stands in the middle one."""
    edges = np.geomspace(span.min() / 1.2, span.max() * 1.2, 42)
    ax.hist(values, edges, color=BARS)
    lay_grid(ax, "y")
    ax.set_xscale("log")
    ax.set_xlim(edges[0], edges[-1])
    ax.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    ax.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
    ax.yaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))


def to_pixels(images: tf.Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """The inverse of `Preprocessing.normalize`, in [0, 1]: images [..., S, S, 3] -> RGB."""
    images = np.asarray(images)
    if preprocessing.channel_order == "bgr":
        images = images[..., ::-1]
    return np.clip(images * preprocessing.std + preprocessing.mean, 0, 1)


def views(split: Split, rows: Sequence[int], *, preprocessing: Preprocessing, seed: int) -> np.ndarray:
    """Images as evaluation sees them, then as training does seven times: RGB in [0, 1], [K, 8, S, S, 3].

    Where training mixes images, these are mixed with one another.
    """
    images = [tf.constant(split.read(row)) for row in rows]
    seen = [tf.stack([preprocessing.evaluate(image) for image in images])]
    for view in range(VIEWS):
        seeds = [tf.constant([seed, row * VIEWS + view], tf.int64) for row in rows]
        batch = tf.stack([preprocessing.train(*example) for example in zip(images, seeds, strict=True)])
        seen.append(preprocessing.mix(batch, split.labels[rows], seeds[0])[0] if preprocessing.mixes else batch)
    return to_pixels(tf.stack(seen, 1), preprocessing)


def sample_classes(groups: ShotGroups) -> list[int]:
    """The largest and the smallest class of every group, from head to tail."""
    order = np.argsort(-groups.class_counts, kind="stable")
    members = [order[mask[order]] for mask in groups.values()]
    return list(dict.fromkeys(int(c) for group in members if len(group) for c in group[[0, -1]]))


def draw_augmented(data: LongTailed, inspection: Inspection, *, preprocessing: Preprocessing, seed: int) -> Figure:
    """A page of views: a row for the first good training image of each of `sample_classes`."""
    chosen = sample_classes(data.groups)
    figure = Figure(figsize=(CELL * (VIEWS + 2.6), CELL * (len(chosen) + 0.4)))
    grid = figure.subplots(len(chosen), VIEWS + 1, squeeze=False)
    good = {label: np.flatnonzero((data.train.labels == label) & (inspection.hashes != b"")) for label in chosen}
    rows = {label: found[0] for label, found in good.items() if len(found)}
    seen = views(data.train, list(rows.values()), preprocessing=preprocessing, seed=seed) if rows else ()
    shown = dict(zip(rows, seen, strict=True))
    for label, axes in zip(chosen, grid, strict=True):
        for ax in axes:
            ax.set_axis_off()
        for ax, view in zip(axes, shown.get(label, ()), strict=False):
            ax.imshow(view)
        group = next(name for name, members in data.groups.items() if members[label])
        name = textwrap.fill(data.class_names[label], LONGEST_NAME, max_lines=2, placeholder="…")
        title = f"{name}\n{data.class_counts[label]:,} ({group})"
        axes[0].text(-0.1, 0.5, title, transform=axes[0].transAxes, ha="right", va="center", parse_math=False)
    added = [name for name in ("randaugment", "random_erasing", "mixup", "cutmix") if getattr(preprocessing, name)]
    grid[0, 0].set_title("evaluation", size=9)
    grid[0, 1].set_title(f"training ({', '.join([preprocessing.augmentation, *added])})", size=9, loc="left")
    return figure


def describe(data: LongTailed, folder: str | os.PathLike, *, preprocessing: Preprocessing, seed: int = 0) -> dict:
    """Examines the images, writes `describe.json`, `classes.png`, `sizes.png` and `augmented.png`; the summary.

    Of data that are features already there are neither sizes nor augmentations to be drawn.
    """
    folder = pathlib.Path(folder)
    inspections = inspect(data)
    summary = summarize(data, inspections, find_duplicates(inspections))
    write_json(folder / "describe.json", summary)
    if all(len(inspections[name].problems) == len(split) for name, split in data.all_splits.items()):
        raise ValueError(f"No image can be read. Received: {data.name}, the first: {summary['bad_images'][0]}")
    with atomic(folder / "classes.png") as scratch:
        scratch.write_bytes(plot_class_counts(data).png)
    if data.of_features:
        return summary
    with matplotlib.rc_context(RC):
        figures = {
            "sizes.png": draw_sizes(inspections, image_size=preprocessing.image_size),
            "augmented.png": draw_augmented(data, inspections["train"], preprocessing=preprocessing, seed=seed),
        }
        for name, figure in figures.items():
            with atomic(folder / name) as scratch:
                figure.savefig(scratch)
    return summary


def main():
    """Runs the command."""
    with plain_errors():
        run = Run.of(config.from_flags())
        said = config.said(run.config)
        if run.flags_file.exists() and ("workdir" in said or not config.output_dir()):
            run = Run(**config.of_a_run())
        folder = expanded(config.output_dir() or run.description_folder)
        run.fit_to_data(said)
        run_config, data = run.config, run.listed_data
        check_outside(folder, "output_dir", run_config.dataset, run_config.data_dir, **run_config.data_options)
        check_own(folder / DESCRIPTION_FILES[0], '{\n "dataset":', beside=DESCRIPTION_FILES[1:])
        preprocessing = make_preprocessing(data, backbone=run_config.backbone, **run_config.preprocessing_options)
        with part(f"Describing {data.name}"):
            summary = describe(data, folder, preprocessing=preprocessing, seed=run_config.seed)
        compares = run_config.on_bad_image == "skip" or not summary["bad_images"]
        changes = run.changes if compares else ()
    print_summary(summary)
    for change in changes:
        print(f"since {run.folder} was trained: {change}")
    for name in DESCRIPTION_FILES[: 2 if data.of_features else None]:
        print(folder / name)


if __name__ == "__main__":
    launch(main)
