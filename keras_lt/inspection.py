"""Every encoded image is examined once, before any training: a bad one costs a minute now instead of an epoch later."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import tempfile
import warnings
from collections.abc import Mapping
from multiprocessing.pool import ThreadPool

import numpy as np
import PIL.Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_lt.datasets import Examples, LongTailed, Split
from keras_lt.datasets.examining import Examined, hash_of
from keras_lt.datasets.long_tailed import plain
from keras_lt.files import atomic, expanded, printable, write_text
from keras_lt.registry import check_choice

ON_BAD_IMAGE = ("error", "skip")
WAY_OUT = "Repair or convert them (`python -m keras_lt.prepare`), or leave them out with --on_bad_image=skip."
THREADS = 2 * (os.cpu_count() or 1)  # one reads while another decodes
STAMPED = 1024  # files that a thread looks up at once
SHOWN_IN_ERROR, SHOWN_IN_SKIP = 5, 20
ROW = np.dtype([("stamp", np.int64, 2), ("size", np.int32, 2), ("orientation", np.uint8), ("hash", "S16")])


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
    """What is known of the images of one split; a bad one has size 0, no hash and a problem.

    Attributes:
      sizes: height and width, pixels, int32 [N, 2].
      orientations: EXIF's, 1 for upright, [N].
      hashes: 16 bytes of the encoded image or, where there are only pixels, of those, [N].
      problems: row -> what is wrong with its image.
    """

    sizes: np.ndarray
    orientations: np.ndarray
    hashes: np.ndarray
    problems: dict[int, str]


def inspect(data: LongTailed, *, cache_dir: str | os.PathLike | None = None) -> dict[str, Inspection]:
    """Examines every image of every split, in threads: split name -> its inspection.

    An image is good where it decodes as training decodes it, to at most a hundred million pixels. Good ones are
    remembered, and examined again only where length or a time of the file change; bad ones are examined every time.

    Args:
      cache_dir: where to remember; None is `keras_lt/inspections` in Keras's home. One that cannot be written is no
        error.
    """
    return {
        name: inspect_examples(
            split.examples, title=f"{data.name}, {name}: examining {split.examples.called}", cache_dir=cache_dir
        )
        for name, split in data.all_splits.items()
    }


def screen(
    data: LongTailed,
    *,
    report: str | os.PathLike | None = None,
    on_bad_image: str = "error",
    inspections: Mapping[str, Inspection] | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> LongTailed:
    """The data set without its bad images; sets of pixels pass at once.

    Args:
      report: the file that lists bad images with what is wrong with them, written where there are any; None is none.
      on_bad_image: "error", or "skip", which leaves them out and says so in `notes`.
      inspections: what `inspect` says, where that is known.
      cache_dir: as in `inspect`.
    Raises:
      ValueError: there are bad images and they are not to be skipped, or nothing of a split or class would be left.
    """
    check_choice(ON_BAD_IMAGE, on_bad_image=on_bad_image)
    if not any(split.examples.encoded for split in data.all_splits.values()):
        return data
    inspections = inspect(data, cache_dir=cache_dir) if inspections is None else inspections
    _warn_of_rotated(data, inspections)
    bad = bad_images(data, inspections)
    if not bad:
        return data
    if report is not None:
        write_text(report, "".join(f"{line}\n" for line in bad))
    counts = ", ".join(
        f"{len(inspections[name].problems)} of {len(split)} in {name}" for name, split in data.all_splits.items()
    )
    if on_bad_image == "error":
        raise ValueError(
            f"Every listed image must be readable. Received: data set '{data.name}' with bad images, {counts}:\n"
            + _first(bad, SHOWN_IN_ERROR, report)
            + f"\n{WAY_OUT}"
            + (f"\nThe images: {data.source}" if data.source else "")
        )
    print("Left out:\n" + _first(bad, SHOWN_IN_SKIP, report))
    good = {name: _without(split, inspections[name].problems) for name, split in data.all_splits.items()}
    note = f"Bad images were left out, {counts}" + (f"; they stand in {report}." if report else ".")
    return dataclasses.replace(data, **good, notes=(*data.notes, note))


def readable(split: Split, *, of: str, on_bad_image: str = "error") -> Split:
    """The images of a split that is of no data set, without the bad ones; arguments and errors as of `screen`.

    Args:
      of: where the images lie.
    """
    problems = inspect_examples(split.examples, title=f"{of}: examining").problems
    shown = _first([f"{split.names[row]}: {problem}" for row, problem in problems.items()], SHOWN_IN_ERROR, None)
    if problems and (on_bad_image == "error" or len(problems) == len(split)):
        raise ValueError(
            f"Every image must be readable. Received: {of} with bad images, {len(problems)} of {len(split)}:\n{shown}\n"
            + WAY_OUT
        )
    if problems:
        print(f"Left out, {len(problems)} of {len(split)}:\n{shown}")
    return _without(split, problems)


def _without(split: Split, problems: Mapping[int, str]) -> Split:
    return split.subset(np.setdiff1d(np.arange(len(split)), list(problems)))


def bad_images(data: LongTailed, inspections: Mapping[str, Inspection]) -> list[str]:
    """What is wrong with each bad image, after its name."""
    return [
        f"{data.all_splits[name].names[row]}: {problem}"
        for name, inspection in inspections.items()
        for row, problem in inspection.problems.items()
    ]


def _first(lines: list[str], shown: int, report: str | os.PathLike | None) -> str:
    more = f"and {len(lines) - shown} more" if len(lines) > shown else ""
    where = f"{more}; all stand in {report}" if more and report else f"(also in {report})" if report else more
    return printable("\n".join(f"  {line}" for line in (*lines[:shown], where) if line))


def _warn_of_rotated(data: LongTailed, inspections: dict[str, Inspection]):
    rotated = [
        data.all_splits[name].names[row]
        for name, inspection in inspections.items()
        for row in np.flatnonzero(inspection.orientations > 1)
    ]
    if rotated:
        print(
            f"{len(rotated)} images are to be turned when shown (EXIF orientation), but training takes them as they "
            f"are stored; `python -m keras_lt.prepare` turns them. The first: {printable(rotated[0])}"
        )


def inspect_examples(examples: Examples, *, title: str, cache_dir: str | os.PathLike | None = None) -> Inspection:
    """Examines the rows that the cache has no hash of, bad ones among them, and keeps the cache up to date.

    Args: as `inspect`; the title is that of the progress bar.
    """
    folder = _keras_home() / "keras_lt/inspections" if cache_dir is None else pathlib.Path(cache_dir)
    path = folder / f"{hash_of(examples.placed_fingerprint()).hex()}.npz"
    problems = {}
    with ThreadPool(THREADS) as pool:
        known = _read_cache(path, len(examples))
        table = np.zeros(len(examples), ROW)
        parts = [slice(start, start + STAMPED) for start in range(0, len(examples), STAMPED)]
        for part, stamps in zip(parts, pool.map(examples.stamps, parts, chunksize=1), strict=True):
            table["stamp"][part] = stamps
        same = (known["stamp"] == table["stamp"]).all(1)
        table[same] = known[same]
        rows = np.flatnonzero(table["hash"] == b"")
        if not len(rows):
            return Inspection(table["size"], table["orientation"], table["hash"], {})
        try:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            # Of images larger than Pillow likes; `examining.MOST_PIXELS` is the limit here.
            unwarned = warnings.catch_warnings(action="ignore", category=PIL.Image.DecompressionBombWarning)
            with Progress(*columns) as progress, unwarned:
                examined = pool.imap_unordered(functools.partial(_try, examples), rows.tolist(), chunksize=16)
                for row, found, problem in progress.track(examined, total=len(rows), description=title):
                    if problem:
                        problems[row] = problem
                    else:
                        table["size"][row], table["orientation"][row], table["hash"][row] = found
        finally:
            if len(problems) < len(rows):  # also of an examination that was stopped
                with contextlib.suppress(OSError), atomic(path) as scratch:
                    np.savez(scratch, table=table)
    return Inspection(table["size"], table["orientation"], table["hash"], dict(sorted(problems.items())))


def _try(examples: Examples, row: int) -> tuple[int, Examined | None, str]:
    """The row with what is known of its image and "", or with None and what is wrong."""
    try:
        return row, examples.examine(row), ""
    except FileNotFoundError:
        meant = _meant(examples.names[row].replace("\\", "/"))
        return row, None, f"not found; {meant!a} is there" if meant else "not found"
    except OSError as error:
        return row, None, error.strerror or str(error)
    except ValueError as error:
        return row, None, str(error)


def _meant(path: str) -> str | None:
    """A path that is there and is written a little otherwise, as lists of another system have it."""
    if os.path.exists(path):
        return path
    folder, name = os.path.split(path)
    folder = _meant(folder) if name else None
    if folder is None:
        return None
    found = os.path.join(folder, _plainly(folder).get(plain(name), name))
    return found if os.path.exists(found) else None


@functools.lru_cache(maxsize=1)  # one after another is not found in a folder
def _plainly(folder: str) -> dict[str, str]:
    """Plain name -> name of all that is in a folder."""
    return {plain(name): name for name in os.listdir(folder)} if os.path.isdir(folder) else {}


def _read_cache(path: pathlib.Path, examples: int) -> np.ndarray:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            table = arrays["table"]
    except Exception:  # no cache, or not one that this version wrote
        return np.zeros(examples, ROW)
    return table if table.dtype == ROW and len(table) == examples else np.zeros(examples, ROW)


def _keras_home() -> pathlib.Path:
    home = os.path.expanduser("~")  # of a user without one, as in some containers, it stays "~"
    home = home if os.access(home, os.W_OK) else tempfile.gettempdir()
    return expanded(os.environ.get("KERAS_HOME") or f"{home}/.keras")
