import dataclasses
import os
import pathlib
import re

import numpy as np
import pytest

from keras_lt.datasets import load
from keras_lt.datasets.own_images import csv, folder, labelled_images, lists


def touch(root: pathlib.Path, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def relative(root, split):
    """What a split holds: (path below the folder, label)."""
    return [(os.path.relpath(path, root), int(label)) for path, label in zip(split.images, split.labels, strict=True)]


def test_folders_of_train_are_the_classes_in_sorted_order(tmp_path):
    touch(tmp_path, "train/owl/b.JPG", "train/owl/2020/a.png", "train/newt/z.webp", "train/newt/y.jfif")
    touch(tmp_path, "val/owl/1.jpeg", "test/newt/1.gif", "test/owl/1.bmp")
    data = folder(str(tmp_path))
    assert data.name == tmp_path.name
    assert data.class_names == ("newt", "owl")
    assert relative(tmp_path, data.train) == [
        ("train/newt/y.jfif", 0),
        ("train/newt/z.webp", 0),
        ("train/owl/2020/a.png", 1),
        ("train/owl/b.JPG", 1),
    ]
    assert relative(tmp_path, data.val) == [("val/owl/1.jpeg", 1)]
    assert relative(tmp_path, data.test) == [("test/newt/1.gif", 0), ("test/owl/1.bmp", 1)]
    assert data.notes == ()


def test_files_that_are_no_images_are_counted_and_left_out(tmp_path):
    touch(tmp_path, "train/owl/a.jpg", "train/owl/b.jpg", "test/owl/a.jpg")
    touch(tmp_path, "train/owl/.a.jpg", "train/owl/deep/notes.txt", "test/owl/Thumbs.db", "train/.cache/owl/c.jpg")
    data = folder(str(tmp_path))
    assert data.class_names == ("owl",)
    assert (len(data.train), len(data.val), len(data.test)) == (1, 1, 1)
    assert data.notes == (
        f"3 files among the images are hidden or have another extension and were ignored, such as {tmp_path}/train/owl"
        "/.a.jpg.",
        f"Hidden folders are no classes and were ignored: {tmp_path}/train/.cache.",
        f"{tmp_path.name} has no val: 1 of 2 training images were set aside for it.",
    )


def test_phone_photographs_that_are_not_read_are_named_with_what_to_do(tmp_path):
    touch(tmp_path, *(f"train/Käuzchen/IMG {number}.HEIC" for number in range(4)), "train/Käuzchen/Über uns.JPG")
    touch(tmp_path, "train/Käuzchen/Schnee eule (1).jpeg", "train/Käuzchen/a.txt", "test/Käuzchen/1.jpg")
    data = folder(str(tmp_path))
    assert data.class_names == ("Käuzchen",)
    assert sorted(relative(tmp_path, data.train) + relative(tmp_path, data.val)) == [
        ("train/Käuzchen/Schnee eule (1).jpeg", 0),
        ("train/Käuzchen/Über uns.JPG", 0),
    ]
    assert data.notes[0].startswith("1 files ")
    assert data.notes[1] == (
        "4 photographs were left out, as .heic is not read: convert them to JPEG (on a Mac `sips -s format jpeg`; HEIC "
        f"anywhere by Python's pillow-heif). They are {tmp_path}/train/Käuzchen/IMG 0.HEIC, "
        f"{tmp_path}/train/Käuzchen/IMG 1.HEIC, {tmp_path}/train/Käuzchen/IMG 2.HEIC, ..."
    )


@pytest.mark.parametrize("place", ["train/", ""])
def test_a_class_of_such_photographs_alone_is_refused_with_what_to_do(tmp_path, place):
    touch(tmp_path, f"{place}owl/1.jpg", f"{place}owl/2.jpg", f"{place}newt/1.heif", f"{place}newt/2.heif")
    if place:
        touch(tmp_path, "test/owl/1.jpg")
    with pytest.raises(
        ValueError, match=r"convert them to JPEG .*no image in .*newt, and 2 other files such as .*1.heif$"
    ):
        folder(str(tmp_path))


def test_an_unknown_class_folder_is_named(tmp_path):
    touch(tmp_path, "train/owl/a.jpg", "test/owl/a.jpg", "test/unicorn/a.jpg")
    with pytest.raises(ValueError, match=r"Received: test/ with 'unicorn'$"):
        folder(str(tmp_path))


def test_train_without_test_and_no_folder_at_all_are_refused(tmp_path):
    touch(tmp_path, "train/owl/a.jpg")
    with pytest.raises(FileNotFoundError, match=rf"reads train/<class>/, test/<class>/.*{tmp_path}/test$"):
        folder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"Not found: {tmp_path}/nowhere$"):
        folder(str(tmp_path / "nowhere"))


