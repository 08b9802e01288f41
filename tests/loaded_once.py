"""Loads TensorFlow and what Keras imports, once for all of `tests.programs`; not Keras, whose settings differ."""

import contextlib
import gc
import importlib
import sys

sys.modules["keras"] = None  # TensorFlow would load it
for name in ("tensorflow", "jax", "jax.experimental.sparse", "sklearn.base", "matplotlib.pyplot", "h5py", "optree"):
    with contextlib.suppress(ImportError):  # TensorFlow alone is needed
        importlib.import_module(name)
del sys.modules["keras"]
gc.freeze()  # a copy's collections leave this alone, and so share its memory
