"""Times the CTC loss and its gradient against Keras's own.

    python benchmarks/ctc.py

Both on the same logits, alternating in one process; prints medians and their
ratio. The losses are compared too.
"""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf

import keras_ds2

BATCH, FRAMES, LABELS, SYMBOLS, REPEATS = 16, 400, 100, 31, 5


def main():
    generator = np.random.default_rng(0)
    logits = tf.constant(
        generator.normal(size=(BATCH, FRAMES, SYMBOLS)), tf.float32
    )
    labels = tf.constant(
        generator.integers(1, SYMBOLS, (BATCH, LABELS)), tf.int32
    )
    label_length = tf.fill((BATCH,), LABELS)
    logit_length = tf.fill((BATCH,), FRAMES)
    layer = keras_ds2.CTCLayer()
    losses = {
        "keras_ds2.CTCLayer": lambda logits: layer.loss(
            labels, logits, label_length, logit_length
        ),
        "keras.ops.ctc_loss": lambda logits: keras.ops.ctc_loss(
            labels, logits, label_length, logit_length
        ),
    }

    def timed(loss):
        @tf.function
        def step(logits):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                value = tf.reduce_mean(loss(logits))
            return value, tape.gradient(value, logits)

        return step

    steps = {name: timed(loss) for name, loss in losses.items()}
    values = {name: float(step(logits)[0]) for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS):
        for name, step in steps.items():
            start = time.perf_counter()
            step(logits)[1].numpy()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {median * 1e3:.0f} ms, loss {values[name]:.4f}")
    ours, theirs = medians.values()
    print(f"ratio_to_keras: {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
