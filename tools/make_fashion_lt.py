"""Makes the embedded data set `fashion_lt` from the full Fashion-MNIST.

    python -m tools.make_fashion_lt --source=/usr/share/datasets/fashion-mnist

`--source` holds the four published idx files (Debian's package `dataset-fashion-mnist` installs them);
without it `keras.datasets` fetches them. Same source, same seed: the same bytes.
"""

import gzip
import io
import pathlib
import zipfile

import numpy as np
from absl import app, flags

HEAD, IMBALANCE_RATIO = 1000, 100  # images of the largest class; largest over smallest
VAL_PER_CLASS, TEST_PER_CLASS = 100, 500
SEED = 0

SOURCE = flags.DEFINE_string("source", "", "Folder with the published idx files; empty: keras.datasets fetches them.")
OUTPUT = flags.DEFINE_string("output", "keras_lt/data/fashion_lt.npz", "File to write.")


def exponential_counts(head: int, ratio: float, classes: int) -> list[int]:
    """Images per class falling exponentially from `head` to `head / ratio`, [C] (Cao et al., 2019)."""
    return [int(head * ratio ** (-c / (classes - 1))) for c in range(classes)]


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Reads one gzipped idx file of bytes: a magic number whose last byte is the rank, then the shape."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_full(source: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The full set: {"train", "t10k"} -> (images uint8 [N,28,28], labels uint8 [N])."""
    if source:
        folder = pathlib.Path(source)
        return {
            part: tuple(read_idx(folder / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
            for part in ("train", "t10k")
        }
    import keras  # noqa: PLC0415 - slow, and only this branch needs it

    train, test = keras.datasets.fashion_mnist.load_data()
    return {"train": train, "t10k": test}


def savez_reproducible(path: str, arrays: dict[str, np.ndarray]):
    """Writes a compressed npz whose bytes depend on the arrays alone (zip entries carry no clock)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)


def main(_):
    """Runs the command."""
    full = load_full(SOURCE.value)
    rng = np.random.default_rng(SEED)
    chosen = {"train": [], "val": [], "test": []}
    for label, count in enumerate(exponential_counts(HEAD, IMBALANCE_RATIO, 10)):
        pool = rng.permutation(np.flatnonzero(full["train"][1] == label))
        chosen["train"].append(pool[:count])
        chosen["val"].append(pool[count : count + VAL_PER_CLASS])
        chosen["test"].append(rng.permutation(np.flatnonzero(full["t10k"][1] == label))[:TEST_PER_CLASS])
    arrays = {}
    for split, parts in chosen.items():
        images, labels = full["t10k" if split == "test" else "train"]
        rows = rng.permutation(np.concatenate(parts))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[rows], labels[rows]
        print(f"{split}: {len(rows)} images, per class {np.bincount(labels[rows]).tolist()}")
    savez_reproducible(OUTPUT.value, arrays)
    print(f"{OUTPUT.value}: {pathlib.Path(OUTPUT.value).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    app.run(main)
