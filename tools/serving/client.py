"""Sends images to a model behind TensorFlow Serving and prints what it takes them for.

    python -m tools.serving.client --url=http://localhost:8501 --model=lws --images photos/ --output=predictions.csv

Needs requests and nothing of this package, so it also runs as a single file: `python client.py ...`.
"""

import argparse
import base64
import concurrent.futures
import csv
import json
import math
import os
import pathlib
import sys
import textwrap
import time
from collections.abc import Sequence

import requests
import urllib3

FORMATS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
TOP = 3  # labels shown of each image
BUSY = (429, 502, 503, 504)  # HTTP statuses that time may heal
REFUSED = (400, 413)  # those that say that something in the request is wrong: an image, or too many
POLL = 0.5  # seconds between two questions whether the model is loaded

Answer = list[tuple[str, float]] | str  # (label, probability) of an image, likeliest first; or what is wrong with it


class Model:
    """A model of a TensorFlow Serving server, by its REST API.

    Args:
      url, name: of the server, and of the model there.
      timeout: seconds to wait for an answer.
      retries: further attempts where there is no answer or the server is busy, each after twice the pause.
    """

    def __init__(self, url: str, name: str, *, timeout: float = 60.0, retries: int = 5):
        self.url, self.name, self.timeout = f"{url.rstrip('/')}/v1/models/{name}", name, timeout
        patience = {"backoff_factor": 0.5, "backoff_max": 30, "status_forcelist": BUSY, "raise_on_status": False}
        self.session, again = requests.Session(), urllib3.Retry(retries, allowed_methods=None, **patience)
        self.session.mount("http://", requests.adapters.HTTPAdapter(max_retries=again))
        self.session.mount("https://", requests.adapters.HTTPAdapter(max_retries=again))

    def ask(self, key: str, verb: str = "", body: dict | None = None):
        """What stands under a key of the answer; Python's JSON also reads the NaN that TensorFlow Serving writes.

        Raises:
          requests.RequestException: an HTTP status that is no success, or no answer.
          ValueError: the answer is somebody else's.
        """
        answer = self.session.request("POST" if body else "GET", self.url + verb, json=body, timeout=self.timeout)
        try:
            found = json.loads(answer.content)
        except ValueError:
            found = {"error": answer.text}
        if not answer.ok:
            reason = textwrap.shorten(found.get("error") or answer.reason, 120, placeholder=" ...")
            raise requests.HTTPError(f"HTTP {answer.status_code}: {reason}", response=answer)
        if key not in found:
            raise ValueError(f"{self.url} must be TensorFlow Serving's. Received: an answer without {key}")
        return found[key]

    def wait(self, seconds: float) -> str:
        """Waits for the model to be loaded; returns its newest version, or raises ValueError where there is none."""
        end = time.monotonic() + seconds
        while True:
            try:
                versions = self.ask("model_version_status")
                if ready := [version["version"] for version in versions if version["state"] == "AVAILABLE"]:
                    return max(ready, key=int)
                if failed := [version["status"] for version in versions if version["status"]["error_code"] != "OK"]:
                    raise ValueError(f"The server cannot load {self.name}: {failed[0]['error_message']}")
                state = f"{self.name} is {versions[0]['state']}"
            except requests.ConnectionError as error:
                state = str(error)
            if time.monotonic() + POLL > end:
                raise ValueError(f"not ready after {seconds:g} s: {state}")
            time.sleep(POLL)

    def classify(self, files: Sequence[pathlib.Path]) -> list[Answer]:
        """An answer per file; where they are refused, each half by itself, down to the image that is to blame."""
        try:
            images = [base64.b64encode(file.read_bytes()).decode() for file in files]
            rows = self.ask("predictions", ":predict", {"instances": [{"image_bytes": {"b64": i}} for i in images]})
        except OSError as error:  # those of requests are among them
            response = getattr(error, "response", None)
            if isinstance(error, requests.RequestException) and getattr(response, "status_code", 0) not in REFUSED:
                raise
            middle = len(files) // 2
            return [*self.classify(files[:middle]), *self.classify(files[middle:])] if middle else [str(error)]
        return [_answer(row) for row in rows]


def _answer(row: dict) -> Answer:
    if not isinstance(row, dict) or not {"probabilities", "classes"} <= row.keys():
        raise ValueError("--model must give probabilities and classes, as those of keras_lt do")
    if not row.get("ok", True):
        return "no image that the model can decode"
    if any(map(math.isnan, row["probabilities"])):
        return "the model's answer is not a number"
    return sorted(zip(row["classes"], row["probabilities"], strict=True), key=lambda pair: -pair[1])


def find_images(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Files as they are named, and what lies in folders, however deep, and is an image by its name."""
    files = []
    for path in paths:
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in FORMATS and file.is_file())
        files += inside if path.is_dir() else [path]
    if not files or not all(file.exists() for file in files):
        raise ValueError(f"--images must be files, or folders with {', '.join(FORMATS)}. Received: {paths}")
    return files


def parse(command_line: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--url", default="http://localhost:8501", help="the server's REST port")
    parser.add_argument("--model", required=True, help="its name there: the classifier's folder in export/")
    parser.add_argument("--images", type=pathlib.Path, nargs="+", required=True, help="files, and folders of them")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(os.devnull), help="CSV file to write")
    parser.add_argument("--batch_size", type=int, default=8, help="images in a request")
    parser.add_argument("--workers", type=int, default=4, help="requests under way at once")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for an answer")
    parser.add_argument("--retries", type=int, default=5, help="more attempts where none comes or the server is busy")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for the model to be loaded")
    return parser.parse_args(command_line)


def main(command_line: Sequence[str] | None = None):
    """Runs the command; the exit code is 0 where every image has got a label. What is done is kept."""
    given = parse(command_line)
    model, unlabelled = Model(given.url, given.model, timeout=given.timeout, retries=given.retries), 0
    try:
        files = find_images(given.images)
        batches = [files[start : start + given.batch_size] for start in range(0, len(files), given.batch_size)]
        print(f"{model.name}, version {model.wait(given.wait)}", file=sys.stderr)
        with (
            given.output.open("w", encoding="utf-8", newline="") as output,
            concurrent.futures.ThreadPoolExecutor(given.workers) as pool,
        ):
            writer = csv.writer(output)
            header = [f"{name}_{rank + 1}" for rank in range(TOP) for name in ("label", "probability")]
            writer.writerow(["file", *header, "problem"])
            for batch, answers in zip(batches, pool.map(model.classify, batches), strict=True):
                for file, answer in zip(batch, answers, strict=True):
                    ranked, problem = ([], answer) if isinstance(answer, str) else (answer[:TOP], "")
                    unlabelled += bool(problem)
                    cells = [cell for pair in ranked for cell in pair]
                    writer.writerow([file, *cells, *[""] * (2 * TOP - len(cells)), problem])
                    print(file, problem or ", ".join(f"{label} {share:.3f}" for label, share in ranked), sep="  ")
                output.flush()
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    if unlabelled:
        sys.exit(f"{unlabelled} of {len(files)} images without a label")


if __name__ == "__main__":
    main()
