"""Oracle: utterances made to lie on either side of each limit."""

import pytest

from keras_ds2.data.checks import (
    Rejected,
    check_utterances,
    describe_rejected,
)
from keras_ds2.data.corpus import CorpusError, Utterance


def num_frames(num_samples):
    return num_samples // 1600  # Ten frames per second.


def check(*rows, **kwargs):
    rows = [Utterance(f"{i}.wav", *row) for i, row in enumerate(rows)]
    kept, rejected = check_utterances(
        rows, num_frames, on_invalid="skip", **kwargs
    )
    assert len(kept) + len(rejected) == len(rows)
    assert kept == [
        row for row in rows if row not in [r.utterance for r in rejected]
    ]
    return [r.reason for r in rejected], [r.detail for r in rejected]


def test_duration_limits_are_inclusive():
    rows = [("go", 0.9), ("go", 1.0), ("go", 2.0), ("go", 2.1)]
    reasons, details = check(*rows, min_duration=1.0, max_duration=2.0)
    assert reasons == ["too_short", "too_long"]
    assert "0.900 s, less than min_duration=1.0" in details[0]
    assert "2.100 s, more than max_duration=2.0" in details[1]
    assert check(*rows) == ([], [])


def test_unknown_characters_are_named():
    reasons, details = check(("room 12-b", 5.0), ("room", 5.0))
    assert reasons == ["unknown_characters"]
    assert "'-12'" in details[0]
    reasons, _ = check(("ab", 5.0), alphabet="a")
    assert reasons == ["unknown_characters"]


@pytest.mark.parametrize(
    ("text", "required"),
    [("abc", 3), ("hello", 6), ("aaaa", 7), ("", 1), ("a", 1)],
)
def test_infeasible_for_ctc(text, required):
    # A frame lasts 0.1 s: one frame too few, and just enough.
    reasons, details = check((text, (required - 1) / 10), (text, required / 10))
    assert reasons == ["infeasible"]
    assert f"need {required} output frames" in details[0]
    assert f"give {required - 1}." in details[0]


def test_sampling_rate_is_heeded():
    assert check(("abc", 0.3))[0] == []
    assert check(("abc", 0.3), sampling_rate=8000)[0] == ["infeasible"]


def test_samples_are_counted_without_loss():
    counts = []
    # 1001 / 16000 * 16000 is a little below 1001 in floating point.
    rows = [Utterance("a.wav", "", num / 16000) for num in (1001, 17600)]
    check_utterances(rows, lambda num_samples: counts.append(num_samples) or 1)
    assert counts == [1001, 17600]


def test_one_reason_per_utterance():
    reasons, _ = check(("\u00e9" * 99, 0.1), min_duration=1.0)
    assert reasons == ["too_short"]


def test_error_counts_all_and_names_the_first_few():
    rows = [
        Utterance("a.wav", "go", 9.0, source=f"train.jsonl:{line}")
        for line in range(1, 9)
    ] + [Utterance("b.wav", "10", 1.0)]

    with pytest.raises(CorpusError) as caught:
        check_utterances(rows, num_frames, max_duration=5.0)

    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "9 utterance(s) cannot be used: 8 too_long, 1 unknown_characters"
    )
    assert lines[1].startswith("  train.jsonl:1: Lasts 9.000 s")
    assert lines[5].startswith("  train.jsonl:5: ")
    assert lines[6] == "  ... and 4 more"
    assert "on_invalid='skip'" in lines[7]


def test_without_source_the_audio_is_named():
    text = describe_rejected([Rejected(Utterance("b.wav", ""), "empty", "!")])
    assert text.splitlines()[1] == "  b.wav: !"


def test_usable_utterances_raise_nothing():
    rows = [Utterance("a.wav", "go", 1.0)]
    assert check_utterances(iter(rows), num_frames) == (rows, [])


def test_unknown_duration():
    with pytest.raises(ValueError, match="'a.wav' has no duration"):
        check_utterances([Utterance("a.wav", "go")], num_frames)


def test_invalid_on_invalid():
    with pytest.raises(ValueError, match="Received: on_invalid='drop'"):
        check_utterances([], num_frames, on_invalid="drop")
