"""The published lists: what they must show, how they may be laid out, and what a wrong one is answered with."""

import json
import re

import numpy as np
import pytest

from keras_lt.datasets import load, published

COUNTS = {"train": (6, 3, 2), "val": (1, 1, 1), "test": (2, 2, 2)}


def write_lists(folder, pattern, layout, splits=("train", "val", "test")):
    for split in splits:
        paths = [
            f"{layout.format(split=split, name=f'class{c}')}/{i}.jpg {c}"
            for c, n in enumerate(COUNTS[split])
            for i in range(n)
        ]
        (folder / pattern.format(split)).write_text("\n".join(paths) + "\n")


def write_competition(folder):
    """The iNaturalist competition's annotations, images not in the order of their ids."""
    for split in ("train", "val"):
        labels = np.repeat(np.arange(3), COUNTS[split])[::-1]
        images = [
            {"id": 100 + i, "file_name": f"train_val2018/Aves/{c}/{split}{i}.jpg", "width": 800, "height": 600}
            for i, c in enumerate(labels)
        ]
        annotations = [
            {"id": 7 + i, "image_id": 100 + i, "category_id": int(c)} for i, c in reversed(list(enumerate(labels)))
        ]
        categories = [{"id": c, "name": f"species {c}", "supercategory": "Aves"} for c in (2, 0, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories, "info": {}, "licenses": []}
        (folder / f"{split}2018.json").write_text(json.dumps(content))


def modified(name, folder):
    """The miniature as it is, which it says it is."""
    with pytest.warns(UserWarning, match="are not those published"):
        return load(name, str(folder), allow_modified_lists=True)


@pytest.mark.parametrize("layout", ["{split}/{name}", "data_256/c/{name}"])
def test_places_lt_reads_both_published_layouts(tmp_path, layout):
    write_lists(tmp_path, "Places_LT_{}.txt", layout)
    data = modified("places_lt", tmp_path)
    assert data.class_names == ("class0", "class1", "class2")
    assert data.train.images[6] == f"{tmp_path}/{layout.format(split='train', name='class1')}/0.jpg"
    assert data.class_counts.tolist() == [6, 3, 2]
    assert (data.image_size, data.crop_fraction, data.augmentation) == (224, 224 / 256, "imagenet")


def test_imagenet_lt_names_classes_by_their_wordnet_folder(tmp_path):
    write_lists(tmp_path, "ImageNet_LT_{}.txt", "train/n0144076{name}")
    data = modified("imagenet_lt", tmp_path)
    assert data.class_names[:2] == ("n0144076class0", "n0144076class1")
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\nwhite shark\n")
    assert modified("imagenet_lt", tmp_path).class_names == ("tench", "goldfish", "white shark")
    assert [len(split) for split in data.splits.values()] == [11, 3, 6]
    assert data.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("lay_out", ["lists", "competition"])
def test_inaturalist_reports_its_val_and_carves_another(tmp_path, lay_out):
    if lay_out == "lists":
        write_lists(tmp_path, "iNaturalist18_{}.txt", "train_val2018/Aves/{name}", splits=("train", "val"))
    else:
        write_competition(tmp_path)
    data = modified("inaturalist18", tmp_path)
    assert np.bincount(data.test.labels).tolist() == [1, 1, 1]
    assert (data.class_counts + np.bincount(data.val.labels, minlength=3)).tolist() == [6, 3, 2]
    assert data.class_counts.min() >= 1
    assert not set(data.train.images) & set(data.val.images)
    assert data.listed_counts.tolist() == [6, 3, 2]  # groups go by the published list
    assert "its published val is reported as test" in data.notes[0]
    assert data.notes[-1] == f"inaturalist18 has no val: {len(data.val)} of 11 training images were set aside for it."
    assert (data.mean, data.std) == ((0.466, 0.471, 0.380), (0.195, 0.194, 0.192))
    assert data.augmentation == "resized_crop_flip"  # the reference jitters no colours here


def test_annotations_are_matched_by_image_and_categories_by_id(tmp_path):
    write_competition(tmp_path)
    data = modified("inaturalist18", tmp_path)
    assert data.class_names == ("species 0", "species 1", "species 2")
    for split in data.splits.values():
        assert [int(path.split("/")[-2]) for path in split.images] == split.labels.tolist()


def test_released_species_names_take_the_place_of_the_competition_s(tmp_path):
    write_competition(tmp_path)
    names = [{"id": c, "name": name} for c, name in enumerate(["Corvus corax", "Pica pica", "Apus apus"])]
    (tmp_path / "categories.json").write_text(json.dumps(names))
    assert modified("inaturalist18", tmp_path).class_names == ("Corvus corax", "Pica pica", "Apus apus")


def test_what_differs_from_the_published_lists_is_named(tmp_path):
    write_lists(tmp_path, "Places_LT_{}.txt", "{split}/{name}")
    with pytest.raises(ValueError, match="are not those published") as error:
        load("places_lt", str(tmp_path))
    for difference in (
        "11 train images instead of 62,500",
        "3 val images instead of 7,300",
        "3 classes instead of 365",
        "6 images of the largest class instead of 4,980",
        "2 images of the smallest class instead of 5",
        "0 many-shot classes instead of 131",
        "3 few-shot classes instead of 71",
        "--allow_modified_lists",
    ):
        assert difference in str(error.value)


def published_counts(facts):
    """A training list with exactly the published size, extremes and groups."""
    many, medium, few = (facts[f"{group}-shot classes"] for group in ("many", "medium", "few"))
    largest, smallest = facts["images of the largest class"], facts["images of the smallest class"]
    counts = np.concatenate([np.full(many, 101), np.full(medium, 20), np.full(few, smallest)])
    counts[0] = largest
    missing = facts["train images"] - counts.sum()
    room = np.where(np.arange(len(counts)) < many, largest - counts, 0)
    room[many : many + medium] = 80
    room[many + medium : -1] = 19 - smallest
    fill = np.minimum(room, np.maximum(missing - np.concatenate([[0], np.cumsum(room)[:-1]]), 0))
    return counts + fill


@pytest.mark.parametrize(
    ("of", "pattern"),
    [(published.PLACES_LT, "Places_LT_{}.txt"), (published.IMAGENET_LT, "ImageNet_LT_{}.txt")],
    ids=["places_lt", "imagenet_lt"],
)
def test_lists_with_the_published_figures_are_taken(tmp_path, of, pattern):
    counts = published_counts(of.facts)
    classes = of.facts["classes"]
    splits = {"train": counts}
    splits |= {split: np.full(classes, of.facts[f"{split} images"] // classes) for split in ("val", "test")}
    for split, per_class in splits.items():
        labels = np.repeat(np.arange(classes), per_class)
        lines = [f"{split}/c{c}/{i}.jpg {c}" for i, c in enumerate(labels)]
        (tmp_path / pattern.format(split)).write_text("\n".join(lines))
    data = load(of.name, str(tmp_path))
    np.testing.assert_array_equal(data.class_counts, counts)
    assert data.notes == ()


def test_missing_lists_are_named_with_where_they_come_from(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"OpenLongTailRecognition.*Places365.*Places_LT_train.txt"):
        load("places_lt", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"inat_comp.*iNaturalist18_train.txt"):
        load("inaturalist18", str(tmp_path))


def test_a_list_line_without_a_label_is_named(tmp_path):
    write_lists(tmp_path, "Places_LT_{}.txt", "{split}/{name}")
    (tmp_path / "Places_LT_val.txt").write_text("val/0/0.jpg 0\nval/0/1.jpg\n")
    with pytest.raises(ValueError, match=re.escape("Places_LT_val.txt:2: 'val/0/1.jpg'")):
        load("places_lt", str(tmp_path))


def test_another_json_is_refused(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}2018.json").write_text('{"images": [{"file_name": "x.jpg"}]}')
    with pytest.raises(ValueError, match=r"competition's annotations.*train2018.json"):
        load("inaturalist18", str(tmp_path))
