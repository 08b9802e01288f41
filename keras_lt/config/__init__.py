"""Every flag of the commands, as one frozen `RunConfig`.

A field of `RunConfig` is a flag of the same name: its type, default and help stand there and nowhere else.
"""

from keras_lt.config.command_flags import (
    EvaluateOptions,
    define_describe_flags,
    define_evaluate_flags,
    define_repeat_flags,
    evaluate_options,
    output_dir,
    seeds,
)
from keras_lt.config.flags import answer, define_flags, from_flags, help_text, of_a_run, read_flag_file, said
from keras_lt.config.run_config import RunConfig

__all__ = [
    "EvaluateOptions",
    "RunConfig",
    "answer",
    "define_describe_flags",
    "define_evaluate_flags",
    "define_flags",
    "define_repeat_flags",
    "evaluate_options",
    "from_flags",
    "help_text",
    "of_a_run",
    "output_dir",
    "read_flag_file",
    "said",
    "seeds",
]
