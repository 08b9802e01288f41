"""The commands of the package: `keras-lt train ...` is `python -m keras_lt.train ...`."""

import ast
import pathlib
import runpy
import sys

from keras_lt.command import unread

COMMANDS = ("train", "evaluate", "export", "predict", "prepare", "describe", "repeat", "compare", "import_checkpoint")


def overview() -> str:
    """Every command with the first line of its help, read without importing it."""
    width = max(map(len, COMMANDS))
    lines = []
    for name in COMMANDS:
        source = pathlib.Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        lines.append(f"  {name:<{width}}  {ast.get_docstring(ast.parse(source)).splitlines()[0]}")
    return "\n".join(["keras-lt <command> --help says more of:", *lines])


def main():
    """Runs the command that the first argument names."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("--help", "-h"):
        with unread():
            print(overview())
    elif command in COMMANDS:
        del sys.argv[1]
        runpy.run_module(f"keras_lt.{command}", run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"Error: the command must be one of {', '.join(COMMANDS)}. Received: {command}")


if __name__ == "__main__":
    main()
