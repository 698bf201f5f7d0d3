"""An evaluation in, one HTML file out that needs nothing else."""

import base64
import hashlib
import html
import os
import string
from collections.abc import Sequence
from importlib import resources

from keras_ds2.audio import AudioError
from keras_ds2.report.breakdown import (
    Group,
    ScoredUtterance,
    by_corpus,
    by_length,
    by_speaker,
    score,
    summarize,
)
from keras_ds2.report.tables import (
    all_confusions,
    clock,
    escape,
    groups,
    headline,
    overview,
)
from keras_ds2.report.utterances import (
    article,
    audio_uri,
    common_folder,
    player,
)
from keras_ds2.training.evaluate import Evaluation

# Fewer give intervals that miss more often than they say (docs/evaluation.md).
_FEW = 10


def write_report(
    evaluation: Evaluation,
    path: str | os.PathLike[str],
    num_worst: int = 20,
    title: str = "Errors of speech recognition",
    max_megabytes: float = 25.0,
) -> None:
    """Writes what an evaluation found as one HTML file for people.

    WER and CER with 95 % intervals, over all, by corpus, speaker and length
    of the utterance; what was taken for what; the worst utterances, aligned
    word by word and to be listened to. The file holds everything it shows,
    sound included, and loads nothing.

    Args:
        evaluation: What `evaluate` returned.
        path: File to write, such as `"report.html"`.
        num_worst: Integer. Utterances that are shown one by one. Defaults to
            `20`.
        title: String, above the page. Defaults to
            `"Errors of speech recognition"`.
        max_megabytes: Float, in 10^6 bytes. The file is not larger: sound is
            put in from the worst utterance on while there is room, and left
            out visibly where there is none. Defaults to `25.0`.

    Raises:
        ValueError: If there are no utterances, an argument is out of range,
            or the page exceeds `max_megabytes` without any sound.
        OSError: If the file cannot be written.

    Example:

    >>> import os, tempfile
    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> dataset = keras_ds2.data.prepare_dataset(
    ...     "tests/data/LibriSpeech", ["dev-clips"], model, batch_size=2
    ... )
    >>> result = keras_ds2.evaluate(model, dataset)
    >>> page = os.path.join(tempfile.mkdtemp(), "report.html")
    >>> keras_ds2.write_report(result, page, title="An untrained model")
    >>> with open(page) as file:
    ...     "<h1>An untrained model</h1>" in file.read()
    True
    """
    if not evaluation.utterances:
        raise ValueError(
            "`evaluation` must have utterances; it has none. Evaluate a data "
            "set that is not empty."
        )
    if num_worst < 0:
        raise ValueError(
            f"`num_worst` must be 0 or more. Received: num_worst={num_worst}"
        )
    scored = score(evaluation.utterances)
    text = _fill(scored, num_worst, title, round(max_megabytes * 1e6))
    with open(path, "wb") as file:
        file.write(text)


def _fill(
    scored: Sequence[ScoredUtterance],
    num_worst: int,
    title: str,
    max_bytes: int,
) -> bytes:
    template = resources.files("keras_ds2.report").joinpath("template.html")
    source = template.read_text(encoding="utf-8")
    worst = scored[:num_worst]
    limit = f"{max_bytes / 1e6:g} MB"
    everything = summarize("All", scored)
    parts = {
        "script_hash": _script_hash(source),
        "title": html.escape(title),
        "headlines": headline("WER", everything.words)
        + headline("CER", everything.characters),
        "summary": _summary(everything),
        "overview": overview(everything),
        "tables": _tables(scored),
        "words": all_confusions("word", scored),
        "characters": all_confusions("character", scored),
        "num_worst": str(len(worst)),
        "limit": limit,
    }

    def page(articles: Sequence[str]) -> bytes:
        return _encode(
            string.Template(source).substitute(
                parts, articles="".join(articles)
            )
        )

    folder = common_folder([one.item.audio for one in scored])
    note = f"The recording is left out: the page would exceed {limit}."
    articles = [
        article(number, one, folder, _note(note))
        for number, one in enumerate(worst, start=1)
    ]
    room = max_bytes - len(page(articles))
    if room < 0:
        raise ValueError(
            f"The page has {(max_bytes - room) / 1e6:.1f} MB without any "
            f"sound. Raise `max_megabytes` or lower `num_worst`. Received: "
            f"max_megabytes={max_bytes / 1e6:g}"
        )
    for index, one in enumerate(worst):
        sound = _sound(index + 1, one.item.audio)
        with_sound = article(index + 1, one, folder, sound)
        growth = len(_encode(with_sound)) - len(_encode(articles[index]))
        if growth <= room:
            articles[index] = with_sound
            room -= growth
    return page(articles)


def _encode(text: str) -> bytes:
    # Names of files may hold bytes that are not UTF-8.
    return text.encode(errors="replace")


def _script_hash(source: str) -> str:
    """Lets the template's script run, and no other that got into the page."""
    script = source.partition("<script>")[2].partition("</script>")[0]
    digest = hashlib.sha256(script.encode()).digest()
    return base64.b64encode(digest).decode()


def _sound(number: int, path: str) -> str:
    try:
        return player(number, audio_uri(path))
    except AudioError as error:
        reason = escape(f"{error.reason}: it {error.detail}")
        return _note(f"No recording, {reason}")


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def _summary(group: Group) -> str:
    sentences = [
        f"{group.num_utterances:,} utterances, "
        f"{group.words.edits.units:,} words, {clock(group.seconds)} of speech "
        f"(h:mm:ss). The intervals come from drawing "
        f"{group.words.resampled} with replacement, 2000 times."
    ]
    count, kind = group.words.resampled.split()
    if kind == "utterances":
        sentences.append(
            "Speakers are unknown, or there is one only: the intervals do not "
            "tell how other speakers would fare."
        )
    if int(count) < _FEW:
        sentences.append(
            f"So few {kind} give intervals that are rather too narrow."
        )
    return " ".join(sentences)


def _tables(scored: Sequence[ScoredUtterance]) -> str:
    tables = []
    if any(one.item.corpus for one in scored):
        tables.append(groups("By corpus", "Corpus", by_corpus(scored)))
    tables.append(
        groups("By length of the utterance", "Length", by_length(scored))
    )
    if any(one.item.speaker for one in scored):
        tables.append(groups("By speaker", "Speaker", by_speaker(scored)))
    return "".join(tables)
