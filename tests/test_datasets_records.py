import threading

import numpy as np
import pytest

from keras_lt.datasets import Split
from keras_lt.datasets.records import MOST_OPEN, ShardedRecords


@pytest.fixture
def records(tmp_path):
    """Four images in two files: "cat" and "newt" lie in the first, "dog" and "" in the second."""
    (tmp_path / "a").write_bytes(b"..cat.newt.")
    (tmp_path / "b").write_bytes(b"dog")
    files = (str(tmp_path / "a"), str(tmp_path / "b"))
    return ShardedRecords(files, [0, 1, 0, 1], [2, 0, 6, 3], [3, 3, 4, 0], ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])


def contents(records):
    return [records.read(row) for row in range(len(records))]


def test_each_image_is_exactly_its_bytes(records):
    assert contents(records) == [b"cat", b"dog", b"newt", b""]


def test_rows_choose_and_order_images(records):
    chosen = records.subset(np.array([2, 0, 2]))
    assert contents(chosen) == [b"newt", b"cat", b"newt"]
    assert chosen.names.tolist() == ["3.jpg", "1.jpg", "3.jpg"]
    assert contents(chosen.subset(np.array([1]))) == [b"cat"]
    assert contents(records)[0] == b"cat"  # the records chosen from are as they were


def test_a_split_takes_them(records):
    split = Split(records, np.array([0, 1, 0, 1]))
    assert split.examples.encoded
    assert split.subset(np.array([1])).read(0) == b"dog"


def test_files_are_opened_when_first_read(tmp_path):
    records = ShardedRecords((str(tmp_path / "later"),), [0], [0], [2], ["x"])
    with pytest.raises(FileNotFoundError, match="later"):
        records.read(0)
    (tmp_path / "later").write_bytes(b"ok")
    assert records.read(0) == b"ok"


def test_a_file_that_ends_too_early_is_an_error_that_names_the_image(tmp_path):
    (tmp_path / "cut").write_bytes(b"0123456")
    records = ShardedRecords((str(tmp_path / "cut"),), [0], [4], [5], ["train/owl.jpg"])
    with pytest.raises(OSError, match=r"cut ends before the image train/owl.jpg: expected 5 bytes at 4. Received: 3"):
        records.read(0)


def test_more_files_than_may_be_open_are_read_by_many_threads(tmp_path):
    files = [tmp_path / str(i) for i in range(MOST_OPEN + 40)]
    for i, file in enumerate(files):
        file.write_bytes(b"%d" % i)
    lengths = [len(str(i)) for i in range(len(files))]
    records = ShardedRecords(
        tuple(map(str, files)), np.arange(len(files)), [0] * len(files), lengths, list(map(str, files))
    )
    wrong = []

    def read(seed):
        for row in np.random.default_rng(seed).integers(0, len(files), 2000):
            if records.read(row) != b"%d" % row:
                wrong.append(row)

    threads = [threading.Thread(target=read, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_fingerprint_is_of_images_and_their_order(records):
    rows = np.arange(4)
    assert records.fingerprint() == records.subset(rows).fingerprint()
    assert records.fingerprint() != records.subset(rows[::-1]).fingerprint()
    assert records.fingerprint() != records.subset(rows[:3]).fingerprint()


def test_arrays_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="a shard, an offset, a length and a name"):
        ShardedRecords(("a",), [0, 0], [0], [1], ["x"])
    with pytest.raises(ValueError, match=r"one of the files. Received: 0..1"):
        ShardedRecords(("a",), [0, 1], [0, 0], [1, 1], ["x", "y"])


def test_stamps_are_those_of_the_files_that_images_are_in(records, tmp_path):
    """So a file that is cut short, or written anew, is examined again."""
    before = records.stamps(slice(None))
    assert before[:, 0].tolist() == [11, 3, 11, 3]
    (tmp_path / "a").write_bytes(b"..cat.ne")
    after = records.stamps(slice(1, 4))
    assert after[:, 0].tolist() == [3, 8, 3]
    assert after[[0, 2]].tolist() == before[[1, 3]].tolist()
