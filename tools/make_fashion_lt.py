"""Makes the embedded data set `fashion_lt` from the full Fashion-MNIST.

    python -m tools.make_fashion_lt --source=/usr/share/datasets/fashion-mnist

`--source` holds the four published idx files (Debian's package `dataset-fashion-mnist` installs them);
without it `keras.datasets` fetches them. Same source, same seed: the same bytes.
"""

import io
import pathlib
import zipfile

import keras
import numpy as np
from absl import app, flags

from keras_lt.datasets.profiles import class_sizes
from keras_lt.datasets.small_image_files import read_idx_pairs

HEAD, IMBALANCE_RATIO = 1000, 100  # images of the largest class; largest over smallest
VAL_PER_CLASS, TEST_PER_CLASS = 100, 500
SEED = 0

SOURCE = flags.DEFINE_string("source", "", "Folder with the published idx files; empty: keras.datasets fetches them.")
OUTPUT = flags.DEFINE_string("output", "keras_lt/data/fashion_lt.npz", "File to write.")


def savez_reproducible(path: str, arrays: dict[str, np.ndarray]):
    """Writes a compressed npz whose bytes depend on the arrays alone (zip entries carry no clock)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)


def main(_):
    """Runs the command."""
    source = pathlib.Path(SOURCE.value)
    train, test = read_idx_pairs(source) if SOURCE.value else keras.datasets.fashion_mnist.load_data()
    sizes = class_sizes("exponential", largest=HEAD, classes=10, imbalance_ratio=IMBALANCE_RATIO)
    rng = np.random.default_rng(SEED)
    chosen = {"train": [], "val": [], "test": []}
    for label, count in enumerate(sizes):
        pool = rng.permutation(np.flatnonzero(train[1] == label))
        chosen["train"].append(pool[:count])
        chosen["val"].append(pool[count : count + VAL_PER_CLASS])
        chosen["test"].append(rng.permutation(np.flatnonzero(test[1] == label))[:TEST_PER_CLASS])
    arrays = {}
    for split, parts in chosen.items():
        images, labels = test if split == "test" else train
        rows = rng.permutation(np.concatenate(parts))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[rows], labels[rows]
        print(f"{split}: {len(rows)} images, per class {np.bincount(labels[rows]).tolist()}")
    savez_reproducible(OUTPUT.value, arrays)
    print(f"{OUTPUT.value}: {pathlib.Path(OUTPUT.value).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    app.run(main)
