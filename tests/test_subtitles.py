"""Oracles: webvtt-py, which reads both kinds of subtitles, and CTM by NIST's
description."""

import io

import numpy as np
import pytest
import webvtt

from keras_ds2 import TimedText
from keras_ds2.subtitles import format_ctm, format_srt, format_vtt, make_cues

FORMATS = {"srt": format_srt, "vtt": format_vtt}


def talk(num_words=200, seed=0):
    """Words of 1 to 12 letters, with short and long pauses between."""
    generator = np.random.default_rng(seed)
    words, time = [], 0.0
    for _ in range(num_words):
        time += float(generator.choice([0.04, 0.3, 1.5], p=[0.8, 0.15, 0.05]))
        text = "".join(
            generator.choice(list("abc'"), generator.integers(1, 13))
        )
        end = time + 0.07 * len(text)
        words.append(TimedText(text, time, end, 0.5))
        time = end
    return words


def read(text, name):
    return list(webvtt.from_buffer(io.BytesIO(text.encode()), format=name))


@pytest.mark.parametrize("name", FORMATS)
def test_another_program_reads_the_same(name):
    words = talk()
    captions = read(FORMATS[name](words), name)
    cues = make_cues(words)
    assert len(captions) == len(cues) > 20
    for caption, (start, end, lines) in zip(captions, cues, strict=True):
        assert caption.text == "\n".join(lines)
        assert caption.start_in_seconds == int(start)
        assert caption.end_in_seconds == int(end)
        for stamp, seconds in ((caption.start, start), (caption.end, end)):
            hours, minutes, rest = stamp.replace(",", ".").split(":")
            read_back = 3600 * int(hours) + 60 * int(minutes) + float(rest)
            assert read_back == pytest.approx(seconds, abs=6e-4)


@pytest.mark.parametrize("seed", range(5))
def test_cues_can_be_read(seed):
    words = talk(seed=seed)
    cues = make_cues(words)
    heard = " ".join(word.text for word in words)
    assert " ".join(" ".join(lines) for *_, lines in cues) == heard
    begins = {word.start: word for word in words}
    for i, (start, end, lines) in enumerate(cues):
        assert len(lines) <= 2 and max(map(len, lines)) <= 42
        assert start in begins
        later = cues[i + 1][0] if i + 1 < len(cues) else np.inf
        assert start < end <= later
        assert end - start <= 6
        assert end - start >= min(1.0, later - start) - 1e-9


def test_a_pause_begins_a_cue():
    words = [TimedText("a", t, t + 0.1, 1.0) for t in (0.0, 1.0, 2.5)]
    assert [start for start, *_ in make_cues(words)] == [0.0, 2.5]
    # The longest word stays whole.
    [(_, _, lines)] = make_cues([TimedText("x" * 90, 0.0, 9.0, 1.0)])
    assert lines == ["x" * 90]


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_said(name):
    text = FORMATS[name]([])
    assert text == {"srt": "", "vtt": "WEBVTT\n"}[name]


def test_vtt_escapes_what_it_has_a_meaning_for():
    words = [TimedText("<i>a&b", 0.0, 0.5, 1.0), TimedText("-->", 0.5, 1, 1.0)]
    text = format_vtt(words)
    assert text.splitlines()[-1] == "&lt;i&gt;a&amp;b --&gt;"
    [caption] = read(text, "vtt")
    assert caption.start == "00:00:00.000"


def test_hours():
    words = [TimedText("a", 359999.9996, 360002.0, 1.0)]
    assert format_srt(words).splitlines()[1] == (
        "100:00:00,000 --> 100:00:02,000"
    )


def test_ctm_has_six_fields():
    words = talk(10)
    rows = format_ctm(words, " my talk").splitlines()
    for word, row in zip(words, rows, strict=True):
        name, channel, start, duration, text, confidence = row.split(" ")
        assert (name, channel, text) == ("my_talk", "1", word.text)
        assert float(start) == pytest.approx(word.start, abs=0.006)
        assert float(duration) == pytest.approx(
            word.end - word.start, abs=0.006
        )
        assert 0 <= float(confidence) <= 1
