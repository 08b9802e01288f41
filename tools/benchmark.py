"""Benchmarks, each one run that prints rivals side by side: `python -m tools.benchmark sampling`.

Read ratios within a run: absolute figures depend on the machine and on who else uses it.
"""

import argparse
import ast
import importlib
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # also runs as a script

BENCHMARKS = ("sampling", "grouped_conv", "backbones", "input", "study", "control", "gpu", "growth", "embeddings")


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark that the command line names; no other is imported, nor the libraries that it needs."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in BENCHMARKS:
        text = (ROOT / f"tools/benchmarks/{name}.py").read_text("utf-8")
        command = commands.add_parser(name, help=ast.get_docstring(ast.parse(text)).splitlines()[0])
        if name in given[:1]:
            benchmark = importlib.import_module(f"tools.benchmarks.{name}")
            benchmark.add_arguments(command)
    parsed = parser.parse_args(given)
    benchmark.run(parsed)


if __name__ == "__main__":
    main()
