"use strict";
// In the audio thread: gathers samples, and hands them over as 16-bit integers.

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(2048);
    this.size = 0;
    this.isOver = false;
    this.port.onmessage = () => {
      this.isOver = true;
      this.flush();
      this.port.postMessage(null);
    };
  }

  flush() {
    const { buffer } = this.block.slice(0, this.size);
    this.size = 0;
    this.port.postMessage(buffer, [buffer]);
  }

  process([channels]) {
    if (this.isOver) return false;
    for (const sample of channels[0] ?? []) {
      const integer = Math.round(32768 * sample);
      this.block[this.size++] = Math.max(-32768, Math.min(32767, integer));
      if (this.size === this.block.length) this.flush();
    }
    return true;
  }
}

registerProcessor("capture", Capture);
