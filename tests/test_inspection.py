import io
import os
import pathlib
import re
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from keras_lt import inspection
from keras_lt.datasets import ImageFiles, LongTailed, Records, Split
from keras_lt.inspection import inspect, screen


def encoded(image_format="JPEG", size=(8, 6), seed=0, mode="RGB", **options):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).convert(mode).save(file, image_format, **options)
    return file.getvalue()


def rotated(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encoded(exif=exif)


def huge_png():
    """A PNG header of 20,000 x 20,000 pixels; its data is never looked at."""
    content = bytearray(encoded("PNG"))
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


JPEG = encoded()
GOOD = {
    "a.jpg": JPEG,
    "b.png": encoded("PNG", seed=1),
    "c.gif": encoded("GIF", seed=2),
    "d.bmp": encoded("BMP", seed=3),
}
BAD = {  # file -> content, what is said of it
    "cut.jpg": (JPEG[:-30], "corrupt or truncated"),
    "header.jpg": (JPEG[:100], "not a complete image of a known format; it begins with"),
    "half.png": (GOOD["b.png"][:90], "corrupt or truncated"),
    "empty.jpg": (b"", "empty"),
    "page.jpg": (
        b"<!DOCTYPE html><html>404</html>",
        r"not a complete image of a known format; it begins with b'<!DOCTYPE html><'",
    ),
    "zeros.jpg": (bytes(500), "not a complete image"),
    "huge.png": (huge_png(), "more than 100,000,000 pixels"),
    "x.tiff": (
        encoded("TIFF"),
        r"TIFF of a kind that TensorFlow does not decode: convert it by `python -m keras_lt.prepa",
    ),
    "palette.bmp": (encoded("BMP", mode="P"), "BMP with a palette"),
}


def files(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return np.array([f"{folder}/{name}" for name in contents])


def long_tailed(paths, labels=None, **splits):
    labels = np.zeros(len(paths), int) if labels is None else np.array(labels)
    other = {split: Split(paths[:1], labels[:1]) for split in ("val", "test")} | splits
    return LongTailed("toy", Split(paths, labels), **other, class_names=np.unique(labels))


@pytest.fixture
def reads(monkeypatch):
    """Names of the encoded images that are looked at."""
    examine, names = Records.examine, []

    def counted(examples, row):
        names.append(pathlib.Path(examples.names[row]).name)
        return examine(examples, row)

    monkeypatch.setattr(Records, "examine", counted)
    return names


def test_sizes_and_hashes_of_good_images(tmp_path):
    paths = files(tmp_path / "images", {**GOOD, "again.jpg": JPEG, "tall.png": encoded("PNG", size=(3, 50))})
    train = inspect(long_tailed(paths), cache_dir=tmp_path)["train"]
    assert train.problems == {}
    assert train.sizes.tolist() == [[6, 8]] * 5 + [[50, 3]]  # height, width
    assert train.hashes[4] == train.hashes[0]
    assert len(set(train.hashes)) == 5


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_bad_image(tmp_path, name):
    content, reason = BAD[name]
    paths = files(tmp_path / "images", {"a.jpg": JPEG, name: content})
    train = inspect(long_tailed(paths), cache_dir=tmp_path)["train"]
    assert list(train.problems) == [1]
    assert re.match(reason, train.problems[1])
    assert train.sizes[1].tolist() == [0, 0]
    assert train.hashes[1] == b""


def test_missing_files_and_folders_are_bad(tmp_path):
    paths = files(tmp_path / "images", {"a.jpg": JPEG, "folder.jpg": b"", "missing.jpg": b""})
    for path in paths[1:]:
        pathlib.Path(path).unlink()
    pathlib.Path(paths[1]).mkdir()
    assert inspect(long_tailed(paths), cache_dir=tmp_path)["train"].problems == {1: "not a file", 2: "not found"}


@pytest.mark.parametrize(
    ("there", "written"),
    [
        ("Ka\u0308fer/Bu\u0308ro 1.jpg", "K\u00e4fer/B\u00fcro 1.jpg"),
        ("owls/IMG_1.JPG", "owls/img_1.jpg"),
        ("owls/1.jpg", "owls\\1.jpg"),
    ],
    ids=["a Mac's umlauts", "capitals", "backslashes"],
)
def test_a_missing_file_is_told_with_the_one_that_may_be_meant(tmp_path, there, written):
    path = str(files(tmp_path, {there: JPEG})[0])
    paths = np.array([path, str(tmp_path / written), str(tmp_path / "none" / "2.jpg")])
    problems = inspect(long_tailed(paths), cache_dir=tmp_path / "cache")["train"].problems
    assert problems == {1: f"not found; {path!a} is there", 2: "not found"}


def test_only_new_changed_and_bad_files_are_read_again(tmp_path, reads):
    paths = files(tmp_path / "images", {**GOOD, "empty.jpg": b""})
    data = long_tailed(paths)
    first = inspect(data, cache_dir=tmp_path / "cache")["train"]
    assert sorted(reads) == ["a.jpg", "a.jpg", "b.png", "c.gif", "d.bmp", "empty.jpg"]  # test finds what val left
    reads.clear()
    second = inspect(data, cache_dir=tmp_path / "cache")["train"]
    assert reads == ["empty.jpg"]
    assert second.problems == first.problems == {4: "empty"}
    np.testing.assert_array_equal(second.hashes, first.hashes)
    reads.clear()
    files(tmp_path / "images", {"b.png": encoded("PNG", size=(20, 10)), "empty.jpg": JPEG})
    third = inspect(data, cache_dir=tmp_path / "cache")["train"]
    assert sorted(reads) == ["b.png", "empty.jpg"]
    assert third.problems == {}
    assert third.sizes[1].tolist() == [10, 20]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no such time")
def test_a_file_of_the_same_length_and_time_is_read_again(tmp_path, reads):
    paths = files(tmp_path / "images", GOOD)
    data = long_tailed(paths)
    before = inspect(data, cache_dir=tmp_path / "cache")["train"].hashes
    status, other = (
        os.stat(paths[3]),
        bytes(np.asarray(bytearray(GOOD["d.bmp"])) ^ (np.arange(len(GOOD["d.bmp"])) > 60)),
    )
    pathlib.Path(paths[3]).write_bytes(other)
    os.utime(paths[3], ns=(status.st_atime_ns, status.st_mtime_ns))
    reads.clear()
    after = inspect(data, cache_dir=tmp_path / "cache")["train"].hashes
    assert reads == ["d.bmp"]
    assert (after != before).tolist() == [False, False, False, True]


def test_an_unusable_cache_is_no_error(tmp_path, reads):
    paths = files(tmp_path / "images", GOOD)
    (tmp_path / "file").write_text("in the way")
    inspect(long_tailed(paths), cache_dir=tmp_path / "file")
    inspect(long_tailed(paths), cache_dir=tmp_path / "cache")
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    reads.clear()
    inspect(long_tailed(paths), cache_dir=tmp_path / "cache")
    assert len(reads) == 5  # four, and val's, which test finds


class Shard(Records):
    """Records in a list."""

    def __init__(self, images):
        self.images = images
        self.names = np.array([f"shard:{row}" for row in range(len(images))])

    def subset(self, rows):
        return Shard([self.images[row] for row in rows])

    def read(self, row):
        return self.images[row]

    def fingerprint(self):
        return b"".join(self.images)


def test_records_are_examined_once(tmp_path, reads):
    shard = Shard([*GOOD.values(), b"<html>"])
    data = LongTailed("toy", *(Split(shard, np.zeros(5, int)),) * 3, class_names=("a",))
    for count in (5 + 1 + 1, 3):  # the splits are equal: val and test find what train left, but for the bad one
        assert inspect(data, cache_dir=tmp_path)["val"].problems == {
            4: "not a complete image of a known format; it begins with b'<html>'"
        }
        assert len(reads) == count
        reads.clear()
    screened = screen(data, report=tmp_path / "bad.txt", on_bad_image="skip", cache_dir=tmp_path)
    assert [len(split) for split in screened.splits.values()] == [4, 4, 4]


def test_bad_images_end_the_run_with_a_list(tmp_path):
    contents = {f"{i}.jpg": b"" for i in range(7)}
    paths = files(tmp_path / "images", {"a.jpg": JPEG, **contents})
    with pytest.raises(ValueError, match="7 of 8 in train, 0 of 1 in val") as error:
        screen(long_tailed(paths), report=tmp_path / "run/bad_images.txt", cache_dir=tmp_path)
    message = str(error.value)
    assert message.count(": empty") == 5
    assert f"{paths[1]}: empty" in message
    assert f"and 2 more; all stand in {tmp_path}/run/bad_images.txt" in message
    assert "--on_bad_image=skip" in message
    assert (tmp_path / "run/bad_images.txt").read_text().splitlines() == [f"{path}: empty" for path in paths[1:]]


def test_bad_images_are_left_out_and_noted(tmp_path, capsys):
    paths = files(tmp_path / "images", {**GOOD, "empty.jpg": b"", "cut.jpg": BAD["cut.jpg"][0], "e.jpg": JPEG})
    data = long_tailed(paths, [0, 0, 1, 1, 1, 0, 1])
    screened = screen(data, report=tmp_path / "bad.txt", on_bad_image="skip", cache_dir=tmp_path)
    assert screened.train.images.tolist() == [*paths[:4], paths[6]]
    assert screened.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert screened.class_counts.tolist() == [2, 3]
    assert screened.listed_counts.tolist() == [3, 4]  # groups go by the published list
    assert "2 of 7 in train, 0 of 1 in val, 0 of 1 in test" in screened.notes[0]
    assert f"{paths[4]}: empty\n" in capsys.readouterr().out


def test_a_class_must_keep_an_image(tmp_path):
    paths = files(tmp_path / "images", {"a.jpg": JPEG, "empty.jpg": b""})
    with pytest.raises(ValueError, match="Every class needs a training image"):
        screen(long_tailed(paths, [0, 1]), report=tmp_path / "bad.txt", on_bad_image="skip", cache_dir=tmp_path)


def test_rotated_images_are_counted_and_the_first_is_named(tmp_path, capsys):
    contents = {"a.jpg": JPEG, "upright.jpg": rotated(1), "right.jpg": rotated(6), "left.jpg": rotated(8)}
    data = long_tailed(files(tmp_path / "images", {**contents, "nonsense.jpg": rotated(77)}))
    assert inspect(data, cache_dir=tmp_path)["train"].orientations.tolist() == [1, 1, 6, 8, 1]
    assert screen(data, report=tmp_path / "bad.txt", cache_dir=tmp_path) is data
    said = capsys.readouterr().out
    assert "2 images are to be turned" in said
    assert said.count("right.jpg") == 1
    assert "keras_lt.prepare" in said
    assert not (tmp_path / "bad.txt").exists()


def test_pixels_pass_at_once_and_have_hashes(tmp_path):
    images = np.zeros((3, 4, 5), np.uint8)
    images[1] = 1
    data = LongTailed("toy", *(Split(images, np.zeros(3, int)),) * 3, class_names=("a",))
    assert screen(data, report=tmp_path / "bad.txt", cache_dir=tmp_path / "cache") is data
    assert not (tmp_path / "cache").exists()
    train = inspect(data)["train"]
    assert train.sizes.tolist() == [[4, 5]] * 3
    assert train.hashes[0] == train.hashes[2] != train.hashes[1]


def test_the_cache_is_in_the_home_of_keras(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    inspect(long_tailed(files(tmp_path / "images", GOOD)))
    assert len(list((tmp_path / "home/keras_lt/inspections").iterdir())) == 2  # train; val and test list the same file


def test_an_examination_that_is_stopped_goes_on(tmp_path, monkeypatch, reads):
    paths = files(tmp_path / "images", {f"{i:03}.png": encoded("PNG", seed=i) for i in range(100)})
    monkeypatch.setattr(inspection, "THREADS", 1)
    examine = ImageFiles.examine

    def stop_at(examples, row):
        if row == 80:
            raise RuntimeError("stopped")
        return examine(examples, row)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "examine", stop_at)
        with pytest.raises(RuntimeError, match="stopped"):
            inspect(long_tailed(paths), cache_dir=tmp_path / "cache")
    reads.clear()
    inspect(long_tailed(paths), cache_dir=tmp_path / "cache")
    assert 20 <= sum(name != "000.png" for name in reads) <= 36  # the chunk that stopped is examined again


def test_on_bad_image_is_checked(tmp_path):
    with pytest.raises(ValueError, match="on_bad_image must be one of"):
        screen(long_tailed(files(tmp_path / "i", GOOD)), report=tmp_path / "bad.txt", on_bad_image="ignore")


@pytest.mark.parametrize(("brand", "kind"), [(b"heic", "HEIC"), (b"mif1", "HEIC"), (b"avif", "AVIF")])
def test_a_phones_photograph_under_a_jpegs_name_is_named_for_what_it_is(tmp_path, brand, kind):
    contents = {"a.jpg": JPEG, "Über uns.jpg": b"\0\0\0\x18ftyp" + brand + b"\0" * 64}
    data = long_tailed(files(tmp_path / "images", contents))
    with pytest.raises(ValueError, match=rf"Über uns.jpg: {kind}, whatever its name ends in.*convert it to JPEG"):
        screen(data, report=tmp_path / "bad.txt", cache_dir=tmp_path)
