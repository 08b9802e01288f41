"""SavedModels that a TensorFlow Serving server loads as they are: encoded image in, label out."""

from keras_lt.serving.model_card import render_model_card
from keras_lt.serving.priors import (
    PriorEstimate,
    estimate_prior,
    fit_temperature,
    fitted_rows,
    logit_offset,
    read_prior,
    trained_prior,
)
from keras_lt.serving.saved_model import LABELS, MADE_BY, MODEL_CARD, ONNX, WARMUP, export_saved_model

__all__ = [
    "LABELS",
    "MADE_BY",
    "MODEL_CARD",
    "ONNX",
    "WARMUP",
    "PriorEstimate",
    "estimate_prior",
    "export_saved_model",
    "fit_temperature",
    "fitted_rows",
    "logit_offset",
    "read_prior",
    "render_model_card",
    "trained_prior",
]
