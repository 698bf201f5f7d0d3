"""What a consumer of an exported model has to know beside the graph."""

import json


def flat_name(name):
    """A name of `StreamingStep`'s state, as inputs of graphs may be called.

    What goes in as `conv_1_0` comes out, for the next chunk, as
    `next_conv_1_0`.
    """
    return name.replace(".", "_")


def metadata_of(model, step=None):
    """Returns a dictionary of strings.

    Args:
        model: `SpeechRecognizer`.
        step: `StreamingStep`, if that is exported. Defaults to `None`.
    """
    log_mel = model.get_layer("log_mel")
    metadata = {
        "alphabet": model.alphabet,
        "blank_index": model.ctc.blank_index,
        "frame_duration": model.frame_duration,
        "min_samples": log_mel.sequence_length,
        "sampling_rate": log_mel.sampling_rate,
    }
    if step is not None:
        state = {
            flat_name(name): {"shape": list(shape), "dtype": dtype}
            for name, (shape, dtype) in step.state_shapes.items()
        }
        metadata.update(
            chunk_size=step.chunk_size,
            delay=step.delay,
            state=json.dumps(state),
        )
    return {name: str(value) for name, value in metadata.items()}
