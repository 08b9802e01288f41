"""What to measure on a new GPU, in about ten minutes: main job, nets, input, several devices; as a Markdown file."""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import tensorflow as tf

import keras_lt

MAIN_JOB = "keras_lt.train --flagfile=flags/fashion_lt.cfg"
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command line."""
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "resnext50", "resnet152"])
    parser.add_argument("--image_size", type=int, default=224, help="pixels")
    parser.add_argument("--batch_size", type=int, default=64, help="images")
    parser.add_argument("--images", type=int, default=256, help="files that the input pipeline reads")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of each step")
    parser.add_argument("--epochs", type=int, default=60, help="of the main job's stage one")
    parser.add_argument("--output", default="gpu.md", help="the file to write")


def run(arguments: argparse.Namespace) -> None:
    """Every part as a process of its own, so that one that fails leaves the others."""
    names = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    found = f"{' and '.join(names) or 'no GPU'}, {os.cpu_count()} CPU cores, TensorFlow {tf.__version__}"
    sizes = f"--image_size {arguments.image_size} --batch_size {arguments.batch_size} --seconds {arguments.seconds}"
    sizes += f" --backbones {' '.join(arguments.backbones)}"
    report = [f"# {found}", _main_jobs(arguments.epochs, several=len(names) > 1)]
    for title, command in {
        "Nets: ms per image": f"backbones --threads {os.cpu_count()} {sizes}",
        "Input pipeline": f"input --images {arguments.images} --rounds 1 {sizes}",
    }.items():
        print(f"== {title}", flush=True)
        report.append(f"## {title}\n\n```\n{_printed(f'tools.benchmark {command}').strip()}\n```")
        print(report[-1])
    path = pathlib.Path(arguments.output)
    path.write_text("\n\n".join(report) + "\n", "utf-8")
    print(f"\nWritten: {path}")


def _main_jobs(epochs: int, *, several: bool) -> str:
    """The main job on the GPU, on the CPU alone and, where there are several GPUs, on all: a table of accuracies."""
    jobs = {"CPU alone": ("none", NO_GPU), "one device": ("none", {})}
    jobs |= {"all GPUs": ("mirrored", {})} if several else {}
    rows = ["| test all (few) | seconds |"]
    for title, (strategy, environment) in jobs.items():
        print(f"== Main job, {title}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            printed = _printed(
                f"{MAIN_JOB} --workdir={folder}/run --epochs={epochs} --strategy={strategy}", environment
            )
            seconds = time.perf_counter() - begun
            run = keras_lt.Run(f"{folder}/run")
            if not run.results_file.exists():
                rows.append(f"| {title} | failed: {printed.strip().splitlines()[-1]} |")
                continue
            systems = run.results["classifiers"]
        if len(rows) == 1:
            rows[0] = f"| test all (few) | {' | '.join(systems)} | seconds |"
            rows.append("|---" * (len(systems) + 2) + "|")
        cells = [f"{100 * one['test']['all']:.1f} ({100 * one['test']['few']:.1f})" for one in systems.values()]
        rows.append(f"| {title} | {' | '.join(cells)} | {seconds:.0f} |")
        print(rows[-1], flush=True)
    return "## Main job\n\n" + "\n".join(rows)


def _printed(module: str, environment: dict[str, str] | None = None) -> str:
    """What `python -m` of it prints, its errors where it fails."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})}
    done = subprocess.run(
        [sys.executable, "-m", *module.split()], env=os.environ | quiet, capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else f"{done.stdout}\n{done.stderr[-2000:]}"