@pytest.fixture
def unsplit(tmp_path):
    """Classes of 20, 10, 4, 3, 2 and 1 images."""
    for name, count in {"a": 20, "b": 10, "c": 4, "d": 3, "e": 2, "f": 1}.items():
        touch(tmp_path, *(f"{name}/{number:02}.jpg" for number in range(count)))
    return tmp_path


def test_images_without_a_folder_of_their_class_are_refused(tmp_path):
    touch(tmp_path, "a.jpg")
    with pytest.raises(
        ValueError, match=rf"reads train/<class>/.* Received: {re.escape(str(tmp_path))} without folders"
    ):
        folder(str(tmp_path))


def test_one_folder_is_split_by_the_names_of_its_images(tmp_path):
    touch(tmp_path, *(f"{name}/{number:03}.jpg" for name in "ab" for number in range(500)), "f/1.jpg")
    data = folder(str(tmp_path))
    # binomial: 10 and 20 percent of a thousand, within five standard deviations; a class's only image trains
    assert len(data.val) == pytest.approx(100, abs=48)
    assert len(data.test) == pytest.approx(200, abs=64)
    assert data.class_counts[2] == 1
    everything = [entry for split in data.splits.values() for entry in relative(tmp_path, split)]
    assert len(set(everything)) == len(everything) == 1001
    assert all("abf"[label] == path[0] for path, label in everything)
    assert "split by their names" in data.notes[0]
    assert data.said[1:] == ("Classes without a test image, and so without a score: 1, such as f.",)


def test_images_that_are_added_move_no_other(unsplit, tmp_path_factory):
    first, again, other = (folder(str(unsplit), seed=seed) for seed in (3, np.int64(3), 4))
    assert first.test_is_drawn
    assert relative(unsplit, first.test) == relative(unsplit, again.test)
    assert relative(unsplit, first.test) != relative(unsplit, other.test)
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=rf"seed must be an integer >= 0 and < [\d,]+\. Received: seed={seed}$"):
            folder(str(unsplit), seed=seed)
    touch(unsplit, *(f"{name}/{number}.jpg" for name in "abcd" for number in (-1, 5.5, 99)), "aa/1.jpg")
    grown = folder(str(unsplit), seed=3)
    for split, before in first.splits.items():
        paths = {path for path, _ in relative(unsplit, before)}
        assert paths <= {path for path, _ in relative(unsplit, grown.splits[split])}
    moved = tmp_path_factory.mktemp("elsewhere") / "x"
    unsplit.rename(moved)
    assert relative(moved, folder(str(moved), seed=3).test) == relative(unsplit, grown.test)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_val_split_has_its_usual_names_and_other_folders_are_named(tmp_path, name):
    touch(tmp_path, "train/owl/1.jpg", "train/owl/2.jpg", "test/owl/1.jpg", f"{name}/owl/1.jpg", "extra/owl/1.jpg")
    data = folder(str(tmp_path))
    assert relative(tmp_path, data.val) == [(f"{name}/owl/1.jpg", 0)]
    assert (len(data.train), data.val_is_carved, data.test_is_drawn) == (2, False, False)
    assert data.notes == ("Folders beside train/ and test/ that are no split were ignored: extra.",)
    touch(tmp_path, *(f"{other}/owl/1.jpg" for other in {"val", "valid"} - {name}))
    with pytest.raises(ValueError, match="val must be one folder"):
        folder(str(tmp_path))


