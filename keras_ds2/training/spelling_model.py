"""The second network of a model by itself, to be trained on heard speech."""

import keras

from keras_ds2.models.ctc_model import CTCModel
from keras_ds2.training.heard_speech import first_network


class SpellingModel(CTCModel):
    """The layers of a model that take what its first network has heard.

    They are the model's own: what this one learns, the whole one knows, and
    the whole one is what is saved. It trains as all models here do, on
    `ImaginedSpeech.stream()`; its metrics and its loss are those of the text
    that is written. For several devices it has to be made in the scope of the
    strategy, as the model.

    Args:
        model: `DeepSpeech2` with `num_spelling_layers`.

    Inputs:
        `{"heard_logits": (batch, frames, symbols) float32, "num_frames":
        (batch,) int32}`: logits or log probabilities.

    Outputs:
        As of the model.

    Raises:
        ValueError: If the model has no spelling layers.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(
    ...     num_rnn_layers=1, rnn_units=8, num_spelling_layers=1
    ... )
    >>> outputs = keras_ds2.SpellingModel(model)(
    ...     {"heard_logits": np.zeros((1, 5, 31)), "num_frames": np.array([5])}
    ... )
    >>> outputs["logits"].shape, outputs["logit_length"].numpy()
    (TensorShape([1, 6, 31]), array([6], dtype=int32))
    """

    def __init__(self, model):
        heard, num_frames = first_network(model).outputs
        inputs = {
            "heard_logits": keras.Input(heard.shape[1:], name="heard_logits"),
            "num_frames": keras.Input((), dtype="int32", name="num_frames"),
        }
        second = keras.Model([heard, num_frames], model.output)
        super().__init__(
            inputs=inputs,
            outputs=second(list(inputs.values())),
            name="spelling",
        )
        # As of `SpeechRecognizer`: for `compile`, which asks the model.
        self.dtype_policy = model.dtype_policy
        self.alphabet = model.alphabet
        self._config = model.get_config()

    def get_config(self):
        return dict(self._config)  # a backup compares it

    def save(self, *args, **kwargs):
        raise NotImplementedError(
            "This is a part of a model. Save that model, which has its "
            "weights; a callback can, in `on_epoch_end`."
        )
