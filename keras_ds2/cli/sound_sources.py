"""Where samples come from while they are made: a pipe, or a microphone.

A source is to be entered with `with`, and is iterated over once: 1-D float32
arrays in [-1, 1] at its `sampling_rate`. `num_lost` counts pieces of sound that
were lost; `problem` is a sentence if the end was none that one would expect.
"""

import queue
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

# How files begin that somebody may take for raw samples.
_HEADERS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff")

# Sound that may wait while the computer is busy, in blocks of 20 ms: 10 s.
_BLOCKS_PER_SECOND = 50
_MOST_BLOCKS = 500
# Without sound for so long, in seconds, a microphone must be gone.
_PATIENCE = 5.0


class StandardInput:
    """16-bit little-endian samples, as they come.

    Args:
        sampling_rate: Integer, Hz.
    """

    name = "standard input"

    def __init__(self, sampling_rate: int) -> None:
        self.sampling_rate = sampling_rate
        self.num_lost = 0
        self.problem: str | None = None

    def __enter__(self) -> "StandardInput":
        return self

    def __exit__(self, *_) -> None:
        pass

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields up to a tenth of a second at a time.

        Raises:
            ValueError: If it is no raw samples but a file of audio.
        """
        stdin: Any = sys.stdin.buffer  # typed without its `read1`
        size = self.sampling_rate // 5
        data = stdin.read1(size)
        if data.startswith(_HEADERS):
            raise ValueError(
                "Standard input is an audio file, not raw samples. Pass its "
                "name to `keras-ds2 transcribe`, or convert it: ffmpeg -i "
                f"FILE -f s16le -ac 1 -ar {self.sampling_rate} -"
            )
        half = b""
        while data:
            data = half + data
            half = data[len(data) // 2 * 2 :]
            samples = np.frombuffer(data[: len(data) - len(half)], "<i2")
            yield samples.astype("float32") / 32768
            data = stdin.read1(size)
        if half:
            self.problem = (
                "Standard input ended within a sample: it must be of 16 bits."
            )


class Microphone:
    """Records between `with` and its end; what was recorded waits in a queue.

    Args:
        device: Number of a device, a part of its name, or `None` for the
            system's default one.
        sampling_rate: Integer, Hz, or `None` for the device's own rate.

    Raises:
        ImportError, OSError: If sounddevice or PortAudio is missing.
        ValueError: If there is no such microphone.
    """

    def __init__(self, device: str | None = None, sampling_rate=None) -> None:
        self._sounddevice = _import_sounddevice()
        number = int(device) if device and device.isdecimal() else device
        try:
            found = self._sounddevice.query_devices(number, "input")
        except (ValueError, self._sounddevice.PortAudioError) as error:
            raise ValueError(
                "There is no "
                + ("microphone" if device is None else f"microphone '{device}'")
                + f" ({error}). `keras-ds2 stream --list-microphones` shows "
                "what there is."
            ) from error
        self.name = found["name"]
        self.sampling_rate = sampling_rate or round(found["default_samplerate"])
        self.num_lost = 0
        self.problem: str | None = None
        self._queue: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._device = found["index"]

    def __enter__(self) -> "Microphone":
        try:
            self._stream = self._sounddevice.InputStream(
                samplerate=self.sampling_rate,
                blocksize=self.sampling_rate // _BLOCKS_PER_SECOND,
                device=self._device,
                channels=1,
                dtype="float32",
                callback=self._take,
            )
            self._stream.start()
        except self._sounddevice.PortAudioError as error:
            raise OSError(
                f"Microphone '{self.name}' cannot be opened at "
                f"{self.sampling_rate} Hz: {error}"
            ) from error
        return self

    def __exit__(self, *_) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields 1-D float32 arrays, until the microphone is gone."""
        while True:
            try:
                yield self._queue.get(timeout=_PATIENCE)
            except queue.Empty:
                self.problem = f"No more sound comes from '{self.name}'."
                return

    def _take(self, samples, num_samples, time, status) -> None:
        """Called by PortAudio, in a thread of its own, which must not wait."""
        self.num_lost += status.input_overflow
        if self._queue.qsize() < _MOST_BLOCKS:
            self._queue.put(samples[:, 0].copy())
        else:
            self.num_lost += 1


def list_microphones() -> list[str]:
    """Describes all microphones, a line each; the default one has a `*`.

    Raises:
        ImportError, OSError: If sounddevice or PortAudio is missing.
        ValueError: If there is none.
    """
    sounddevice = _import_sounddevice()
    default = sounddevice.default.device[0]
    lines = [
        f"{'*' if device['index'] == default else ' '} {device['index']:3}  "
        f"{device['name']}, {device['default_samplerate']:g} Hz"
        for device in sounddevice.query_devices()
        if device["max_input_channels"]
    ]
    if not lines:
        raise ValueError("There is no microphone.")
    return lines


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise ImportError(
            "Listening to a microphone needs sounddevice: pip install "
            "'keras_ds2[mic]'. Without it, `-` reads samples from standard "
            "input."
        ) from error
    except OSError as error:  # its wheel for Linux is without PortAudio
        raise OSError(
            f"Listening to a microphone needs PortAudio ({error}): "
            "apt-get install libportaudio2, or your system's package of it."
        ) from error
    return sounddevice
