"""A model, or its streaming step, as a SavedModel of TensorFlow."""

import json
import os

import keras
import tensorflow as tf

from keras_ds2.export.metadata import flat_name, metadata_of


def export_saved_model(model, path, step=None):
    """Writes a folder with one signature, `serve`.

    Args:
        model: `SpeechRecognizer`.
        path: Folder.
        step: `StreamingStep` of the model, to export that. Defaults to
            `None`.
    """
    if step is None:
        model.export(path, format="tf_saved_model", verbose=False)
    else:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", *_flat(step))
        archive.write_out(path, verbose=False)
    # The place that TensorFlow leaves to whoever writes a SavedModel.
    folder = os.path.join(path, "assets.extra")
    os.makedirs(folder, exist_ok=True)
    with open(
        os.path.join(folder, "metadata.json"), "w", encoding="utf-8"
    ) as file:
        json.dump(metadata_of(model, step), file, indent=1)


def _flat(step):
    """The step with one dictionary for all that goes in, and its signature."""
    specs = {
        flat_name(name): tf.TensorSpec((None, *shape), dtype, flat_name(name))
        for name, (shape, dtype) in step.state_shapes.items()
    }
    specs["samples"] = tf.TensorSpec(
        (None, step.chunk_size), "float32", "samples"
    )
    specs["num_samples"] = tf.TensorSpec((None,), "int32", "num_samples")

    def serve(inputs):
        state = {name: inputs[flat_name(name)] for name in step.state_shapes}
        logits, is_real, state = step(
            state, inputs["samples"], inputs["num_samples"]
        )
        new = {f"next_{flat_name(name)}": x for name, x in state.items()}
        return {"logits": logits, "is_real": is_real, **new}

    return serve, [specs]
