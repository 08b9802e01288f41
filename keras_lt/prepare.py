"""Prepares a data set for training: its images in a few large files, upright, RGB, no larger than asked.

    python -m keras_lt.prepare --dataset=places_lt --data_dir=/data/places --output_dir=/data/small --shorter_side=256

Afterwards `--data_dir=/data/small` stands for the data set. Killed at any moment, the same command resumes from
the last finished shard. `--verify` reads a prepared folder through and names what is damaged. The folder is described
in `keras_lt.datasets.prepared`, and what happens to an image in `keras_lt.preparing.conversion`.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from keras_lt.command import Arguments, launch, plain_errors, quietly
from keras_lt.registry import names_in


def parser() -> Arguments:
    """The command's own flags."""
    own = Arguments(__doc__.splitlines()[0])
    own.add_argument("--dataset", default="", help="Data set, as keras_lt.train takes it.")
    own.add_argument("--data_dir", default="", help="Folder with the data set's lists and images.")
    own.add_argument("--output_dir", required=True, help="Folder to write.")
    own.add_argument(
        "--shorter_side",
        type=int,
        default=0,
        help="Resizes larger images to this shorter side, in pixels; 0 keeps all sizes.",
    )
    own.add_argument("--quality", type=int, default=90, help="JPEG quality of images that are encoded again, 1 to 100.")
    own.add_argument(
        "--lossless", action="store_true", help="Write PNG, not JPEG, where an image has to be encoded again."
    )
    choices = names_in("inspection.py", "ON_BAD_IMAGE")
    own.add_argument(
        "--on_bad_image",
        choices=choices,
        default="error",
        help="What a missing or corrupt image does: end the command, or be left out.",
    )
    own.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="Threads that read and convert images.")
    own.add_argument("--verify", action="store_true", help="Prepare nothing; read all of --output_dir and check it.")
    options = own.add_argument_group("options of the data set, as keras_lt.train takes them")
    options.add_argument("--imbalance_ratio", type=float)
    options.add_argument("--profile")
    options.add_argument("--seed", type=int)
    options.add_argument("--allow_modified_lists", action="store_true", default=None)
    return own


with quietly(__name__, lambda: parser().parse_args()):
    import rich.progress
    from PIL import Image

    from keras_lt import datasets
    from keras_lt.datasets import LongTailed, Split
    from keras_lt.datasets.long_tailed import OPEN
    from keras_lt.datasets.prepared import FORMAT, MANIFEST, SETTINGS, from_manifest
    from keras_lt.files import check_own, expanded, holds_anything, read_json, sweep, write_json, write_text
    from keras_lt.preparing.conversion import convert
    from keras_lt.preparing.shards import Example, bad_images, check_shard, describe_shard, is_finished, write_shard

BAD_IMAGES = "bad_images.txt"
EXAMPLES = "examples"  # in what was asked for, their digest
IMAGES_PER_SHARD = 1024
AHEAD = 32  # converted images per worker that may wait for the writer, so that none stands still while a shard ends


@dataclasses.dataclass(frozen=True, eq=False)
class Shard:
    """Neighbouring examples of a split, and the file that they go to.

    Attributes:
      path: of the file.
      split: all of the split, its images called `names`.
      rows: the examples.
    """

    path: pathlib.Path
    split: Split
    names: Sequence[str]
    rows: range

    @property
    def made_of(self) -> str:
        """Changes with the sizes of the images' files, in bytes; that their names are the same is known otherwise."""
        sizes = self.split.examples.stamps(slice(self.rows.start, self.rows.stop))[:, 0]
        return hashlib.sha256(sizes.tobytes()).hexdigest()


