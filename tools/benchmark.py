"""Benchmarks, each one run that prints rivals side by side: `python -m tools.benchmark sampling`.

Read ratios within a run: absolute figures depend on the machine and on who else uses it.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # also runs as a script

from tools.benchmarks import backbones, control, embeddings, gpu, grouped_convolution, growth, input, sampling, study

BENCHMARKS = {
    "sampling": sampling,
    "grouped_conv": grouped_convolution,
    "backbones": backbones,
    "input": input,
    "study": study,
    "control": control,
    "gpu": gpu,
    "growth": growth,
    "embeddings": embeddings,
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, benchmark in BENCHMARKS.items():
        benchmark.add_arguments(commands.add_parser(name, help=benchmark.__doc__.splitlines()[0]))
    parsed = parser.parse_args(arguments)
    BENCHMARKS[parsed.command].run(parsed)


if __name__ == "__main__":
    main()
