"""All that a training step changes: read, and put back."""

import keras


def training_variables(model):
    """Weights, statistics, random seeds and the optimizer's variables.

    Metrics are left out: `fit` begins them anew in every epoch.
    """
    if not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
    return [
        *model.trainable_variables,
        *model.non_trainable_variables,
        *model.optimizer.variables,
    ]


def read_state(model):
    """Returns a list of NumPy arrays."""
    return [
        keras.ops.convert_to_numpy(variable)
        for variable in training_variables(model)
    ]


def write_state(model, arrays):
    """Puts back what `read_state` returned."""
    with model.distribute_strategy.scope():
        variables = training_variables(model)
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