def prepare(
    data: LongTailed,
    output_dir: str | os.PathLike,
    *,
    settings: Mapping,
    data_dir: str = "",
    skip_bad_images: bool = False,
    workers: int = 1,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> int:
    """Writes a data set's images as shards; those that are there already, of files of the same sizes, are kept.

    Args:
      data: what to prepare; its images must be encoded.
      output_dir: a new or empty folder, or one where this began before.
      settings: "dataset" and "options" as `datasets.load` took them; "convert", the arguments of `convert`.
      data_dir: left out of the images' names, so that they hold on any machine.
      skip_bad_images: leave missing and damaged images out; otherwise they are an error, once all are known.
      workers: threads; they decode and resize in parallel, since Pillow does both outside of Python's lock.
    Returns: images converted now.

    Raises:
      ValueError: pixels instead of encoded images, a folder begun with other settings, or missing or damaged images.
      OSError: a file cannot be written.
    """
    if not all(split.examples.encoded for split in data.all_splits.values()):
        raise ValueError(
            "Only encoded images need preparing; pixels are in memory, which is faster than any file. "
            f"Received: data set '{data.name}', of pixels"
        )
    folder = pathlib.Path(output_dir)
    shards = {name: _plan(folder, name, split, data_dir, images_per_shard) for name, split in data.all_splits.items()}
    every = list(itertools.chain(*shards.values()))
    _begin(folder, {"format": FORMAT, **settings, EXAMPLES: _fingerprint(every)})
    missing = [s for s in every if not is_finished(s.path, s.made_of) or (bad_images(s.path) and not skip_bad_images)]
    if missing:
        (folder / MANIFEST).unlink(missing_ok=True)
    _write(missing, data.class_names, settings["convert"], workers=workers, kept=len(every) - len(missing))

    bad = [f"{name}\t{line}\n" for name, parts in shards.items() for shard in parts for line in bad_images(shard.path)]
    (folder / BAD_IMAGES).unlink(missing_ok=True)
    if bad:
        write_text(folder / BAD_IMAGES, "".join(bad))
    if bad and not skip_bad_images:
        raise ValueError(
            f"{len(bad)} images are missing or damaged, all named in {folder / BAD_IMAGES}: replace them and give the "
            f"same command again, or leave them out by --on_bad_image=skip. The first: {bad[0].strip()}"
        )
    manifest = {
        "description": _description(data, settings["convert"]["shorter_side"], len(bad)),
        "splits": {name: [describe_shard(shard.path) for shard in parts] for name, parts in shards.items()},
    }
    from_manifest(folder, manifest)  # without its damaged images a class may be empty, which is an error
    write_json(folder / MANIFEST, manifest)
    return sum(len(shard.rows) for shard in missing)


def verify(folder: pathlib.Path, *, workers: int = 1) -> list[str]:
    """Reads a prepared folder through: a line per damaged shard, with the first damaged record of it.

    Raises:
      FileNotFoundError: it is none, or is not finished.
    """
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(f"--verify reads what keras_lt.prepare has finished. Not found: {folder / MANIFEST}")

    def damage(shard: Mapping) -> str:
        try:
            check_shard(folder / shard["file"], shard["sha256"])
        except OSError as error:
            return str(error)
        return ""

    shards = list(itertools.chain(*read_json(folder / MANIFEST, needs=["splits"])["splits"].values()))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(filter(None, rich.progress.track(pool.map(damage, shards), "Shards", total=len(shards))))


def _fingerprint(shards: Sequence[Shard]) -> str:
    """Changes with the examples and their shards: lists that changed in between do not go into one folder."""
    digest = hashlib.sha256()
    for shard in shards:
        for row in shard.rows:
            digest.update(
                f"{shard.path.name}\n{shard.names[row]}\n{shard.split.labels[row]}\n".encode("utf-8", "surrogateescape")
            )
    return digest.hexdigest()


def _begin(folder: pathlib.Path, settings: Mapping):
    """Writes down what was asked for, or checks that it is what was asked for before; removes what a kill left."""
    if (folder / SETTINGS).exists():
        before = read_json(folder / SETTINGS, needs=["format"])
        other = [key for key in settings if before.get(key) != settings[key]]
        said = [f"{key}: {before.get(key)} there, {settings[key]} now" for key in other if key != EXAMPLES]
        if other:
            raise ValueError(
                f"{folder} was begun with other settings: empty it, or give another --output_dir. "
                f"Received: {', '.join(said) or 'other images, names or labels'}"
            )
    elif holds_anything(folder):
        raise ValueError(f"--output_dir must be a new or empty folder. Received: {folder}, which holds other files")
    else:
        check_own(folder / SETTINGS, "{")  # refuses what is no place for a folder
    write_json(folder / SETTINGS, settings)
    sweep(folder)


def _plan(folder: pathlib.Path, name: str, split: Split, data_dir: str, images_per_shard: int) -> list[Shard]:
    prefix = os.path.join(pathlib.Path(data_dir), "")
    names = [image.removeprefix(prefix) for image in split.names.tolist()]
    starts = range(0, len(split), images_per_shard)
    return [
        Shard(
            folder / f"{name}-{number:05d}-of-{len(starts):05d}.tfrecord",
            split,
            names,
            range(start, min(start + images_per_shard, len(split))),
        )
        for number, start in enumerate(starts)
    ]


def _write(shards: Sequence[Shard], class_names: Sequence[str], conversion: Mapping, *, workers: int, kept: int):
    """Converts in parallel and writes in order, which makes every run's shards the same."""

    def example(shard: Shard, row: int) -> Example:
        label = int(shard.split.labels[row])
        about = (shard.names[row], label, "" if label == OPEN else class_names[label])
        try:
            return Example(*about, convert(shard.split.read(row), **conversion))
        except (ValueError, OSError) as error:
            return Example(*about, b"", damage=" ".join(str(error).split()))

    columns = ("{task.description}", rich.progress.BarColumn(), rich.progress.MofNCompleteColumn())
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        rich.progress.Progress(*columns, rich.progress.TimeRemainingColumn()) as progress,
    ):
        if kept:
            progress.print(f"{kept} shards are finished from before.")
        rows = ((shard, row) for shard in shards for row in shard.rows)
        examples = progress.track(
            _in_order(pool, example, rows, ahead=AHEAD * workers),
            total=sum(len(shard.rows) for shard in shards),
            description="Images",
        )
        for shard in shards:
            write_shard(shard.path, itertools.islice(examples, len(shard.rows)), made_of=shard.made_of)
        next(examples, None)  # the bar learns that this was the last


