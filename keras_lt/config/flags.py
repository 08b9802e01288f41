"""The flags of a run: a field of `RunConfig` each."""

import dataclasses
import os
import pathlib
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable

from absl import app, flags

from keras_lt.command import HELP, failure, find_flag_file, plain_errors, with_flag_files
from keras_lt.config.renamed import RENAMED, translated
from keras_lt.config.run_config import TOPICS, RunConfig, folder_of
from keras_lt.work_folder import WorkFolder

PLACES = ("workdir", "output_dir", "model", "images", "predictions")  # flags that are left out, but never empty
PARAMETERS = """Names of samplers, losses, class weights, classifiers, methods, heads and data sets take parameters,
name:parameter=value:parameter=value, such as --sampler=power:q=0.33 or --classifiers=crt,lws:epochs=5.

Of a new run, image size, batch size, epochs and learning rate that neither the command line nor a flag file says are
those that fit its data set; it prints them, and keeps them in its flags.cfg."""


def define_flags(flag_values: flags.FlagValues = flags.FLAGS):
    """Defines one absl flag per field of `RunConfig`."""
    for field in dataclasses.fields(RunConfig):
        keywords = {"flag_values": flag_values}
        if field.metadata["choices"]:
            define, keywords["enum_values"] = flags.DEFINE_enum, list(field.metadata["choices"])
        elif isinstance(field.default, bool):
            define = flags.DEFINE_bool
        elif isinstance(field.default, tuple):
            define = flags.DEFINE_list
        else:
            define = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}[field.type]
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        define(name=field.name, default=default, help=field.metadata["help"], **keywords)
        flag_values.register_key_flag_for_module(sys.argv[0], flag_values[field.name])  # --help lists these
    for name, renamed in RENAMED.items():
        flags.DEFINE_string(name, None, f"{renamed.instead} now.", flag_values=flag_values)


def answer(define: Callable[[], None]):
    """Defines a command's flags, and ends the program where it asks for --help, or a flag is none.

    Args:
      define: defines the flags.
    """
    define()
    app.define_help_flags()
    if HELP & set(sys.argv[1:]):
        print(f"{sys.modules['__main__'].__doc__.strip()}\n\n{PARAMETERS}\n\n{help_text()}", end="")
        sys.exit()
    with plain_errors():
        arguments = with_flag_files(sys.argv[1:])
    try:
        _, *rest = flags.FLAGS([sys.argv[0], *arguments])
    except flags.Error as error:
        sys.exit(failure(f"{error} --help lists all flags."))
    if rest:
        sys.exit(failure(f"flags are written --name=value. Received: {' '.join(rest)}"))
    with plain_errors():
        check_places(flags.FLAGS)


def check_places(flag_values: flags.FlagValues):
    """Raises ValueError for a path that is empty, as a variable is that was not set: the default was not meant."""
    for name in PLACES:
        if name in flag_values and flag_values[name].present and not flag_values[name].value:
            raise ValueError(f"--{name} must be a path, or be left out. Received: --{name}=")


def help_text(flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """What --help says: the command's own flags, then those of a run by their topic, each with its default."""
    fields = {field.name: field for field in dataclasses.fields(RunConfig)}
    own = [flag for flag in flag_values.get_key_flags_for_module(sys.argv[0]) if flag.name not in fields]
    sections = {"This command": [(flag.name, flag.help, ()) for flag in own], **{topic: [] for topic in TOPICS}}
    for name, field in fields.items():
        sections[field.metadata["topic"]].append((name, field.metadata["help"], field.metadata["choices"]))
    width = max(40, min(shutil.get_terminal_size((100, 24)).columns, 100))
    lines = []
    for topic, entries in sections.items():
        lines += [topic] if entries else []
        for name, text, choices in entries:
            default = (flag_values[name].default_as_str or "").strip("'")
            lines.append(f"  --{name}={default}")
            one_of = f" [{' | '.join(choice for choice in choices if choice)}]" if choices else ""
            lines.append(textwrap.fill(text + one_of, width, initial_indent=" " * 6, subsequent_indent=" " * 6))
        lines += [""] if entries else []
    return "\n".join(lines)


def from_flags(flag_values: flags.FlagValues = flags.FLAGS, **changes) -> RunConfig:
    """The parsed flags as a `RunConfig`, some of them with another value."""
    values = {field.name: flag_values[field.name].value for field in dataclasses.fields(RunConfig)}
    for field in dataclasses.fields(RunConfig):
        if isinstance(field.default, tuple):
            values[field.name] = _parse(field, values[field.name])
    old = {name: flag_values[name].value for name in RENAMED if flag_values[name].present}
    place = {**values, **changes}
    begun_with = WorkFolder(folder_of(place["workdir"], place["dataset"])).flag_lines
    return RunConfig(**translated(values, old, begun_with=begun_with) | changes)


def said(config: RunConfig, flag_values: flags.FlagValues = flags.FLAGS) -> set[str]:
    """The flags of a run that have a value of somebody's: on the command line, in a flag file, by an old name.

    Args:
      config: what `from_flags` made of them.
    """
    names = [field.name for field in dataclasses.fields(RunConfig)]
    return {name for name in names if flag_values[name].present or getattr(config, name) != getattr(RunConfig, name)}


def _parse(field: dataclasses.Field, words: list[str]) -> tuple:
    """The words of a list flag as its field takes them."""
    (item, _) = typing.get_args(field.type)
    try:
        return tuple(item(word) for word in words)
    except ValueError as error:
        raise ValueError(
            f"--{field.name} must be {item.__name__}s, comma-separated. Received: {','.join(words)}"
        ) from error


def read_flag_file(path: pathlib.Path, **changes) -> RunConfig:
    """The `RunConfig` of a flag file, some flags with another value."""
    flag_values = flags.FlagValues()
    define_flags(flag_values)
    found = os.path.abspath(find_flag_file(str(path)) or path)  # a path that begins with a blank keeps it
    given = with_flag_files([f"--flagfile={found}"])
    try:
        _, *rest = flag_values(["keras_lt", *given])
    except flags.Error as error:
        raise ValueError(f"{path} must hold flags of this version. Received: {error}") from error
    if rest or not given:
        raise ValueError(f"{path} must hold flags, --name=value a line. Received: {rest[0] if rest else 'no line'}")
    try:
        return from_flags(flag_values, **changes)
    except ValueError as error:
        raise ValueError(f"In {path}: {error}") from error


def of_a_run(flag_values: flags.FlagValues = flags.FLAGS, *, but: str = "") -> dict[str, object]:
    """The arguments of `Run` that the command line gives: its folder, and what it says that is not of the run.

    It says which flags of the run have other values there, and so do nothing; a flag file may have them.

    Args:
      but: a topic, flags of which say something else here.
    """
    from keras_lt.config.paths import differences  # noqa: PLC0415 - imports Keras

    given = from_flags(flag_values)
    flags_file = WorkFolder(given.folder).flags_file
    begun = read_flag_file(flags_file, workdir=given.workdir) if flags_file.exists() else given
    present = [field for field in dataclasses.fields(RunConfig) if flag_values[field.name].present]
    changes = {field.name: getattr(given, field.name) for field in present if not field.metadata["of_the_run"]}
    other = differences(begun, given, among=[field.name for field in present if field.metadata["topic"] != but])
    if other:
        print(f"{given.folder} is taken as it was trained, not as is said now: {'; '.join(other)}")
    return {**changes, "folder": given.folder}
