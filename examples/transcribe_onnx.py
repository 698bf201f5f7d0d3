"""Transcribes a recording with ONNX Runtime alone, without TensorFlow.

    keras-ds2 export --output model.onnx an4
    pip install numpy onnxruntime soundfile
    python examples/transcribe_onnx.py model.onnx talk.wav

A file that was exported with `--streaming` needs `--stream`, which shows the
text grow chunk by chunk. The best symbol of each frame is taken; the recording
must have the rate of the model.
"""

import argparse
import json
import sys

import numpy as np
import onnxruntime
import soundfile


def greedy(logits, metadata, last=None):
    """The text of frames that follow a frame whose symbol was `last`."""
    blank, text = int(metadata["blank_index"]), ""
    for symbol in logits.argmax(axis=-1):
        if symbol != last and symbol != blank:
            text += metadata["alphabet"][symbol - (symbol > blank)]
        last = symbol
    return text, last


def transcribe(session, metadata, samples):
    """The text of a whole recording."""
    logits, logit_length = session.run(
        ["logits", "logit_length"],
        {
            "audio": samples[None],
            "audio_length": np.array([len(samples)], "int32"),
        },
    )
    text, _ = greedy(logits[0, : logit_length[0]], metadata)
    return " ".join(text.split())


def stream(session, metadata, samples):
    """The text so far, after each chunk."""
    names = [output.name for output in session.get_outputs()]
    size, rate = int(metadata["chunk_size"]), int(metadata["sampling_rate"])
    delay = int(metadata["delay"]) * float(metadata["frame_duration"]) * rate
    state = {
        name: np.zeros((1, *value["shape"]), value["dtype"])
        for name, value in json.loads(metadata["state"]).items()
    }
    text, last = "", None
    # A chunk that is not full ends the stream, and then come the last frames.
    for begin in range(0, len(samples) + round(delay) + 1, size):
        chunk = samples[begin : begin + size]
        outputs = session.run(
            names,
            {
                **state,
                "samples": np.pad(chunk, (0, size - len(chunk)))[None],
                "num_samples": np.array([len(chunk)], "int32"),
            },
        )
        values = dict(zip(names, outputs, strict=True))
        state = {name: values[f"next_{name}"] for name in state}
        known = values["is_real"][0]
        more, last = greedy(values["logits"][0, known], metadata, last)
        text += more
        yield " ".join(text.split())


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help=".onnx file")
    parser.add_argument("recording")
    parser.add_argument("--stream", action="store_true")
    args = parser.parse_args(argv)
    session = onnxruntime.InferenceSession(args.model)
    metadata = session.get_modelmeta().custom_metadata_map
    if args.stream != ("chunk_size" in metadata):
        sys.exit("--stream is for a file of `keras-ds2 export --streaming`.")
    samples, rate = soundfile.read(args.recording, dtype="float32")
    if rate != int(metadata["sampling_rate"]) or samples.ndim != 1:
        sys.exit(f"The model takes one channel, {metadata['sampling_rate']} Hz")
    if not args.stream:
        print(transcribe(session, metadata, samples))
        return
    for text in stream(session, metadata, samples):
        print(text, end="\r", flush=True)
    print(text)


if __name__ == "__main__":
    main()