def _in_order(pool: concurrent.futures.Executor, function, arguments, *, ahead: int) -> Iterator:
    """`function` of every element, computed in the pool, up to `ahead` of them before they are asked for."""
    waiting = collections.deque()
    for these in arguments:
        waiting.append(pool.submit(function, *these))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _description(data: LongTailed, shorter_side: int, skipped: int) -> dict:
    """All that a `LongTailed` says beside its splits."""
    splits = (*data.splits, "open_set")
    said = {f.name: getattr(data, f.name) for f in dataclasses.fields(data) if f.name not in splits}
    if shorter_side:
        said["notes"] += (f"Images were prepared with a shorter side of at most {shorter_side} pixels.",)
    if skipped:
        said["notes"] += (f"{skipped} missing or damaged images were left out when the data set was prepared.",)
    return said


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    given = parser().parse_args(arguments)
    given.output_dir = str(expanded(given.output_dir))
    given.data_dir = str(expanded(given.data_dir)) if given.data_dir else ""
    if given.shorter_side < 0 or not 1 <= given.quality <= 100 or given.workers < 1:
        raise ValueError(
            "Expected --shorter_side >= 0, --quality in 1..100 and --workers >= 1. "
            f"Received: {given.shorter_side}, {given.quality}, {given.workers}"
        )
    return given


def _prepare(given: argparse.Namespace):
    names = ("imbalance_ratio", "profile", "seed", "allow_modified_lists")
    options = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    name, source, options = datasets.parse(datasets.DATASETS, given.dataset, **options)
    datasets.check_outside(given.output_dir, "output_dir", name, given.data_dir, **options)
    conversion = {"shorter_side": given.shorter_side, "quality": given.quality, "lossless": given.lossless}
    Image.MAX_IMAGE_PIXELS = None  # `convert` has a limit of its own; Pillow would warn before it
    start = time.monotonic()
    images = prepare(
        source(given.data_dir, **options),
        given.output_dir,
        settings={"dataset": name, "options": {**source.parameters, **options}, "convert": conversion},
        data_dir=given.data_dir,
        skip_bad_images=given.on_bad_image == "skip",
        workers=given.workers,
    )
    seconds = time.monotonic() - start
    files = list(pathlib.Path(given.output_dir).glob("*.tfrecord"))
    size = sum(path.stat().st_size for path in files)
    print(f"{given.output_dir}: {len(files)} shards, {size / 1e9:.2f} GB")
    print(f"{images} images in {seconds:.1f} s, {images / seconds:.0f} images/s")
    flags = "".join(f" --{name}={value}" for name, value in options.items())
    print(f"python -m keras_lt.train --dataset={name} --data_dir={given.output_dir}{flags}")


def main(arguments: Sequence[str] | None = None):
    """Runs the command."""
    with plain_errors():
        given = _parse(arguments)
        if not given.verify:
            _prepare(given)
            return
        damages = verify(pathlib.Path(given.output_dir), workers=given.workers)
    if damages:
        sys.exit("\n".join([*damages, f"Error: {len(damages)} shards of {given.output_dir} are damaged."]))
    print(f"{given.output_dir}: every record is as it was written.")


if __name__ == "__main__":
    launch(main)
