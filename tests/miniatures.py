"""The published data sets in miniature, laid out exactly as they come, a few images of a few classes."""

import json
import pathlib
import pickle

import numpy as np
import tensorflow as tf

TRAIN = (30, 12, 6)  # images per class
VAL = TEST = (2, 2, 2)


def pixels(label, *, height=48, width=40, seed=0):
    """An image whose brightness says its class."""
    noise = np.random.default_rng((seed, label)).normal(60 + 60 * label, 25, (height, width, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def write_jpeg(path: pathlib.Path, label, *, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_jpeg(pixels(label, seed=seed)).numpy())


def _lists_of_files(folder, pattern, path_of):
    """The three lists of a data set, and the JPEGs that they name."""
    for split, counts in {"train": TRAIN, "val": VAL, "test": TEST}.items():
        lines = []
        for label, count in enumerate(counts):
            for i in range(count):
                path = path_of(split, label, i)
                write_jpeg(folder / path, label, seed=len(lines))
                lines.append(f"{path} {label}")
        (folder / pattern.format(split)).write_text("\n".join(lines) + "\n")


def places_lt(folder):
    """The 'easy directory' layout; test is Places365's val."""
    names = ("airfield", "airplane_cabin", "airport_terminal")

    def path_of(split, label, i):
        if split == "test":
            return f"val/{names[label]}/Places365_val_{10 * label + i:08}.jpg"
        return f"train/{names[label]}/{i + 500 * (split == 'val'):08}.jpg"

    _lists_of_files(folder, "Places_LT_{}.txt", path_of)


def imagenet_lt(folder):
    """ILSVRC2012's folders; val is carved from its train, test is its val."""
    wnids = ("n01440764", "n01443537", "n01484850")

    def path_of(split, label, i):
        if split == "test":
            return f"val/{wnids[label]}/ILSVRC2012_val_{10 * label + i + 1:08}.JPEG"
        return f"train/{wnids[label]}/{wnids[label]}_{i + 500 * (split == 'val')}.JPEG"

    _lists_of_files(folder, "ImageNet_LT_{}.txt", path_of)


def inaturalist18(folder):
    """The competition's two annotation files over `train_val2018/`."""
    supercategories = ("Plantae", "Aves", "Insecta")
    categories = [{"id": c, "name": f"species {c}", "supercategory": s} for c, s in enumerate(supercategories)]
    for split, counts in {"train": TRAIN, "val": VAL}.items():
        images, annotations = [], []
        for label, count in enumerate(counts):
            for _ in range(count):
                number = len(images)
                path = f"train_val2018/{supercategories[label]}/{label}/{split}{number:032x}.jpg"
                write_jpeg(folder / path, label, seed=number)
                images.append({"id": number, "file_name": path, "width": 40, "height": 48, "license": 3})
                annotations.append({"id": number, "image_id": number, "category_id": label})
        content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}2018.json").write_text(json.dumps(content))


def _cifar_batch(path, labels_key, labels, seed):
    """One of CIFAR's pickles: rows of 3,072 bytes, red first."""
    path.parent.mkdir(exist_ok=True)
    rows = [
        pixels(label, height=32, width=32, seed=seed + i).transpose(2, 0, 1).ravel() for i, label in enumerate(labels)
    ]
    content = {b"data": np.stack(rows), labels_key: list(map(int, labels))}
    content |= {b"filenames": [b"x.png"] * len(labels), b"batch_label": b"a batch"}
    path.write_bytes(pickle.dumps(content, protocol=2))


def cifar10(folder):
    """The "python version": five training batches and one to test, ten classes."""
    labels = np.tile(np.arange(10), 4)
    for batch in range(1, 6):
        _cifar_batch(folder / f"cifar-10-batches-py/data_batch_{batch}", b"labels", labels, seed=1000 * batch)
    _cifar_batch(folder / "cifar-10-batches-py/test_batch", b"labels", labels[:20], seed=0)


def cifar100(folder):
    """The "python version": one file to train on and one to test, a hundred fine classes."""
    labels = np.tile(np.arange(100), 5)
    _cifar_batch(folder / "cifar-100-python/train", b"fine_labels", labels, seed=1000)
    _cifar_batch(folder / "cifar-100-python/test", b"fine_labels", labels[:100], seed=0)


def arrays(folder):
    """npz files of grey 16 x 16 images, as glyphs_lt has them."""
    for seed, (split, counts) in enumerate({"train": TRAIN, "val": VAL, "test": TEST}.items()):
        labels = np.repeat(np.arange(len(counts)), counts)
        images = [pixels(label, height=16, width=16, seed=100 * seed + i)[..., 0] for i, label in enumerate(labels)]
        np.savez(folder / split, images=np.stack(images), labels=labels)


def folder(folder):
    """The user's own: split as they are, a folder per class."""
    for split, counts in {"train": TRAIN, "val": VAL, "test": TEST}.items():
        for label, count in enumerate(counts):
            for i in range(count):
                write_jpeg(folder / split / f"kind {label}" / f"{split}{i}.jpg", label, seed=10 * label + i)


ELPV_COUNTS = (60, 36, 34, 40, 32, 31, 31, 33)  # images per class, thirty of which are val and test


def elpv(folder):
    """Grey PNGs of 8 x 8 pixels, and a list of them whose lines are in no order."""
    (folder / "images").mkdir()
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(8), ELPV_COUNTS))
    lines = []
    for i, label in enumerate(labels):
        image = pixels(label % 4, height=8, width=8, seed=i)[..., :1]
        (folder / f"images/cell{i:04}.png").write_bytes(tf.io.encode_png(image).numpy())
        probability = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")[label % 4]
        lines.append(f"images/cell{i:04}.png  {probability} {'mono' if label < 4 else 'poly'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


LAYOUTS = {
    "places_lt": places_lt,
    "imagenet_lt": imagenet_lt,
    "inaturalist18": inaturalist18,
    "cifar10_lt": cifar10,
    "cifar100_lt": cifar100,
    "arrays": arrays,
    "folder": folder,
    "elpv": elpv,
    "fashion_lt": lambda folder: None,  # it ships with the package
}
