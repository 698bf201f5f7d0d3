// Samples in, a mel spectrogram on a canvas out: 64 bands of pitch, low ones
// below, windows of 25 ms. It is for the eye; the service has its own.

const WINDOW = 0.025;
const STEP = 0.01;
const NUM_BANDS = 64;
const LOWEST = 50;
const HIGHEST = 8000;
// Decibels below full scale of the darkest and of the brightest color.
const RANGE = [-95, -35];
const COLORS = [[11, 16, 38], [38, 66, 138], [32, 144, 140], [140, 205, 90], [255, 240, 120]];

export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    canvas.height = NUM_BANDS;
  }

  /** Empties the picture, for samples of a rate, a column every so many. */
  begin(rate, step = STEP * rate) {
    this.step = step;
    this.size = Math.round(WINDOW * rate);
    this.transform = new Transform(this.size);
    this.bands = makeBands(this.transform.length, rate);
    this.rest = new Float32Array(0);
    this.next = 0; // where in the rest the next window begins
    this.column = 0;
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Draws what comes next. At the right end it goes on from the left. */
  push(samples) {
    const all = new Float32Array(this.rest.length + samples.length);
    all.set(this.rest);
    all.set(samples, this.rest.length);
    for (; this.next + this.size <= all.length; this.next += this.step) {
      const start = Math.floor(this.next);
      this.draw(this.transform.powers(all.subarray(start, start + this.size)));
    }
    const done = Math.min(Math.floor(this.next), all.length);
    this.rest = all.slice(done);
    this.next -= done;
  }

  draw(powers) {
    const image = this.context.createImageData(1, NUM_BANDS);
    this.bands.forEach(({ first, weights }, band) => {
      let power = 1e-12;
      weights.forEach((weight, i) => { power += weight * powers[first + i]; });
      const level = (10 * Math.log10(power) - RANGE[0]) / (RANGE[1] - RANGE[0]);
      image.data.set(color(level), 4 * (NUM_BANDS - 1 - band));
    });
    const { width } = this.canvas;
    this.context.putImageData(image, this.column, 0);
    this.column = (this.column + 1) % width;
    this.context.clearRect(this.column, 0, 8, NUM_BANDS); // old and new apart
  }
}

function color(level) {
  const place = Math.max(0, Math.min(1, level)) * (COLORS.length - 1);
  const i = Math.min(Math.floor(place), COLORS.length - 2);
  const mix = (channel) => COLORS[i][channel] + (place - i) * (COLORS[i + 1][channel] - COLORS[i][channel]);
  return [mix(0), mix(1), mix(2), 255];
}

function makeBands(length, rate) {
  const mel = (hertz) => 2595 * Math.log10(1 + hertz / 700);
  const hertz = (mels) => 700 * (10 ** (mels / 2595) - 1);
  const low = mel(LOWEST);
  const high = mel(Math.min(HIGHEST, rate / 2));
  const edges = Array.from(
    { length: NUM_BANDS + 2 },
    (_, i) => (hertz(low + (i * (high - low)) / (NUM_BANDS + 1)) * length) / rate,
  );
  return edges.slice(2).map((end, i) => {
    const [start, peak] = edges.slice(i, i + 2);
    const first = Math.floor(start);
    const weights = Array.from({ length: Math.ceil(end) - first + 1 }, (_, j) => {
      const place = first + j;
      return Math.max(0, Math.min((place - start) / (peak - start), (end - place) / (end - peak)));
    });
    const sum = weights.reduce((a, b) => a + b, 0);
    // A band that is narrower than a bin takes the nearest.
    if (!sum) return { first: Math.round(peak), weights: [1] };
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** The fast Fourier transform of windows of one size. */
class Transform {
  constructor(size) {
    this.length = 2 ** Math.ceil(Math.log2(size));
    this.window = Float32Array.from({ length: size }, (_, i) => Math.sin((Math.PI * (i + 0.5)) / size) ** 2);
    this.real = new Float32Array(this.length);
    this.imaginary = new Float32Array(this.length);
  }

  /** Powers of the frequencies from 0 to half the rate; full scale is 1. */
  powers(samples) {
    const { real, imaginary, length } = this;
    real.fill(0);
    imaginary.fill(0);
    samples.forEach((sample, i) => { real[i] = sample * this.window[i]; });
    this.run();
    const scale = (4 / samples.length) ** 2;
    return Float32Array.from({ length: length / 2 + 2 }, (_, i) => scale * (real[i] ** 2 + imaginary[i] ** 2));
  }

  run() {
    const { real, imaginary, length } = this;
    for (let i = 1, j = 0; i < length; i++) {
      let bit = length >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) {
        [real[i], real[j]] = [real[j], real[i]];
        [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
      }
    }
    for (let half = 1; half < length; half *= 2) {
      for (let k = 0; k < half; k++) {
        const cosine = Math.cos((Math.PI * k) / half);
        const sine = -Math.sin((Math.PI * k) / half);
        for (let i = k; i < length; i += 2 * half) {
          const j = i + half;
          const a = real[j] * cosine - imaginary[j] * sine;
          const b = real[j] * sine + imaginary[j] * cosine;
          real[j] = real[i] - a;
          imaginary[j] = imaginary[i] - b;
          real[i] += a;
          imaginary[i] += b;
        }
      }
    }
  }
}
