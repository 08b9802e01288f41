"""Every flag of the commands, as one frozen `RunConfig`.

A field of `RunConfig` is a flag of the same name: its type, default and help stand there and nowhere else.
"""

from keras_lt.config.flags import (
    EvaluateOptions,
    define_evaluate_flags,
    define_flags,
    evaluate_options,
    from_flags,
    from_workdir,
    help_text,
    read_flag_file,
)
from keras_lt.config.run_config import RunConfig

__all__ = [
    "EvaluateOptions",
    "RunConfig",
    "define_evaluate_flags",
    "define_flags",
    "evaluate_options",
    "from_flags",
    "from_workdir",
    "help_text",
    "read_flag_file",
]
