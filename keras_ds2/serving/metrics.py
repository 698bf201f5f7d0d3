"""What a service counts, in the text format of Prometheus."""

import prometheus_client

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

_STREAMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)


class Metrics:
    """Counters of one service.

    Example:

    >>> from keras_ds2.serving.metrics import Metrics
    >>> metrics = Metrics()
    >>> metrics.streams_open.inc()
    >>> "keras_ds2_streams_open 1.0" in metrics.render().decode()
    True
    """

    def __init__(self) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        self.requests = self._make(
            prometheus_client.Counter,
            "requests",
            "HTTP requests that were answered.",
            ["path", "status"],
        )
        self.streams_open = self._make(
            prometheus_client.Gauge, "streams_open", "Streams that are open."
        )
        self.streams = self._make(
            prometheus_client.Counter,
            "streams",
            "Streams that ended, by the code that they were closed with.",
            ["code"],
        )
        self.files_open = self._make(
            prometheus_client.Gauge,
            "files_open",
            "Files that are received, wait, or are transcribed.",
        )
        self.audio_seconds = self._make(
            prometheus_client.Counter,
            "audio_seconds",
            "Seconds of audio that were transcribed.",
            ["source"],
        )
        self.step_seconds = self._make(
            prometheus_client.Histogram,
            "step_seconds",
            "Seconds of one step of all streams that had a chunk.",
            buckets=_SECONDS,
        )
        self.step_streams = self._make(
            prometheus_client.Histogram,
            "step_streams",
            "Streams in one step.",
            buckets=_STREAMS,
        )

    def render(self) -> bytes:
        """Returns all of them as text."""
        return prometheus_client.generate_latest(self._registry)

    def _make(self, kind, name, text, labels=(), **options):
        return kind(
            f"keras_ds2_{name}",
            text,
            labels,
            registry=self._registry,
            **options,
        )
