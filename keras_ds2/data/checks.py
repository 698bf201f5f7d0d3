"""Which utterances cannot be used, and why: one concept for all reasons."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from keras_ds2.data.corpus import CorpusError, Utterance
from keras_ds2.lengths import required_frames
from keras_ds2.text import DEFAULT_ALPHABET, unknown_characters


@dataclass(frozen=True)
class Rejected:
    """An utterance that cannot be used, and why.

    Args:
        utterance: The `Utterance`.
        reason: A word fit for counting: a reason of `AudioError`, or
            `"unknown_characters"`, or `"infeasible"` (fewer output frames
            than CTC needs for the transcript).
        detail: A sentence with figures and the fix.

    Example:

    >>> from keras_ds2.data.checks import Rejected
    >>> from keras_ds2.data.corpus import Utterance
    >>> Rejected(Utterance("a.wav", ""), "empty", "Holds no samples.").reason
    'empty'
    """

    utterance: Utterance
    reason: str
    detail: str


def describe_rejected(rejected: Sequence[Rejected], limit: int = 5) -> str:
    """Puts rejected utterances into words.

    Args:
        rejected: What `add_durations` or `check_utterances` left out.
        limit: Integer. How many are named one by one. Defaults to `5`.

    Returns:
        A line with the count per reason, then one line per utterance.

    Example:

    >>> from keras_ds2.data.checks import Rejected, describe_rejected
    >>> from keras_ds2.data.corpus import Utterance
    >>> row = Utterance("a.wav", "go", source="train.jsonl:7")
    >>> print(describe_rejected([Rejected(row, "too_long", "Lasts 99 s.")]))
    1 utterance(s) cannot be used: 1 too_long
      train.jsonl:7: Lasts 99 s.
    """
    counts = Counter(row.reason for row in rejected).most_common()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
    lines = [f"{len(rejected)} utterance(s) cannot be used: {reasons}"]
    for row in rejected[:limit]:
        where = row.utterance.source or row.utterance.audio
        lines.append(f"  {where}: {row.detail}")
    if len(rejected) > limit:
        lines.append(f"  ... and {len(rejected) - limit} more")
    return "\n".join(lines)


def check_utterances(
    utterances: Iterable[Utterance],
    num_frames: Callable[[int], int],
    alphabet: str = DEFAULT_ALPHABET,
    sampling_rate: int = 16000,
    min_duration: float = 0.0,
    max_duration: float | None = None,
    on_invalid: str = "error",
) -> tuple[list[Utterance], list[Rejected]]:
    """Finds the utterances that a model cannot be trained on.

    These are too short, too long, have characters outside the alphabet, or
    give fewer output frames than CTC needs for the transcript. An utterance
    with several faults is counted by the first of them in this order.

    Args:
        utterances: `Utterance`s with durations.
        num_frames: Function from a number of samples to the number of
            output frames (logits) of the model.
        alphabet: The characters that have labels. Defaults to
            `DEFAULT_ALPHABET`.
        sampling_rate: Integer. The rate of the samples in Hz. Defaults to
            `16000`.
        min_duration: Float, in seconds. Defaults to `0.0`.
        max_duration: Float or `None`, in seconds. Defaults to `None`: no
            limit.
        on_invalid: `"error"`: any such utterance is an error. `"skip"`:
            they are left out and returned. Defaults to `"error"`.

    Returns:
        The usable utterances in their order, and a list of the `Rejected`
        ones.

    Raises:
        CorpusError: If utterances are unusable, unless `on_invalid="skip"`.
            Names the first few and counts all.
        ValueError: If an utterance has no duration yet.

    Example:

    >>> from keras_ds2.data.checks import check_utterances
    >>> from keras_ds2.data.corpus import Utterance
    >>> rows = [Utterance("a.wav", "go", 1.0), Utterance("b.wav", "10", 1.0)]
    >>> kept, rejected = check_utterances(
    ...     rows,
    ...     num_frames=lambda num_samples: num_samples // 320,
    ...     on_invalid="skip",
    ... )
    >>> len(kept), rejected[0].reason
    (1, 'unknown_characters')
    """
    validate_choice("on_invalid", on_invalid)
    kept: list[Utterance] = []
    rejected: list[Rejected] = []
    for utterance in utterances:
        if math.isnan(utterance.duration):
            raise ValueError(
                f"Utterance '{utterance.audio}' has no duration. Pass the "
                "utterances through `add_durations` first."
            )
        available = num_frames(round(utterance.duration * sampling_rate))
        fault = (
            _duration_fault(utterance.duration, min_duration, max_duration)
            or _text_fault(utterance.text, alphabet)
            or _alignment_fault(utterance, available)
        )
        if fault:
            rejected.append(Rejected(utterance, *fault))
        else:
            kept.append(utterance)
    if rejected and on_invalid == "error":
        refuse(rejected)
    return kept, rejected


def refuse(rejected: Sequence[Rejected]) -> NoReturn:
    """Raises the error that names unusable utterances."""
    raise CorpusError(
        f"{describe_rejected(rejected)}\nMend them, or pass "
        "`on_invalid='skip'` to leave them out."
    )


def validate_choice(name: str, value: str) -> None:
    if value not in ("error", "skip"):
        raise ValueError(
            f'`{name}` must be "error" or "skip". Received: {name}={value!r}'
        )


def _duration_fault(
    duration: float, min_duration: float, max_duration: float | None
) -> tuple[str, str] | None:
    if duration < min_duration:
        return "too_short", (
            f"Lasts {duration:.3f} s, less than min_duration={min_duration} "
            "s. Leave it out or lower `min_duration`."
        )
    if max_duration is not None and duration > max_duration:
        return "too_long", (
            f"Lasts {duration:.3f} s, more than max_duration={max_duration} "
            "s. Split it or raise `max_duration`."
        )
    return None


def _text_fault(text: str, alphabet: str) -> tuple[str, str] | None:
    unknown = unknown_characters(text, alphabet)
    if not unknown:
        return None
    return "unknown_characters", (
        f"The transcript has characters outside the alphabet: {unknown!r}. "
        "Spell them out or extend `alphabet`."
    )


def _alignment_fault(
    utterance: Utterance, available: int
) -> tuple[str, str] | None:
    # An empty transcript, too, needs a frame: one blank.
    required = max(required_frames(utterance.text), 1)
    if available >= required:
        return None
    return "infeasible", (
        f"The {len(utterance.text)} characters need {required} output "
        f"frames, but {utterance.duration:.3f} s give {available}. Check "
        "that the transcript belongs to the audio, or lower the strides."
    )
