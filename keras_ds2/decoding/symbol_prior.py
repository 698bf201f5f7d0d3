"""How often a network tells each symbol, and its frames without that bias."""

import numpy as np

# Of a symbol that hardly occurs: its frames would count without end.
_LOWEST = 1e-4


def measure_symbol_prior(log_probs):
    """Averages what a network tells of many frames.

    Args:
        log_probs: Array of shape `(frames, symbols)`: log probabilities, as
            `character_log_probs` makes them.

    Returns:
        Float64 array of shape `(symbols,)`, at least 0.0001 each; the sum is
        1 but for that.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.decoding.symbol_prior import measure_symbol_prior
    >>> measure_symbol_prior(np.log([[0.8, 0.2], [0.4, 0.6]])).round(2)
    array([0.6, 0.4])
    """
    return np.maximum(np.exp(log_probs).mean(axis=0), _LOWEST)


def divide_by_prior(log_probs, prior, prior_weight):
    """Divides probabilities by `prior ** prior_weight`, and normalizes them.

    Args:
        log_probs: Array of shape `(frames, symbols)`.
        prior: Array of shape `(symbols,)`, positive.
        prior_weight: Float.

    Returns:
        Log probabilities, an array of the same shape.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.decoding.symbol_prior import divide_by_prior
    >>> frames = np.log([[0.9, 0.1]])
    >>> np.exp(divide_by_prior(frames, [0.9, 0.1], prior_weight=1.0))
    array([[0.5, 0.5]])
    """
    log_probs = log_probs - prior_weight * np.log(prior)
    return log_probs - np.logaddexp.reduce(log_probs, axis=1, keepdims=True)


def validate_prior(prior, num_symbols):
    """Checks what was given as a prior.

    Args:
        prior: Array-like of shape `(num_symbols,)`: of the blank, then of each
            character of the alphabet.
        num_symbols: Integer.

    Returns:
        List of floats.

    Raises:
        ValueError: If it is `None`, of another size, or has a number that is
            not positive and finite.
    """
    if prior is None:
        raise ValueError(
            "`prior_weight` needs a `prior`, which `tune_decoder` measures. "
            "Received: prior=None."
        )
    try:
        values = np.asarray(prior, "float64")
    except (TypeError, ValueError, OverflowError):
        values = np.empty(0)
    if values.shape != (num_symbols,) or not np.all(
        (values > 0) & np.isfinite(values)
    ):
        raise ValueError(
            f"`prior` must be {num_symbols} positive numbers: of the blank, "
            "and of each character of the alphabet. Received: "
            f"prior={prior!r:.80}."
        )
    return values.tolist()
