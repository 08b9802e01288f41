"""Flag files wherever they are, and one program for every command."""

import argparse
import pathlib
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_lt import compare, import_checkpoint, predict, prepare
from keras_lt.__main__ import COMMANDS, main, overview
from keras_lt.command import failure, find_flag_file, in_a_line, with_flag_files
from tests.programs import command

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_shipped_flag_file_is_found_from_anywhere_unless_there_is_one_of_that_name(elsewhere):
    assert find_flag_file("flags/places_lt.cfg") == ROOT / "flags/places_lt.cfg"
    assert find_flag_file("places_lt.cfg") is None
    assert find_flag_file("flags/nothing.cfg") is None
    own = elsewhere / "flags/places_lt.cfg"
    own.parent.mkdir()
    own.touch()
    assert find_flag_file("flags/places_lt.cfg").samefile(own)


@pytest.mark.parametrize("given", [["--flagfile=own.cfg"], ["-flagfile", "own.cfg"], ["--flagfile= own.cfg "]])
def test_a_flag_file_is_read_in_its_place_with_those_that_it_names(elsewhere, given):
    (elsewhere / "own.cfg").write_text("# comment\n\n--epochs=3\n--flagfile=flags/fashion_lt_focal.cfg\n  --seed=2  \n")
    read = with_flag_files(["--seed=1", *given, "--epochs=9"])
    assert (read[:2], read[-2:]) == (["--seed=1", "--epochs=3"], ["--seed=2", "--epochs=9"])
    assert "--loss=focal" in read
    assert "--dataset=fashion_lt" in read
    assert not [argument for argument in read if not argument.startswith("--") or "flagfile" in argument]


def test_a_flag_file_that_names_itself_is_read_once(elsewhere):
    (elsewhere / "own.cfg").write_text("--flagfile=own.cfg\n--epochs=3\n")
    assert with_flag_files(["--flagfile=own.cfg"]) == ["--epochs=3"]


@pytest.mark.parametrize("words", ["--flagfile=no.cfg", "--flagfile no.cfg", "-flagfile flags/no.cfg"])
def test_what_is_no_file_is_refused(elsewhere, words):
    given = words.replace(" ", "=")
    with pytest.raises(ValueError, match=rf"^--flagfile must name a file; .* Received: {given}"):
        with_flag_files(["--seed=1", *words.split()])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_in_the_arguments_ends_a_command_in_one_line(name):
    ended = command(f"keras_lt.{name}", "--no_such_flag=1")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(r"Error: .+ --help lists all flags\.\n", ended.stderr)


@pytest.mark.parametrize("module", [predict, prepare, compare, import_checkpoint])
def test_help_of_arguments_gives_their_defaults(module):
    """And none of what must be given, or has an empty one."""
    parser = module.parser()
    said = " ".join(parser.format_help().split())
    shown = [a.default for a in parser._actions if a.help and a.default not in (None, "", argparse.SUPPRESS)]
    assert shown
    assert re.findall(r"\(default: (.*?)\)", said) == [str(default) for default in shown]


def test_a_message_that_repeats_something_endless_is_cut_in_its_middle():
    assert failure("x" * 4000) == "Error: " + "x" * 4000
    cut = failure("dataset must be one of a, b. Received: " + "x" * 1_000_000 + ". Give another")
    assert cut.startswith("Error: dataset must be one of a, b. Received: xxx")
    assert cut.endswith("xxx. Give another")
    assert len(cut) == len("Error: ") + 4000 + len(" [...] ")


def from_python(row):
    raise OSError(f"shard-3 ends before the image {row}")


INPUTS = {
    "a file": (lambda row: tf.io.read_file("photos/gone 1.jpg"), "photos/gone 1.jpg; No such file or directory"),
    "Python": (lambda row: tf.numpy_function(from_python, [row], tf.string), "shard-3 ends before the image 0"),
}


@pytest.mark.parametrize("eagerly", [True, False])
@pytest.mark.parametrize(("read", "expected"), INPUTS.values(), ids=INPUTS)
def test_an_example_that_is_gone_since_it_was_examined_is_named(read, expected, eagerly):
    batches = tf.data.Dataset.range(2).map(read).batch(2)
    iterator = iter(batches)
    with pytest.raises(tf.errors.OpError) as raised:
        next(iterator) if eagerly else tf.function(lambda: next(iterator))()
    assert in_a_line(raised.value) == f"an example could not be read: {expected}. Put it back: the same command goes on"


def test_other_errors_are_no_example_s():
    with pytest.raises(tf.errors.OpError) as raised:  # not of the input
        tf.function(lambda: tf.io.read_file("gone.jpg"))()
    assert in_a_line(raised.value) == ""
    checked = tf.data.Dataset.range(1).map(lambda row: tf.debugging.check_numerics(1 / tf.cast(row, tf.float32), "no"))
    with pytest.raises(tf.errors.OpError) as raised:  # of the input, whose examples were read
        next(iter(checked))
    assert in_a_line(raised.value) == ""
    assert in_a_line(ValueError("IteratorGetNext\ngone\n[[{{node ReadFile}}]]")) == ""


# As TensorFlow 2.21 words it, which waits ten seconds before it does.
OOM = "{{function_node __inference_f_1}} OOM when allocating tensor with shape[8,9] and type float on /device:CPU:0"
TOO_MUCH = {
    OOM + "\n\t [[{{node MatMul}}]]\nHint: ...": OOM.split("}} ")[1],
    OOM + " [Op:Fill] name: ": OOM.split("}} ")[1],
    "Out of memory while trying to allocate 3TiB. [Op:__inference_f_2]": "Out of memory while trying to allocate 3TiB.",
}


@pytest.mark.parametrize(("said", "expected"), TOO_MUCH.items())
def test_memory_that_is_used_up_is_said_in_a_line(said, expected):
    line = in_a_line(tf.errors.ResourceExhaustedError(None, None, said))
    assert line.startswith(
        "memory is used up. A training takes less by a smaller --batch_size, or by --accumulate_steps"
    )
    assert line.endswith(f" Received: {expected}")


def test_so_is_that_of_python_and_numpy():
    with pytest.raises(MemoryError) as raised:
        np.zeros(10**14)
    assert "Received: Unable to allocate 728. TiB for an array" in in_a_line(raised.value)
    with pytest.raises(MemoryError) as raised:
        bytearray(10**18)
    assert in_a_line(raised.value).endswith("Received: MemoryError")


def test_the_overview_has_a_line_for_every_command():
    assert [line.split()[0] for line in overview().splitlines()[1:]] == list(COMMANDS)


def test_a_command_gets_the_arguments_after_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["keras-lt", "compare", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit, match="Expected the work folder of a finished run"):
        main()


def test_another_word_is_answered_with_the_commands(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["keras-lt", "learn"])
    with pytest.raises(SystemExit, match=r"one of train, evaluate, .*Received: learn"):
        main()
