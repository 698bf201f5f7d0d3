"""One utterance in, its words one above the other and its sound out."""

import base64
import html
import io
import os
from collections.abc import Sequence

import soundfile

from keras_ds2.audio import audio_duration, load_audio
from keras_ds2.report.breakdown import ScoredUtterance
from keras_ds2.report.tables import escape, percent
from keras_ds2.scoring import Pair

# What browsers play and what is small already, by libsndfile's names.
_COMPRESSED = {"OGG": "audio/ogg", "MP3": "audio/mpeg"}
_MARKS = {
    "substitute": ("S", "substituted"),
    "delete": ("D", "deleted"),
    "insert": ("I", "inserted"),
}


def audio_uri(path: str) -> str:
    """Returns an audio file as a data URI; Ogg Opus unless it is compressed.

    Raises:
        AudioError: If the file is missing or unreadable.
    """
    audio_duration(path)  # Says clearly what is wrong with a file.
    # As bytes: soundfile refuses names that are not UTF-8.
    with soundfile.SoundFile(os.fsencode(path)) as header:
        kind = _COMPRESSED.get(header.format)
    if kind:
        with open(path, "rb") as file:
            content = file.read()
    else:
        kind = "audio/ogg"
        buffer = io.BytesIO()
        samples = load_audio(path, sampling_rate=16000)
        soundfile.write(buffer, samples, 16000, format="OGG", subtype="OPUS")
        content = buffer.getvalue()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def player(number: int, uri: str) -> str:
    """An audio element that needs no script."""
    return (
        f'<audio controls preload="metadata" aria-label="Recording {number}" '
        f'src="{html.escape(uri)}"></audio>'
    )


def article(
    number: int, scored: ScoredUtterance, folder: str, sound: str
) -> str:
    """Everything about one utterance.

    Args:
        number: Its place, from 1 on.
        scored: The utterance.
        folder: What all names of files begin with, to be left out.
        sound: HTML of the player, or of what stands in its place.
    """
    item, edits = scored.item, scored.word_edits
    rate = f"{percent(edits.rate, 0)} %" if edits.units else "unknown"
    counts = f"{_count(edits.total, 'error')} in {_count(edits.units, 'word')}"
    facts = [f"WER {rate} ({counts})"]
    facts.append(f"CER {percent(scored.character_edits.rate, 0)} %")
    if item.duration == item.duration:  # not NaN
        facts.append(f"{item.duration:.1f} s")
    if item.speaker:
        facts.append(f"speaker {escape(item.speaker)}")
    if item.corpus:
        facts.append(escape(item.corpus))
    name = os.path.relpath(item.audio, folder) if folder else item.audio
    return (
        f'<li><article aria-labelledby="utterance-{number}">\n'
        f'<h3 id="utterance-{number}">{number}. {escape(name)}</h3>\n'
        f'<p class="facts">{" · ".join(facts)}</p>\n{sound}\n'
        f"{_aligned(scored)}</article></li>\n"
    )


def common_folder(paths: Sequence[str]) -> str:
    """The folder that holds all files; empty if there is none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # Some paths are absolute, some are not.
        return ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _aligned(scored: ScoredUtterance) -> str:
    if not scored.words:
        return "<p>Nothing was said, and nothing was heard.</p>"
    times = iter(scored.item.words)
    cells = []
    for pair in scored.words:
        timed = next(times, None) if pair.kind != "delete" else None
        time = (
            f'<span class="time" data-start="{timed.start:.2f}">'
            f'{timed.start:.2f}<span class="hidden"> seconds</span></span>'
            if timed
            else ""
        )
        cells.append(_cell(pair) + time + "</li>")
    return f'<ol class="words" role="list">{"".join(cells)}</ol>\n'


def _cell(pair: Pair) -> str:
    """Reference above hypothesis; left open, for the time to follow."""
    said, heard = escape(pair.reference), escape(pair.hypothesis)
    if pair.kind == "equal":
        # Read out once.
        return f'<li><span>{said}</span><span aria-hidden="true">{heard}</span>'
    mark, verb = _MARKS[pair.kind]
    gap = '<span class="gap" aria-hidden="true">–</span>'
    above = f"<del>{said}</del>" if pair.reference else gap
    below = f"<ins>{heard}</ins>" if pair.hypothesis else gap
    joint = ' <span class="hidden">by</span> '
    return (
        f'<li class="{pair.kind}"><span><span class="hidden">{verb} </span>'
        f"{above}</span>{joint if pair.kind == 'substitute' else ''}"
        f'<span>{below}</span><span class="mark" aria-hidden="true">{mark}'
        "</span>"
    )
