"""How all models train: CTC, error rates, steps that cannot do harm."""

import contextlib
import functools
import gc
import inspect
import sys
import traceback
import types
import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_ds2 import lengths
from keras_ds2.decoding.greedy import greedy_decode
from keras_ds2.error_rate import CharacterErrorRate, WordErrorRate
from keras_ds2.layers.ctc_layer import CTCLayer
from keras_ds2.layers.log_mel_spectrogram import LogMelSpectrogram
from keras_ds2.replicas import apply_gradients_if, sum_over_replicas


class CTCModel(keras.Model):
    """A model of logits and their lengths that trains with CTC.

    A subclass has an `alphabet`.

    A step whose loss or gradient is not finite changes nothing; `skipped`
    counts it. On several devices the loss, the statistics and the gradients
    are those of the whole batch.

    Metrics: `loss`, `wer`, `cer`; `infeasible`, the share of utterances whose
    transcript does not fit; `blank_ratio`, the share of frames whose best
    symbol is the blank; while training also `gradient_norm`, before any
    clipping, and `skipped`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ctc = CTCLayer(dtype="float32")
        self.word_errors = WordErrorRate(name="wer")
        self.character_errors = CharacterErrorRate(name="cer")
        self.infeasible = keras.metrics.Mean(name="infeasible")
        self.blank_ratio = keras.metrics.Mean(name="blank_ratio")
        self.gradient_norm = keras.metrics.Mean(name="gradient_norm")
        self.skipped = keras.metrics.Sum(name="skipped")
        self._is_evaluated = False

    # === Training ===

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        signature = inspect.signature(keras.Model.fit)
        options = signature.bind(self, *args, **kwargs).arguments
        del options["self"]
        if isinstance(options.get("x"), tf.data.Dataset):
            options.setdefault("shuffle", False)  # it has its own order
        callbacks = options.get("callbacks")
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.tree.flatten(callbacks or [])
            # Who adds to the logs comes first, who keeps all state last.
            callbacks.sort(key=lambda item: getattr(item, "fit_order", 0))
            for callback in callbacks:
                if hasattr(callback, "set_companions"):
                    callback.set_companions(callbacks)
            options["callbacks"] = callbacks
        with self._explained():
            return super().fit(**options)

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        self._is_evaluated = True
        try:
            with warnings.catch_warnings(), self._explained():
                # Without unreadable files a pass is shorter than anyone knew.
                warnings.filterwarnings("ignore", "Your input ran out of data")
                return super().evaluate(*args, **kwargs)
        finally:
            self._is_evaluated = False

    def get_metrics_result(self):
        results = super().get_metrics_result()
        if self._is_evaluated:
            for metric in (self.gradient_norm, self.skipped):
                del results[metric.name]
        return results

    @contextlib.contextmanager
    def _explained(self):
        """Names the fix of uneven shares, and leaves no iterator behind.

        The threads of an iterator decode files in Python. If they outlive it,
        held by the frames of a failed step, it may never end.
        """
        handled_already = sys.exc_info()[1]  # not ours to clear
        try:
            yield
        except Exception as error:
            _clear_frames(error, handled_already)
            num_replicas = self.distribute_strategy.num_replicas_in_sync
            if num_replicas == 1 or not isinstance(
                error, tf.errors.InvalidArgumentError
            ):
                raise
            raise ValueError(
                f"A step on {num_replicas} devices failed. Every batch must "
                "divide evenly among them: `prepare_dataset(..., num_replicas="
                f"{num_replicas})`."
            ) from error
        finally:
            gc.collect()  # Keras's iterator is part of a cycle

    def train_step(self, data):
        """Keras's step, but one that is not finite changes nothing."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = self.trainable_weights
        statistics = self.non_trainable_weights
        before = [tf.identity(variable.value) for variable in statistics]
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, weights)
        # Summed here, and everyone's share of the sum given to the optimizer,
        # which sums again: norm and clipping must see the whole batch.
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        gradients = sum_over_replicas(gradients)
        loss = sum_over_replicas(loss)
        scale = self.optimizer.scale_loss(tf.constant(1.0))
        norm = tf.linalg.global_norm(gradients) / scale
        is_finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        gradients = [gradient / num_replicas for gradient in gradients]
        make_step = is_finite
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # It skips the step itself, and lowers its scale, if it sees why.
            make_step = tf.constant(True)
            gradients = [tf.where(is_finite, g, np.nan) for g in gradients]
        apply_gradients_if(make_step, self.optimizer, gradients, weights)
        for variable, value in zip(statistics, before, strict=True):
            variable.assign(tf.where(is_finite, variable.value, value))

        step_weight = tf.cast(is_finite, tf.float32)
        batch_size = tf.cast(tf.shape(y["label_length"])[0], tf.float32)
        for metric in self.metrics:
            if metric.name == "loss":  # Keras's own
                metric.update_state(
                    tf.where(is_finite, loss, 0.0), step_weight * batch_size
                )
        self.gradient_norm.update_state(
            tf.where(is_finite, norm, 0.0), step_weight
        )
        self.skipped.update_state((1.0 - step_weight) / num_replicas)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Mean CTC loss of the utterances, plus the layers' own losses."""
        if not isinstance(y, dict) or not {"labels", "label_length"} <= set(y):
            raise ValueError(
                "Targets must be a dictionary of `labels` (batch, max_labels) "
                "and `label_length` (batch,), as `SpeechDataset` gives them. "
                f"Received: {y}"
            )
        losses = self.ctc.loss(
            y["labels"],
            y_pred["logits"],
            y["label_length"],
            y_pred["logit_length"],
        )
        if isinstance(sample_weight, dict):
            # With arrays, Keras gives each target a copy.
            sample_weight = sample_weight["label_length"]
        if sample_weight is not None:
            losses *= ops.cast(sample_weight, losses.dtype)
        loss = ops.mean(losses) + sum(self.losses)
        # Gradients of replicas are summed, and Keras scales only its own.
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Counts word and character errors of the greedy transcripts."""
        tokenizer = self._tokenizer()
        labels = greedy_decode(
            y_pred["logits"], y_pred["logit_length"], self.ctc.blank_index
        )
        padding = ~lengths.sequence_mask(
            y["label_length"], ops.shape(y["labels"])[1]
        )
        references = tokenizer.detokenize(ops.where(padding, -1, y["labels"]))
        hypotheses = tokenizer.detokenize(labels)
        self.word_errors.update_state(references, hypotheses)
        self.character_errors.update_state(references, hypotheses)
        feasible = self.ctc.is_feasible(
            y["labels"],
            y_pred["logits"],
            y["label_length"],
            y_pred["logit_length"],
        )
        self.infeasible.update_state(~feasible)
        self.blank_ratio.update_state(
            ops.argmax(y_pred["logits"], axis=-1) == self.ctc.blank_index,
            lengths.sequence_mask(
                y_pred["logit_length"], ops.shape(y_pred["logits"])[1]
            ),
        )
        return self.get_metrics_result()

    def _tokenizer(self):
        # Lazily: keras_nlp takes seconds to import.
        from keras_ds2.tokenizer import CharacterTokenizer

        return CharacterTokenizer(self.alphabet)

    def make_train_function(self, force=False):
        if not all(
            layer.is_adapted
            for layer in self.layers
            if isinstance(layer, LogMelSpectrogram)
        ):
            raise ValueError(
                "The features have no corpus statistics yet. Call "
                "`model.adapt(dataset.one_pass())` before `fit`, or build the "
                "model with `normalize=False` to train without."
            )
        self._refuse_compiled_losses()
        if not self.optimizer.built:
            # If the first step had to make its variables, TensorFlow would
            # trace it a second time.
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_weights)
        return super().make_train_function(force)

    def make_test_function(self, force=False):
        self._refuse_compiled_losses()
        return super().make_test_function(force)

    def _refuse_compiled_losses(self):
        config = self.get_compile_config()
        for name in ("loss", "metrics", "weighted_metrics"):
            if config.get(name):
                raise ValueError(
                    f"`compile({name}=...)` has no effect: the model computes "
                    "the CTC loss, WER and CER itself. Call "
                    "`compile(optimizer)` only."
                )


def _clear_frames(error, end):
    """Lets go of what an error holds by the frames that it left.

    `traceback.clear_frames` sees neither the frames that Keras filters out of
    the traceback, which hang on the others by `f_back`, nor those of the errors
    that were handled when this one was raised, up to `end`.
    """
    while error is not end:
        for innermost, _ in traceback.walk_tb(error.__traceback__):
            frame: types.FrameType | None = innermost
            while frame is not None:
                with contextlib.suppress(RuntimeError):  # it is running
                    frame.clear()
                frame = frame.f_back
        error = error.__context__
