"""All that was heard in one recording, written in the formats of others."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_ds2 import subtitles
from keras_ds2.decoding.hypothesis import TimedText
from keras_ds2.transcription import Segment


@dataclass(frozen=True)
class Transcript:
    """What was heard in one recording.

    Args:
        file: String. What the recording is called.
        duration: Float, seconds.
        model: String. What the model is called.
        segments: List of `Segment`.

    Example:

    >>> import keras_ds2
    >>> from keras_ds2.transcript import Transcript
    >>> words = (keras_ds2.TimedText("ten", 0.4, 1.7, 0.9),)
    >>> ten = keras_ds2.Hypothesis("ten", -1.5, -1.5, words=words)
    >>> segments = [keras_ds2.Segment(0.0, 2.0, ten)]
    >>> transcript = Transcript("talk.wav", 2.0, "mine", segments)
    >>> transcript.text
    'ten'
    >>> print(transcript.format("ctm"), end="")
    talk 1 0.40 1.30 ten 0.900
    """

    file: str
    duration: float
    model: str
    segments: list[Segment]

    @property
    def text(self) -> str:
        """The words of all segments, one space between them."""
        texts = (segment.hypothesis.text for segment in self.segments)
        return " ".join(text for text in texts if text)

    @property
    def words(self) -> list[TimedText]:
        """The words of all segments."""
        return [
            word
            for segment in self.segments
            for word in segment.hypothesis.words
        ]

    def format(self, name: str) -> str:
        """Writes the transcript.

        Args:
            name: `"text"`, `"json"`, `"srt"`, `"vtt"` or `"ctm"`.

        Returns:
            The content of a file, or a line of it.
        """
        if name == "text":
            return f"{self.text}\n"
        if name == "json":
            return self._format_json()
        if name == "srt":
            return subtitles.format_srt(self.words)
        if name == "vtt":
            return subtitles.format_vtt(self.words)
        return subtitles.format_ctm(self.words, Path(self.file).stem)

    def _format_json(self) -> str:
        content = {
            "file": self.file,
            "duration": round(self.duration, 3),
            "model": self.model,
            "text": self.text,
            "words": describe_words(self.words),
        }
        return json.dumps(content, ensure_ascii=False) + "\n"


def describe_words(
    words: Sequence[TimedText], offset: float = 0.0
) -> list[dict[str, Any]]:
    """Makes plain dictionaries of words, for JSON.

    Args:
        words: `TimedText`s.
        offset: Float, seconds. Added to their times. Defaults to `0.0`.

    Returns:
        List of `word`, `start`, `end` (seconds) and `confidence`.

    Example:

    >>> from keras_ds2 import TimedText
    >>> from keras_ds2.transcript import describe_words
    >>> describe_words([TimedText("ten", 0.4, 1.7, 0.9)])
    [{'word': 'ten', 'start': 0.4, 'end': 1.7, 'confidence': 0.9}]
    """
    return [
        {
            "word": word.text,
            "start": round(offset + word.start, 3),
            "end": round(offset + word.end, 3),
            "confidence": round(word.confidence, 3),
        }
        for word in words
    ]
