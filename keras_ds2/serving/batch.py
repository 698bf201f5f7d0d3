"""Many streams, one step: whoever has a full chunk takes part in the next."""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_ds2.decoding.hypothesis import Hypothesis
from keras_ds2.serving.limits import Limits
from keras_ds2.serving.metrics import Metrics
from keras_ds2.serving.stream import Refused, Stream

_logger = logging.getLogger(__name__)


class StreamBatcher:
    """Runs one `StreamingStep` for all streams that are open.

    The states of all streams stand in arrays that were made once, a row for
    each stream: a batch is a copy of some rows, and goes back to them. Memory
    does not depend on who comes and goes. Batches have as many rows as there
    are chunks, which the step, traced once for all batch sizes, does not
    mind. While a step runs, chunks for the next gather.

    Args:
        step: `StreamingStep`.
        decoder: `BeamSearchDecoder`, or `None`. Defaults to `None`.
        limits: `Limits`. Defaults to `None`, the default ones.
        metrics: `Metrics`. Defaults to `None`, new ones.
    """

    def __init__(self, step, decoder=None, limits=None, metrics=None):
        self._step = step
        self._decoder = decoder
        self._limits = limits or Limits()
        self._metrics = metrics or Metrics()
        num_rows = self._limits.max_streams
        self._initial = {
            name: np.array(value[0])
            for name, value in step.initial_state().items()
        }
        self._states = {
            name: np.stack([value] * num_rows)
            for name, value in self._initial.items()
        }
        self._free = list(range(num_rows))
        self._open = set()
        self._leaving = set()
        self._is_draining = False
        self._wake = asyncio.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="streams")
        self._run_step([0], [(np.zeros(step.chunk_size, "float32"), 0)])
        self._reset(0)  # it was only to be traced before anyone waits

    @property
    def is_draining(self):
        """Whether the service is about to end."""
        return self._is_draining

    @property
    def num_open(self):
        """Streams that are open."""
        return len(self._open)

    def open(self):
        """Returns a new `Stream`.

        Raises:
            Refused: If there are too many, or the service is about to end.
        """
        if self._is_draining:
            raise Refused(1013, "The service is about to end. Try again.")
        if not self._free:
            raise Refused(
                1013,
                f"All {self._limits.max_streams} streams are in use. Try "
                "again later.",
            )
        stream = Stream(
            self._step,
            self._decoder,
            self._free[-1],
            self._limits.max_backlog,
            self._wake.set,
        )
        self._reset(self._free.pop())
        self._open.add(stream)
        self._metrics.streams_open.set(len(self._open))
        return stream

    def close(self, stream):
        """Forgets a stream, whatever it is doing."""
        # Not now: a step that runs may be about to write its row.
        self._leaving.add(stream)
        self._wake.set()

    def drain(self):
        """Opens no more streams, and ends those that are open."""
        self._is_draining = True
        for stream in self._open:
            stream.end(1001, "The service ends.")

    async def run(self):
        """Runs steps, for ever."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._let_go()
                self._wake.clear()
                batch = [stream for stream in self._open if stream.is_ready()]
                if not batch:
                    await self._wake.wait()
                    continue
                chunks = [stream.next_chunk() for stream in batch]
                outcomes = await loop.run_in_executor(
                    self._executor, self._advance, batch, chunks
                )
                for stream, outcome in zip(batch, outcomes, strict=True):
                    if isinstance(outcome, Hypothesis):
                        self._reset(stream.row)
                    problem = _try(stream.deliver, outcome)
                    if problem is not None:
                        stream.deliver(problem)
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _let_go(self):
        for stream in self._leaving & self._open:
            self._open.remove(stream)
            self._free.append(stream.row)
        self._leaving.clear()
        self._metrics.streams_open.set(len(self._open))

    def _reset(self, row):
        for name, value in self._initial.items():
            self._states[name][row] = value

    # === In a thread of its own ===

    def _advance(self, batch, chunks):
        """Returns for each stream what it knows now, or what went wrong."""
        running = [i for i, chunk in enumerate(chunks) if chunk is not None]
        results: list[Sequence] = [()] * len(batch)
        if running:
            try:
                logits, is_real = self._run_step(
                    [batch[i].row for i in running],
                    [chunks[i] for i in running],
                )
            except Exception as error:
                _logger.exception("A step of %d streams failed", len(running))
                return [error] * len(batch)
            for i, *result in zip(running, logits, is_real, strict=True):
                results[i] = result
        return [
            _try(stream.advance, *result)
            for stream, result in zip(batch, results, strict=True)
        ]

    def _run_step(self, rows, chunks):
        began = time.monotonic()
        samples, num_samples = zip(*chunks, strict=True)
        logits, is_real, states = self._step(
            {name: value[rows] for name, value in self._states.items()},
            np.stack(samples),
            num_samples,
        )
        for name, value in states.items():
            self._states[name][rows] = value
        self._metrics.step_seconds.observe(time.monotonic() - began)
        self._metrics.step_streams.observe(len(rows))
        self._metrics.audio_seconds.labels("stream").inc(
            sum(num_samples) / self._step.sampling_rate
        )
        return logits.numpy(), is_real.numpy()


def _try(function, *arguments):
    """The failure of one stream is not that of the others."""
    try:
        return function(*arguments)
    except Exception as error:
        _logger.exception("A stream failed")
        return error
