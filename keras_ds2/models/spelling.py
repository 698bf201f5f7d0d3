"""A second network, which reads what the first one has heard.

Letters that were heard are misspelled words: a network that learns from hours
of speech hears few words often enough to know how they are written. Text is
not scarce. So a second stack of recurrent layers sees nothing but the
probabilities of the first one's symbols, and writes again. As these are all it
needs, it can be trained on text without recordings, once somebody makes up how
the first network would hear that text: `training/imagined_speech.py` does.

It is made of layers like those of Deep Speech 2, so it streams, is exported
and fine-tuned as they are. As a word is known by its end, it looks much further
ahead: 0.7 s with frames of 20 ms, 1.4 s with 40 ms.

Reference:
    Guo et al., 2019, "A spelling correction model for end-to-end speech
    recognition" (arXiv:1902.07178), which corrects whole sentences after they
    were decoded; Nozaki and Komatsu, 2021 (arXiv:2104.02724), whose upper
    layers see what lower ones predict.
"""

import keras

from keras_ds2.layers.clipped_relu import clipped_relu
from keras_ds2.layers.context_window import ContextWindow
from keras_ds2.layers.log_probabilities import log_probabilities
from keras_ds2.layers.output_length import OutputLength
from keras_ds2.layers.row_convolution import RowConvolution
from keras_ds2.layers.sequence_mask import SequenceMask
from keras_ds2.layers.split_frames import SplitFrames
from keras_ds2.models.parts import recurrent_layer
from keras_ds2.text import validate_alphabet


def spelling(
    logits,
    num_frames,
    num_layers,
    units,
    context,
    stride,
    row_conv_width,
    dropout,
    rnn_type,
    normalize_projection,
    dtype,
):
    """Logits of what was heard in, features of what is to be written out."""

    def drop(x, name):
        name = f"spelling_{name}_dropout"
        return keras.layers.Dropout(dropout, dtype=dtype, name=name)(x)

    x = keras.layers.Activation(
        log_probabilities, dtype="float32", name="heard"
    )(logits)
    x = ContextWindow(context, stride, dtype=dtype, name="spelling_context")(
        x, num_frames
    )  # (batch, long frames, (2 * context + 1) * symbols)
    num_frames = OutputLength(
        2 * context + 1,
        stride,
        padding=2 * context,
        name="spelling_num_long_frames",
    )(num_frames)
    x = keras.layers.Dense(
        units, activation=clipped_relu, dtype=dtype, name="spelling_input"
    )(x)
    x = drop(x, "input")
    mask = SequenceMask(name="spelling_mask")(x, num_frames)
    for i in range(1, num_layers + 1):
        x = recurrent_layer(
            rnn_type,
            units,
            bidirectional=False,
            merge_mode="sum",
            normalize_projection=normalize_projection,
            dtype=dtype,
            name=f"spelling_rnn_{i}",
        )(x, mask=mask)
        x = drop(x, f"rnn_{i}")
        if row_conv_width:
            x = RowConvolution(
                row_conv_width,
                # What was heard is mostly right: at first it passes.
                kernel_initializer=current_frame,
                dtype=dtype,
                name=f"spelling_row_conv_{i}",
            )(x, num_frames)
    x = keras.layers.Dense(
        stride * units,
        activation=clipped_relu,
        dtype=dtype,
        name="spelling_dense",
    )(x)
    x = drop(x, "dense")
    x = SplitFrames(stride, dtype=dtype, name="spelling_split")(x)
    num_frames = OutputLength(1, 1, factor=stride, name="spelling_num_frames")(
        num_frames
    )
    return x, num_frames


def validate_spelling(num_layers, heard_alphabet):
    """Raises a `ValueError` if arguments of `DeepSpeech2` are out of range."""
    if num_layers < 0:
        raise ValueError(
            "`num_spelling_layers` must not be negative. Received: "
            f"num_spelling_layers={num_layers}."
        )
    if heard_alphabet is not None:
        if not num_layers:
            raise ValueError(
                "`heard_alphabet` is for a second network. Leave it out, or "
                "build the model with num_spelling_layers=2."
            )
        validate_alphabet(heard_alphabet)


def add_spelling(model, num_spelling_layers=2, **arguments):
    """Puts a second network, untrained, behind a trained one.

    What the model wrote so far is what the new one's first network hears. A
    second network that is there already stays, with its sizes.

    Args:
        model: `DeepSpeech2`.
        num_spelling_layers: Integer, at least 1, as of `DeepSpeech2`. Defaults
            to `2`.
        **arguments: Further arguments of `DeepSpeech2` that are to change, as
            `spelling_units` or `dtype`; for another alphabet there is
            `model.with_vocabulary`.

    Returns:
        A model of its own, not compiled.

    Raises:
        ValueError: If `model` is no `DeepSpeech2`, or an argument is out of
            range.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> keras_ds2.add_spelling(model).num_spelling_layers
    2
    """
    if not hasattr(model, "num_spelling_layers"):
        raise ValueError(
            "`model` must be a DeepSpeech2. Received: a "
            f"{type(model).__name__}."
        )
    if num_spelling_layers < 1 or {"alphabet", "heard_alphabet"} & {*arguments}:
        raise ValueError(
            "`num_spelling_layers` must be at least 1, and alphabets cannot "
            f"change here. Received: num_spelling_layers={num_spelling_layers},"
            f" {', '.join(arguments)}."
        )
    config = model.get_config() | arguments
    has_two = model.num_spelling_layers > 0
    if not has_two:
        config["num_spelling_layers"] = num_spelling_layers
    new = type(model).from_config(config)
    for layer in model.layers:
        name = layer.name
        if name == "logits" and not has_two:
            name = "heard_logits"
        new.get_layer(name).set_weights(layer.get_weights())
    return new


@keras.saving.register_keras_serializable(package="keras_ds2")
def current_frame(shape, dtype=None):
    """Initializes a row convolution to pass nearly what it is given."""
    is_current = keras.ops.arange(shape[0])[:, None] == 0
    noise = keras.random.normal(shape, stddev=0.05, dtype=dtype)
    return noise + keras.ops.cast(is_current, noise.dtype)
