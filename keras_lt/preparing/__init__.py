"""Images made ready for training, and the shards that they are written into; `keras_lt.prepare` is the command."""