@pytest.mark.parametrize("train", ["training_set", "Train-Set", "train images", "traindata", "trainset_2"])
def test_splits_are_known_by_what_they_are_called_with_more_words(tmp_path, train):
    touch(tmp_path, *(f"{split}/{name}/1.jpg" for split in (train, "test_set", "valid") for name in ("owl", "fox")))
    data = folder(str(tmp_path))
    assert data.class_names == ("fox", "owl")
    assert (len(data.train), len(data.test), data.test_is_drawn) == (2, 2, False)


def test_folders_around_the_same_folders_are_classes_with_a_note(tmp_path):
    """They may be of a class, by season say, or classes in splits whose names are not known."""
    touch(tmp_path, *(f"{one}/{two}/{n}.jpg" for one in ("learn", "judge") for two in ("fox", "owl") for n in range(9)))
    data = folder(str(tmp_path))
    assert data.class_names == ("judge", "learn")
    assert "judge, learn, ... were taken for classes, though each holds fox, owl, ...: if" in "\n".join(data.notes)


def test_work_folders_of_runs_are_no_classes(tmp_path):
    touch(tmp_path, *(f"{name}/{number}.jpg" for name in "ab" for number in range(20)))
    touch(tmp_path, "runs/folder/flags.cfg", "runs/folder/plots/1.png", "run/flags.cfg", "run/1.png", "a/run/flags.cfg")
    touch(tmp_path, "a/run/1.png")
    data = folder(str(tmp_path))
    assert data.class_names == ("a", "b")
    assert sum(data.sizes.values()) == 40


def test_lists_are_relative_to_the_folder(tmp_path):
    (tmp_path / "train.txt").write_text("a b/1.jpg 0\n/elsewhere/2.jpg 2\nc.jpg 1\n")
    (tmp_path / "val.txt").write_text("v.jpg 2\n")
    (tmp_path / "test.txt").write_text("t.jpg 1\n")
    data = lists(str(tmp_path))
    assert data.train.images.tolist() == [f"{tmp_path}/a b/1.jpg", "/elsewhere/2.jpg", f"{tmp_path}/c.jpg"]
    assert data.train.labels.tolist() == [0, 2, 1]
    assert relative(tmp_path, data.val) == [("v.jpg", 2)]
    assert data.class_names == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    assert lists(str(tmp_path)).class_names == ("ant", "bee", "cat")


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n\r\n", "\n \t\n"])
@pytest.mark.parametrize("between", [" ", "\t", "  ", " \t"])
def test_lists_are_read_as_editors_and_other_tools_write_them(tmp_path, end, between):
    for split in ("train", "val", "test"):
        lines = f"a b/1.jpg{between}0", f"c.jpg{between}1 "
        (tmp_path / f"{split}.txt").write_bytes(("\r\n".join(lines) + end).encode("utf-8-sig"))
    (tmp_path / "classes.txt").write_bytes(("ant\r\nbee" + end).encode("utf-8-sig"))
    data = lists(str(tmp_path))
    assert [relative(tmp_path, split) for split in data.splits.values()] == [[("a b/1.jpg", 0), ("c.jpg", 1)]] * 3
    assert data.class_names == ("ant", "bee")


@pytest.mark.parametrize("line", ["", "a.jpg", "0", " 0", "a.jpg,0", "a.jpg -1", "a.jpg 0.0", "a.jpg 0 1x"])
def test_a_line_that_does_not_fit_is_named(tmp_path, line):
    (tmp_path / "train.txt").write_text(f"b.jpg 0\n{line}\nc.jpg 1\n")
    (tmp_path / "test.txt").write_text("t.jpg 1\n")
    with pytest.raises(ValueError, match=rf"on every line\. Received: .*train\.txt:2: {line!r}"):
        lists(str(tmp_path))


