"""What one service does at most, each limit with its default."""

from dataclasses import dataclass, field
from typing import Any


def _limit(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Limits:
    """Limits of a service; `keras-ds2 serve` has a flag for each.

    All are positive; `metadata["help"]` of each field says what it bounds.

    Example:

    >>> from keras_ds2.serving.limits import Limits
    >>> Limits(max_streams=8).max_message
    262144
    """

    max_streams: int = _limit(64, "streams that are open at a time")
    max_files: int = _limit(
        4, "files at a time: received, waiting, or transcribed one by one"
    )
    max_requests: int = _limit(
        120, "files, subtitles and streams of one address in a minute"
    )
    max_upload: int = _limit(100_000_000, "bytes of a request")
    max_message: int = _limit(262_144, "bytes of a message of a stream")
    max_file_duration: float = _limit(3600.0, "seconds of a file")
    max_stream_duration: float = _limit(3600.0, "seconds of a stream")
    max_backlog: float = _limit(
        2.0, "seconds of a stream that wait; then its client has to"
    )
    upload_timeout: float = _limit(120.0, "seconds until a request has come")
    idle_timeout: float = _limit(30.0, "seconds that a stream may be silent")
    send_timeout: float = _limit(10.0, "seconds that a reader may be slow")
    shutdown_timeout: float = _limit(
        10.0, "seconds to end streams and files in when the service ends"
    )
