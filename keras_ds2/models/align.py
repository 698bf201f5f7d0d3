"""A recording and its text in, the times of words and characters out."""

from keras_ds2.audio import pad_samples
from keras_ds2.decoding.alignment import character_log_probs, time_text
from keras_ds2.lengths import required_frames
from keras_ds2.text import normalize_transcript, unknown_characters


def align(model, audio, text):
    """Finds when each word and each character of a known text was said.

    Follows the most probable of all CTC alignments of the text. CTC says that
    a character was there more than how long it lasted: begins and ends are
    those of the network's peaks. A text that was not said gets times too, and
    low confidences.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`, trained.
        audio: File, or samples: 1-D float array in [-1, 1] at the model's
            sampling rate.
        text: String. What was said; it is normalized as transcripts are
            (lower case, single spaces).

    Returns:
        Two tuples of `TimedText`: the words, and the characters but spaces.

    Raises:
        ValueError: If the text has characters that the model lacks, naming
            them, or is too long for the recording; if the recording cannot be
            used.

    Reference:
        Graves et al., 2006, section 4.1, with a maximum in place of the sum.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> clip = "tests/data/LibriSpeech/train-clips/19/198/19-198-0037.opus"
    >>> words, _ = keras_ds2.align(model, clip, "She must seek them abroad")
    >>> [word.text for word in words]
    ['she', 'must', 'seek', 'them', 'abroad']
    >>> words[0].start < words[-1].end  # seconds; the model is untrained
    True
    """
    text = normalize_transcript(text)
    unknown = unknown_characters(text, model.alphabet)
    if unknown:
        raise ValueError(
            f"`text` has characters outside the model's alphabet: {unknown!r}. "
            f"Spell them out. Received: text={text!r}."
        )
    samples = model.load_recording(audio)
    logits, _ = model.predict_logits(pad_samples([samples]))
    if len(logits[0]) < required_frames(text):
        raise ValueError(
            f"The {len(text)} characters of `text` need "
            f"{required_frames(text)} output frames, but the recording's "
            f"{len(samples) / model.sampling_rate:.3f} s give "
            f"{len(logits[0])}. Check that the text belongs to the recording. "
            f"Received: text={text!r}."
        )
    alphabet = model.alphabet
    return time_text(
        text,
        alphabet,
        character_log_probs(logits[0], alphabet, model.ctc.blank_index),
        model.frame_duration,
    )
