"""What the devices of one `tf.distribute` strategy must agree on."""

import keras
import tensorflow as tf


def sum_over_replicas(values):
    """Adds up what each device holds, so that all hold the same.

    Args:
        values: Tensor or list of tensors, one share of the whole.

    Returns:
        The sums; `values` themselves where there is one device. Gradients
        flow back to every device.

    Example:

    >>> import tensorflow as tf
    >>> from keras_ds2.replicas import sum_over_replicas
    >>> float(sum_over_replicas(tf.constant(2.0)))
    2.0
    """
    if keras.backend.backend() != "tensorflow":
        return values
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def apply_gradients_if(condition, optimizer, gradients, weights):
    """Makes a step of the optimizer, or none.

    Args:
        condition: Boolean scalar tensor, equal on all devices.
        optimizer: A built `keras.optimizers.Optimizer`.
        gradients: List of tensors, this device's share: the optimizer adds
            them up.
        weights: List of variables.
    """

    def apply(gradients):
        optimizer.apply_gradients(zip(gradients, weights, strict=True))

    def choose(condition, step):
        tf.cond(
            condition,
            lambda: (step(), tf.constant(True))[1],
            lambda: tf.constant(False),
        )

    context = tf.distribute.get_replica_context()
    if not tf.distribute.has_strategy():
        return choose(condition, lambda: apply(gradients))

    # A branch may not leave the replicas' context, which the optimizer does,
    # even if there is one replica: so the branching happens outside of it.
    def choose_for_all(strategy, condition, gradients):
        conditions = strategy.experimental_local_results(condition)
        choose(
            conditions[0],
            lambda: strategy.extended.call_for_each_replica(
                apply, args=(gradients,)
            ),
        )

    return context.merge_call(choose_for_all, args=(condition, gradients))
