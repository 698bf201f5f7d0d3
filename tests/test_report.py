"""Oracles: jiwer, counts by hand, Python's HTML parser, and a browser."""

import base64
import hashlib
import html.parser
import io
import pathlib
import re
import shutil
import subprocess

import jiwer
import keras
import numpy as np
import pytest
import soundfile
from browser import CHROMIUM

import keras_ds2
from keras_ds2.training.evaluate import Evaluation, TranscribedUtterance

DATA = pathlib.Path(__file__).parent / "data"
CLIPS = sorted((DATA / "LibriSpeech").rglob("*.opus"))
HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "img", "input"}


def utterance(audio, reference, hypothesis, **facts):
    wer = jiwer.wer(reference, hypothesis)
    return TranscribedUtterance(str(audio), reference, hypothesis, wer, **facts)


def evaluation(*items):
    items = sorted(items, key=lambda item: -item.wer)
    references = [item.reference for item in items]
    hypotheses = [item.hypothesis for item in items]
    return Evaluation(
        jiwer.wer(references, hypotheses),
        jiwer.cer(references, hypotheses),
        items,
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Two corpora, three speakers, four lengths, and enmity."""
    folder = tmp_path_factory.mktemp("audio")
    named = folder / '"><img src=x onerror=alert(1)>.wav'
    tone = np.sin(np.arange(8000) * 0.3)
    soundfile.write(named, 0.1 * tone, samplerate=8000)
    time = keras_ds2.TimedText
    return evaluation(
        utterance(
            CLIPS[0],
            "see the sea",
            "sea the",
            duration=2.5,
            speaker="ann",
            corpus="shore",
            words=(time("sea", 0.5, 0.75, 1.0), time("the", 1.0, 1.1, 1.0)),
        ),
        utterance(
            CLIPS[1],
            "see a ship",
            "sea a ship",
            duration=3.5,
            speaker="bob",
            corpus="shore",
        ),
        utterance(
            named,
            f"go {HOSTILE}",
            'go "><b/onclick=alert(1)>&amp;$title',
            duration=1.0,
            speaker="</td><script>",
            corpus="<!-- --> $words",
        ),
        utterance(
            folder / "gone\udcff.wav",
            "go on",
            "go on then",
            duration=40.0,
            speaker="ann",
            corpus="shore",
        ),
    )


@pytest.fixture(scope="module")
def path(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    keras_ds2.write_report(result, path, title=f"A & B {HOSTILE}")
    return path


class Page(html.parser.HTMLParser):
    """What a page holds, and that each element is closed where it should."""

    def __init__(self, path):
        super().__init__()
        self.elements = []  # tag, attributes
        self.tables = {}
        self.text = ""  # as it is read out
        self.scripts = []
        self._open, self._hidden = [], []
        content = path.read_text(encoding="utf-8")
        self.feed(content)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            hidden = dict(attrs).get("aria-hidden") == "true"
            self._hidden.append(hidden or any(self._hidden[-1:]))
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, self.getpos()
        self._hidden.pop()
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        if "script" in self._open:
            self.scripts.append(data)
        elif "caption" in self._open:
            self._caption += data
        elif "td" in self._open or "th" in self._open:
            self._rows[-1][-1] += data
        elif "style" not in self._open and not any(self._hidden):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(path):
    return Page(path)


def column(table, name):
    heads, *rows = table
    place = [head.replace("\u00a0", " ") for head in heads].index(name)
    return {row[0]: row[place] for row in rows}


def test_rates_are_those_of_jiwer(page, result):
    for name, key in (("By corpus", "corpus"), ("By speaker", "speaker")):
        groups = {}
        for item in result.utterances:
            label = getattr(item, key)
            if key == "speaker":
                label = f"{item.corpus}: {label}"
            groups.setdefault(label, []).append(item)
        wer = column(page.tables[name], "WER %")
        cer = column(page.tables[name], "CER %")
        assert set(wer) == set(groups)
        for label, items in groups.items():
            texts = (
                [item.reference for item in items],
                [item.hypothesis for item in items],
            )
            assert wer[label] == f"{100 * jiwer.wer(*texts):.2f}"
            assert cer[label] == f"{100 * jiwer.cer(*texts):.2f}"
    assert f"{100 * result.wer:.2f} %" in page.text
    assert f"{100 * result.cer:.2f} %" in page.text


def test_counts_by_hand(page):
    # "see" and "sea" of 8 words, "then" beyond them.
    corpus = page.tables["By corpus"]
    assert column(corpus, "Utterances")["shore"] == "3"
    assert column(corpus, "Words")["shore"] == "8"
    assert column(corpus, "Speech, h:mm:ss")["shore"] == "0:00:46"
    assert column(corpus, "Substituted")["shore"] == "2"
    assert column(corpus, "Deleted")["shore"] == "1"
    assert column(corpus, "Inserted")["shore"] == "1"
    assert column(corpus, "Drawn")["shore"] == "2 speakers"
    # Ann 3 errors in 5 words, Bob 1 in 3: drawn are both, or one twice.
    interval = column(corpus, "95 % interval of WER")["shore"]
    assert interval == "33.3 to 60.0"
    lengths = column(page.tables["By length of the utterance"], "Utterances")
    assert list(lengths) == [
        "1 to 2 s",
        "2 to 3 s",
        "3 to 5 s",
        "30 s and more",
    ]
    speakers = page.tables["By speaker"]
    rates = list(map(float, column(speakers, "WER %").values()))
    assert rates == sorted(rates, reverse=True)
    alone = column(speakers, "95 % interval of WER")
    assert alone["shore: bob"] == "–"  # one utterance


def test_confusions_by_hand(page):
    [substituted] = [
        table
        for caption, table in page.tables.items()
        if caption.startswith("Words substituted most")
    ]
    assert substituted[0] == ["Said", "Heard", "Times", "Of"]
    assert substituted[1] == ["see", "sea", "2", "2"]
    deleted = page.tables["Words deleted most (1 of 1)"]
    assert deleted[1:] == [["sea", "1", "1"]]
    assert ["then", "1"] in [
        row
        for caption, table in page.tables.items()
        if caption.startswith("Words inserted most")
        for row in table
    ]
    assert any(
        row[0] == "space"
        for caption, table in page.tables.items()
        if caption.startswith("Characters deleted most")
        for row in table
    )


def test_nothing_hostile_becomes_markup(page):
    [script] = page.scripts
    assert "alert" not in script
    assert not [
        name
        for _, attrs in page.elements
        for name in attrs
        if name.startswith("on")
    ]
    assert not page.all("img") and not page.all("b")
    # And it is there, as text.
    assert HOSTILE in page.text
    assert '"><b/onclick=alert(1)>&amp;$title' in page.text
    assert "<!-- --> $words" in column(page.tables["By corpus"], "WER %")
    # Only the page's own script may run.
    [policy] = [m for m in page.all("meta") if "http-equiv" in m]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest())
    assert f"script-src 'sha256-{digest.decode()}'" in policy["content"]
    assert "default-src 'none'" in policy["content"]


def test_nothing_is_loaded_from_elsewhere(page, path):
    for tag, attrs in page.elements:
        for name in ("href", "src", "data", "action", "poster", "srcset"):
            if name in attrs:
                assert attrs[name].startswith(("#", "data:")), (tag, attrs)
    content = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(", content)


def test_can_be_read_aloud_and_without_colors(page):
    assert page.all("html") == [{"lang": "en"}]
    headings = [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings == ["h1", "h2", "h2", "h2"] + ["h3"] * 4
    assert page.tables and all(page.tables)  # each has a caption
    assert len(page.all("table")) == len(page.all("caption"))
    assert {head.get("scope") for head in page.all("th")} == {"col", "row"}
    regions = [div for div in page.all("div") if div.get("class") == "scroll"]
    assert all(div["tabindex"] == "0" for div in regions)
    assert all(div["aria-label"] in page.tables for div in regions)
    assert all("aria-label" in audio for audio in page.all("audio"))
    for told in ("substituted see by sea", "deleted sea", "inserted then"):
        assert told in page.text
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = [attrs.get("aria-labelledby") for _, attrs in page.elements]
    assert set(filter(None, named)) <= set(ids)


def test_times_of_words(page):
    starts = [
        attrs["data-start"]
        for _, attrs in page.elements
        if "data-start" in attrs
    ]
    assert starts == ["0.50", "1.00"]


def sounds(path):
    return [audio["src"] for audio in Page(path).all("audio")]


def test_sound_is_in_the_page(path, result):
    opus, wav, _ = sounds(path)
    kind, _, content = opus.partition(",")
    assert kind == "data:audio/ogg;base64"
    assert base64.b64decode(content) == CLIPS[0].read_bytes()
    kind, _, content = wav.partition(",")
    assert kind == "data:audio/ogg;base64"
    content = base64.b64decode(content)
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        assert (file.format, file.subtype) == ("OGG", "OPUS")
        assert file.frames / file.samplerate == pytest.approx(1, abs=0.02)
    assert len(content) < 8000
    assert "No recording, missing" in Page(path).text


def test_page_is_not_larger_than_asked_for(result, tmp_path):
    path = tmp_path / "report.html"
    sizes = []
    for megabytes in (0.03, 0.05, 0.07):
        keras_ds2.write_report(result, path, max_megabytes=megabytes)
        assert path.stat().st_size <= megabytes * 1e6
        left_out = Page(path).text.count("The recording is left out")
        sizes.append((len(sounds(path)), left_out))
    assert sizes[0][1] > 0 and sizes[-1] == (3, 0)
    assert [shown for shown, _ in sizes] == sorted(shown for shown, _ in sizes)
    with pytest.raises(ValueError, match="Raise `max_megabytes`"):
        keras_ds2.write_report(result, path, max_megabytes=0.001)


def test_number_of_worst(result, tmp_path):
    path = tmp_path / "report.html"
    keras_ds2.write_report(result, path, num_worst=0)
    assert not sounds(path)
    with pytest.raises(ValueError, match="num_worst=-1"):
        keras_ds2.write_report(result, path, num_worst=-1)
    with pytest.raises(ValueError, match="it has none"):
        keras_ds2.write_report(Evaluation(0.0, 0.0, []), path)


def test_little_is_known(tmp_path):
    path = tmp_path / "report.html"
    items = [
        utterance("a.wav", "", ""),
        utterance("/b.wav", "", "oh"),
        utterance("c.wav", "go on", "go on"),
    ]
    keras_ds2.write_report(evaluation(*items), path)
    page = Page(path)
    assert "Speakers are unknown" in page.text
    assert "Nothing was said, and nothing was heard." in page.text
    assert "No words were substituted." in page.text
    assert "By speaker" not in page.tables
    assert "By corpus" not in page.tables
    lengths = page.tables["By length of the utterance"]
    assert column(lengths, "WER %") == {"unknown": "50.00"}


def test_decoder_gives_times():
    model = keras.models.load_model(DATA / "tiny.keras")
    dataset = keras_ds2.data.prepare_dataset(
        DATA / "LibriSpeech", ["dev-clips"], model, batch_size=2
    )
    decoder = keras_ds2.BeamSearchDecoder(beam_width=4)
    result = keras_ds2.evaluate(model, dataset, decoder)
    [(inputs, _)] = dataset.one_pass()
    texts = model.transcribe_batch(inputs, decoder)
    assert all(texts)
    assert {item.hypothesis for item in result.utterances} == set(texts)
    for item in result.utterances:
        assert " ".join(word.text for word in item.words) == item.hypothesis
        ends = [time for word in item.words for time in (word.start, word.end)]
        assert ends == sorted(ends)
        assert all(0 <= time <= item.duration for time in ends)
        assert item.corpus == "dev-clips"
        assert item.speaker in item.audio.split("/")


# === In a browser ===


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("chromium"), reason="chromium is not installed"
)
@pytest.mark.parametrize("width", [500, 1300])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_browser_shows_the_page(path, tmp_path, width, scheme):
    from matplotlib import image

    def browse(*options):
        done = subprocess.run(
            [
                *CHROMIUM,
                "--enable-logging=stderr",
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--blink-settings=preferredColorScheme={scheme == 'light':d}",
                f"--window-size={width},2000",
                *options,
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    shot = tmp_path / "shot.png"
    browse(f"--screenshot={shot}")
    pixels = image.imread(shot)[..., :3]  # (height, width, 3)
    assert pixels.shape == (2000, width, 3)
    background = pixels[2, 2].mean()
    assert background > 0.9 if scheme == "light" else background < 0.2
    # Letters and lines, some of them in color, and mostly background.
    differs = np.abs(pixels - pixels[2, 2]).max(axis=-1) > 0.2
    assert 0.01 < differs.mean() < 0.5
    assert (np.ptp(pixels, axis=-1) > 0.3).mean() > 3e-4
    # Its script ran, despite the policy: heads and times are buttons.
    document = browse("--dump-dom")
    assert document.count('<button type="button">') == 3 * 12 + 2