def test_lists_without_val_carve_one(tmp_path):
    (tmp_path / "train.txt").write_text("".join(f"{n}.jpg 0\n" for n in range(1000)))
    (tmp_path / "test.txt").write_text("t.jpg 0\n")
    data = lists(str(tmp_path))
    assert len(data.train) + len(data.val) == 1000
    assert len(data.val) == pytest.approx(100, abs=48)  # five standard deviations
    assert f"{len(data.val)} of 1000 training images were set aside" in data.notes[0]


@pytest.mark.parametrize(("reader", "extension"), [(lists, "txt"), (csv, "csv")])
def test_missing_lists_are_named(tmp_path, reader, extension):
    expected = (
        rf"train.{extension}, test.{extension} and optionally val.{extension} from --data_dir. Not found: .*train"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        reader(str(tmp_path))


def test_tables_with_names_number_them_in_sorted_order(tmp_path):
    (tmp_path / "train.csv").write_text('path,label\n"b, c.jpg",owl\nd.jpg,newt\n', encoding="utf-8-sig")
    (tmp_path / "val.csv").write_text("label,path\nowl,v.jpg\n")
    (tmp_path / "test.csv").write_text("path,label\nt.jpg,newt\n")
    data = csv(str(tmp_path))
    assert data.class_names == ("newt", "owl")
    assert relative(tmp_path, data.train) == [("b, c.jpg", 1), ("d.jpg", 0)]
    assert relative(tmp_path, data.val) == [("v.jpg", 1)]
    (tmp_path / "classes.txt").write_text("owl\nnewt\n")
    data = csv(str(tmp_path))
    assert data.class_names == ("owl", "newt")
    assert data.train.labels.tolist() == [0, 1]


@pytest.mark.parametrize("names", [("001", "002"), ("1", "0"), ("7", "12")])
def test_names_that_are_numbers_are_names_where_they_are_listed(tmp_path, names):
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text(f"path,label\na.jpg,{names[1]}\nb.jpg,{names[0]}\n")
    (tmp_path / "classes.txt").write_text("\n".join(names))
    data = csv(str(tmp_path))
    assert data.class_names == names
    assert relative(tmp_path, data.train) == [("a.jpg", 1), ("b.jpg", 0)]


def test_one_table_with_a_split_column(tmp_path):
    (tmp_path / "images.csv").write_text("path,split,label\na.jpg,train,1\nb.jpg,test,1\nc.jpg,train,0\nd.jpg,val,0\n")
    data = csv(str(tmp_path))
    assert data.class_names == ("0", "1")
    assert relative(tmp_path, data.train) == [("a.jpg", 1), ("c.jpg", 0)]
    assert relative(tmp_path, data.val) == [("d.jpg", 0)]
    assert relative(tmp_path, data.test) == [("b.jpg", 1)]
    (tmp_path / "images.csv").write_text("path,label,split\na.jpg,0,train\nb.jpg,0,test\nc.jpg,0,train\n")
    assert "1 of 2 training images were set aside" in csv(str(tmp_path)).notes[0]
    (tmp_path / "train.csv").touch()
    assert csv(str(tmp_path)).notes[0] == "images.csv is read, and not train.csv beside it."


@pytest.mark.parametrize(
    "table",
    [
        "path;label\na, b.jpg;1\nc.jpg;0\n",
        "label\tpath\r\n1\ta, b.jpg\r\n0\tc.jpg\r\n",
        '"path", "label"\n"a, b.jpg", "1"\n\n"c.jpg", "0"\n',
        "path,label\na, b.jpg,1\nc.jpg,0\n".replace("a, b.jpg", '"a, b.jpg"') + ",\n,\n",
        '\ufeff,path,width,label,note\n0,"a, b.jpg",5,1,\n1,c.jpg,,0,"so;so"\n',
    ],
)
def test_a_table_is_read_as_spreadsheets_write_it(tmp_path, table):
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_bytes(table.encode())
    data = csv(str(tmp_path))
    assert [relative(tmp_path, split) for split in data.splits.values()] == [[("a, b.jpg", 1), ("c.jpg", 0)]] * 3
    assert data.notes == ("Columns beside path and label were ignored: width, note.",) * ("width" in table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label;split\n", r"images\.csv with path,label;split$"),
        ("path;label;split;split\n", r"images\.csv with path;label;split;split$"),
        ("path;label;split\na.jpg;0,train\n", r"images\.csv:2 with \['a\.jpg', '0,train', None\]$"),
        (
            "file,label,split\n",
            r"Expected the columns path,label,split\. Received: .*images\.csv with file,label,split",
        ),
        ("path,label\n", r"images\.csv with path,label$"),
        ("", r"images\.csv with nothing$"),
        ("path,label,split\na.jpg,0,train\nb.jpg,,test\n", r"in every row\. Received: .*images\.csv:3"),
        ("path,label,split\na.jpg,0\n", r"images\.csv:2"),
        ("path,label,split\na, b.jpg,0,train\n", r"images\.csv:2"),
        ("path,label,split\na.jpg,0,extra\n", r"split must be train, val or test\. Received: .*'extra'"),
        ("path,label,split\na.jpg,owl,train\nb.jpg,newt,test\n", r"class names of train.*Received: test with 'newt'"),
    ],
)
def test_a_table_that_does_not_fit_is_named(tmp_path, table, message):
    (tmp_path / "images.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        csv(str(tmp_path))


@pytest.mark.parametrize("labels", [("-1", "0", "1"), ("0.0", "1.0", "2.0"), ("nan", "0", "1"), ("1e3", "0", "1")])
def test_numbers_that_are_no_class_are_not_taken_for_names_unless_they_are_listed(tmp_path, labels):
    rows = "".join(f"{name}.jpg,{label}\n" for name, label in zip("abc", labels, strict=True))
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text(f"path,label\n{rows}")
    with pytest.raises(ValueError, match=rf"Labels must be class ids .*Received: train with {labels[0]}$"):
        csv(str(tmp_path))
    (tmp_path / "classes.txt").write_text("\n".join(labels))
    assert csv(str(tmp_path)).class_names == labels


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("fu\u0308r", r"'fu\\u0308r', elsewhere 'f\\xfcr'"),
        ("F\u00fcr", r"'F\\xfcr', elsewhere 'f\\xfcr'"),
        ("f\u00fcr ", r"'f\\xfcr ', elsewhere 'f\\xfcr'"),
        ("gegen", "'gegen'"),
    ],
)
def test_a_name_that_is_written_otherwise_is_named_with_the_one_that_it_may_mean(tmp_path, written, said):
    touch(tmp_path, "train/f\u00fcr/a.jpg", "val/f\u00fcr/a.jpg", f"test/{written}/a.jpg")
    with pytest.raises(ValueError, match=rf"Received: test/ with {said}$"):
        folder(str(tmp_path))
    with pytest.raises(ValueError, match=rf"with {said}$"):
        labelled_images(str(tmp_path / "test"), ["f\u00fcr"])
    (tmp_path / "images.csv").write_text(f"path,label,split\na,f\u00fcr,train\nb,{written},test\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"Received: test with {said}$"):
        csv(str(tmp_path))


def test_classes_that_differ_in_capitals_alone_are_two_and_named(tmp_path):
    touch(tmp_path, *(f"{split}/{name}/a.jpg" for split in ("train", "val", "test") for name in ("Ant", "ant", "bee")))
    data = folder(str(tmp_path))
    assert data.class_names == ("Ant", "ant", "bee")
    assert data.notes == ("The classes 'Ant' and 'ant' differ in capitals alone: they are taken for two.",)
    assert dataclasses.replace(data, name="again").notes == data.notes


def test_labels_that_count_from_one_are_told_where_they_should(tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").write_text("a.jpg 1\nb.jpg 2\n")
    with pytest.raises(ValueError, match=r"needs a training image: labels count from 0; .*with 1 empty: 0 "):
        lists(str(tmp_path))


@pytest.mark.parametrize("source", ["folder", "csv", "lists", "arrays", "features", "places_lt"])
def test_a_file_is_no_folder_of_data(tmp_path, source):
    path = tmp_path / "train.csv"
    path.touch()
    with pytest.raises(ValueError, match=rf" reads .* from the folder --data_dir\. Received: the file {path}$"):
        load(source, str(path))
