"""Sends images to a model behind TensorFlow Serving and writes what it takes them for, as `keras_lt.predict` does.

    python -m tools.serving.client --url=http://localhost:8501 --model=lws --images photos/ --output=predictions.csv

Needs requests and nothing of this package, so it also runs as a single file: `python client.py ...`.
"""

import argparse
import base64
import csv
import json
import math
import pathlib
import sys
import textwrap
import time
from collections.abc import Callable, Sequence

import requests
import urllib3

FORMATS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
COLUMNS = ("image", "label", "probability", "label_2", "probability_2", "label_3", "probability_3", "problem")
BATCH = 8  # images in a request
TIMEOUT, POLL = 60, 0.5  # seconds to wait for an answer, and between two questions whether the model is loaded
BUSY, REFUSED = (429, 502, 503, 504), (400, 413)  # HTTP statuses: time may heal it; it is an image, or too many
# Five more attempts where no answer comes or the server is busy, with pauses that double, 15 s in all.
PATIENCE = urllib3.Retry(5, backoff_factor=0.5, status_forcelist=BUSY, allowed_methods=None, raise_on_status=False)


class Model:
    """A model of a TensorFlow Serving server, by its REST API."""

    def __init__(self, url: str, name: str):
        self.url, self.session = f"{url.rstrip('/')}/v1/models/{name}", requests.Session()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=PATIENCE))

    def ask(self, read: Callable, verb: str = "", body: dict | None = None):
        """What is read from the answer; raises OSError where there is none, ValueError where it is somebody else's."""
        answer = self.session.request("POST" if body else "GET", self.url + verb, json=body, timeout=TIMEOUT)
        said = textwrap.shorten(answer.text, 150, placeholder=" ...")
        if not answer.ok:
            raise requests.HTTPError(f"HTTP {answer.status_code}: {said}", response=answer)
        try:
            return read(json.loads(answer.text))  # Python's own reads the NaN that TensorFlow Serving writes
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{self.url} must be TensorFlow Serving's, of keras_lt. Received: {said}") from None

    def wait(self, seconds: float):
        """Waits for a version of the model to be loaded; raises ValueError where none will be, or not in time."""
        end = time.monotonic() + seconds
        while "AVAILABLE" not in (states := self._states()):
            if not states.keys() & {"START", "LOADING"} or time.monotonic() + POLL > end:
                raise ValueError(f"{self.url} is not ready: {states}")
            time.sleep(POLL)

    def _states(self) -> dict:
        try:
            return self.ask(lambda said: {one["state"]: one["status"] for one in said["model_version_status"]})
        except requests.ConnectionError as error:  # it does not listen yet
            return {"START": str(error)}

    def classify(self, images: Sequence[bytes]) -> list[dict]:
        """Cells by `COLUMNS` per image; where all are refused, each half by itself, down to the one to blame."""
        body = {"instances": [{"image_bytes": {"b64": base64.b64encode(image).decode()}} for image in images]}
        try:
            return self.ask(lambda said: [_answer(**row) for row in said["predictions"]], ":predict", body)
        except requests.HTTPError as error:
            if error.response.status_code not in REFUSED:
                raise
            if len(images) == 1:
                return [{"problem": str(error)}]
            middle = len(images) // 2
            return self.classify(images[:middle]) + self.classify(images[middle:])


def _answer(probabilities: list[float], classes: list[str], ok: bool = True, **_) -> dict:
    if any(map(math.isnan, probabilities)):
        return {"problem": "the model's answer is not a number" if ok else "no image that the model can decode"}
    ranked = sorted(zip(probabilities, classes, strict=True), key=lambda pair: -pair[0])
    cells = [cell for share, label in ranked for cell in (label, f"{share:.6f}")]
    return dict(zip(COLUMNS[1:-1], cells, strict=False))


def find_images(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Files as they are named, and what lies in folders, however deep, and is an image by its name."""
    files = []
    for path in paths:
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in FORMATS and file.is_file())
        files += inside if path.is_dir() else [path]
    if not files or not all(file.exists() for file in files):
        raise ValueError(f"--images must be files, or folders with {', '.join(FORMATS)}. Received: {paths}")
    return files


def main(command_line: Sequence[str] | None = None):
    """Runs the command; the exit code is 0 where every image has got a label. What is done is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://localhost:8501", help="the server's REST port (%(default)s)")
    parser.add_argument("--model", required=True, help="its name there: the classifier's folder in export/")
    parser.add_argument("--images", type=pathlib.Path, nargs="+", required=True, help="files, and folders of them")
    parser.add_argument("--output", type=pathlib.Path, default="predictions.csv", help="new CSV file (%(default)s)")
    parser.add_argument("--wait", type=float, default=60, help="seconds for the model to be loaded (%(default)s)")
    given = parser.parse_args(command_line)
    try:
        model, files, unlabelled = Model(given.url, given.model), find_images(given.images), 0
        print(f"{model.url}: {len(files)} images", file=sys.stderr)
        model.wait(given.wait)
        with given.output.open("x", encoding="utf-8", errors="backslashreplace", newline="") as output:
            writer = csv.DictWriter(output, COLUMNS, restval="")
            writer.writeheader()
            for start in range(0, len(files), BATCH):
                batch = files[start : start + BATCH]
                for file, answer in zip(batch, model.classify([file.read_bytes() for file in batch]), strict=True):
                    writer.writerow({"image": file, **answer})
                    unlabelled += "problem" in answer
                output.flush()
    except (ValueError, OSError) as error:  # those of requests are among the latter
        sys.exit(f"Error: {error}")
    if unlabelled:
        sys.exit(f"{unlabelled} of {len(files)} images without a label: {given.output}")


if __name__ == "__main__":
    main()
