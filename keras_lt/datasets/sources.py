"""Where data sets come from, as entries: what the folder must hold, and how one is written with its parameters."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping

from keras_lt.datasets.long_tailed import LongTailed
from keras_lt.files import expanded
from keras_lt.registry import Entry, parsed, split


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceEntry(Entry):
    """A source of data: (data_dir, **options) -> `LongTailed`.

    Attributes:
      reads: what `data_dir` must hold, after "reads".
      needs_folder: whether there is nothing to read without a `data_dir`.
      reads_all: whether all that lies in `data_dir` may be taken for the data, so that a run must lie elsewhere.
      takes_name: whether it is a library of data sets, written "tfds:<name>": (name, data_dir, **options).
    """

    reads: str
    needs_folder: bool = True
    reads_all: bool = False
    takes_name: bool = False

    def __call__(self, data_dir: str = "", **options) -> LongTailed:
        """The data set.

        Raises:
          FileNotFoundError: there is no `data_dir` and it needs one.
          ValueError: `data_dir` is a file.
        """
        if self.needs_folder and not data_dir:
            raise FileNotFoundError(
                f"{self.label or 'The data set'} reads {self.reads} from --data_dir. Received: no --data_dir"
            )
        if data_dir and expanded(data_dir).is_file():
            what = f"{self.label or 'The data set'} reads {self.reads}"
            raise ValueError(f"{what} from the folder --data_dir. Received: the file {data_dir}")
        return self.function(data_dir, **options)

    @property
    def parameters(self) -> dict[str, object]:
        """What the source can be told beside its folder, with the defaults."""
        return {name: default for name, default in super().parameters.items() if name != "data_dir"}


def parse(sources: Mapping[str, SourceEntry], text: str, **options) -> tuple[str, SourceEntry, dict]:
    """A data set's name without parameters, its source, and the parameters and options that are given.

    What follows the source is "parameter=value:parameter=value". Where the source takes a name, the name comes first
    and ends before the first word with an equals sign: it may have colons, as TFDS's versions do.

    >>> from keras_lt.datasets import DATASETS
    >>> name, source, given = parse(DATASETS, "tfds:cifar100:3.0.2:imbalance_ratio=50")
    >>> name, given
    ('tfds:cifar100:3.0.2', {'imbalance_ratio': 50.0})

    Args:
      sources: name -> entry.
      text: as --dataset has it.
      options: those that are given otherwise.
    Raises:
      ValueError: there is no such source, or it takes no such parameter or option, or one is given twice.
    """
    if not isinstance(text, str):
        raise ValueError(
            "dataset must be a name, such as 'folder' or 'hf:owner/name'; data of your own are a keras_lt.LongTailed. "
            f"Received: a {type(text).__name__}"
        )
    prefix, *words = text.split(":")
    if prefix not in sources:
        known = ", ".join(f"{name}:<name>" if entry.takes_name else name for name, entry in sources.items())
        raise ValueError(f"dataset must be one of {known}. Received: dataset={text}")
    source = sources[prefix]
    own = list(itertools.takewhile(lambda word: "=" not in word, words)) if source.takes_name else []
    name = ":".join([prefix, *own])
    if source.takes_name:
        if not any(own):
            raise ValueError(f"dataset must name one of the library's, {prefix}:<name>. Received: dataset={text}")
        source = dataclasses.replace(source, function=functools.partial(source.function, ":".join(own)))
    _, written = split(":".join([prefix, *words[len(own) :]]))
    given = parsed(written, source.parameters, of=f"dataset={text}", name=name)
    unknown = [f"{option}={value}" for option, value in options.items() if option not in source.parameters]
    if unknown:
        raise ValueError(f"The data set {name} takes no such option. Received: {', '.join(unknown)}")
    twice = [f"{option}={options[option]}" for option in given if option in options]
    if twice:
        raise ValueError(f"An option is given once. Received: dataset={text}, {', '.join(twice)}")
    return name, source, {**given, **options}
