// Numbers behind the pictures: peaks of a waveform, and a spectrogram by a fast Fourier transform.

const BLOCK = 256; // samples of one stored pair of peaks

/** Lowest and highest sample of each block of 256, over all channels: two Float32Arrays. */
export function measurePeaks(buffer) {
  const blocks = Math.ceil(buffer.length / BLOCK);
  const low = new Float32Array(blocks);
  const high = new Float32Array(blocks);
  for (let channel = 0; channel < buffer.numberOfChannels; channel += 1) {
    const samples = buffer.getChannelData(channel);
    for (let block = 0; block < blocks; block += 1) {
      const end = Math.min(samples.length, (block + 1) * BLOCK);
      let minimum = low[block];
      let maximum = high[block];
      for (let index = block * BLOCK; index < end; index += 1) {
        const sample = samples[index];
        if (sample < minimum) minimum = sample;
        else if (sample > maximum) maximum = sample;
      }
      low[block] = minimum;
      high[block] = maximum;
    }
  }
  return { low, high };
}

/** [low, high] of the blocks from sample `start` to sample `end`. */
export function readPeaks(peaks, start, end) {
  const first = Math.max(0, Math.floor(start / BLOCK));
  const last = Math.min(peaks.low.length, Math.max(first + 1, Math.ceil(end / BLOCK)));
  let low = 0;
  let high = 0;
  for (let block = first; block < last; block += 1) {
    if (peaks.low[block] < low) low = peaks.low[block];
    if (peaks.high[block] > high) high = peaks.high[block];
  }
  return [low, high];
}

/** Makes a function that turns `size` samples (a power of two) into the power of `size / 2` frequencies, with a Hann window. */
export function makePowerSpectrum(size) {
  const window = Float32Array.from({ length: size }, (_, index) => 0.5 - 0.5 * Math.cos((2 * Math.PI * index) / size));
  const cosines = Float32Array.from({ length: size / 2 }, (_, index) => Math.cos((2 * Math.PI * index) / size));
  const sines = Float32Array.from({ length: size / 2 }, (_, index) => Math.sin((2 * Math.PI * index) / size));
  const order = reverseBits(size);
  const real = new Float32Array(size);
  const imaginary = new Float32Array(size);
  return (samples, power) => {
    for (let index = 0; index < size; index += 1) real[order[index]] = samples[index] * window[index];
    imaginary.fill(0);
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let offset = 0; offset < half; offset += 1) {
          const even = start + offset;
          const odd = even + half;
          const cosine = cosines[offset * stride];
          const sine = -sines[offset * stride];
          const turnedReal = real[odd] * cosine - imaginary[odd] * sine;
          const turnedImaginary = real[odd] * sine + imaginary[odd] * cosine;
          real[odd] = real[even] - turnedReal;
          imaginary[odd] = imaginary[even] - turnedImaginary;
          real[even] += turnedReal;
          imaginary[even] += turnedImaginary;
        }
      }
    }
    for (let bin = 0; bin < size / 2; bin += 1) power[bin] = real[bin] ** 2 + imaginary[bin] ** 2;
  };
}

function reverseBits(size) {
  const bits = Math.log2(size);
  return Uint32Array.from({ length: size }, (_, index) => {
    let reversed = 0;
    for (let bit = 0; bit < bits; bit += 1) reversed |= ((index >> bit) & 1) << (bits - 1 - bit);
    return reversed >>> 0;
  });
}

export const LOWEST_HZ = 40;
const RANGE_DB = 80;
const SIZE = 2048;

/** The share of the height, from the top, at which `hertz` stands on the logarithmic axis. */
export function heightOf(hertz, sampleRate) {
  return 1 - Math.log(hertz / LOWEST_HZ) / Math.log(sampleRate / 2 / LOWEST_HZ);
}

/** Levels of a spectrogram of the channels' mean from sample `start` to `end`: Uint8 [height * width], 255 = the loudest. */
export function measureSpectrogram(buffer, { start, end, width, height }) {
  const transform = makePowerSpectrum(SIZE);
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, channel) => buffer.getChannelData(channel));
  const frame = new Float32Array(SIZE);
  const power = new Float32Array(SIZE / 2);
  const levels = new Float32Array(width * height);
  const bins = listBins(height, buffer.sampleRate);
  let loudest = 1e-12;
  for (let column = 0; column < width; column += 1) {
    const centre = Math.round(start + ((column + 0.5) / width) * (end - start));
    for (let index = 0; index < SIZE; index += 1) {
      const position = centre - SIZE / 2 + index;
      frame[index] = 0;
      if (position >= 0 && position < buffer.length) for (const samples of channels) frame[index] += samples[position] / channels.length;
    }
    transform(frame, power);
    for (let row = 0; row < height; row += 1) {
      const value = readBand(power, bins[row]);
      levels[row * width + column] = value;
      if (value > loudest) loudest = value;
    }
  }
  return Uint8Array.from(levels, (value) => 255 * Math.max(0, 1 + (10 * Math.log10(value / loudest + 1e-12)) / RANGE_DB));
}

/** The first and the last bin, as real numbers, of each row from the top. */
function listBins(height, sampleRate) {
  const binOf = (row) => (LOWEST_HZ * (sampleRate / 2 / LOWEST_HZ) ** (1 - row / height) * SIZE) / sampleRate;
  return Array.from({ length: height }, (_, row) => [binOf(row + 1), binOf(row)]);
}

/** The strongest bin of a band, or between two bins their interpolation. */
function readBand(power, [low, high]) {
  const first = Math.ceil(low);
  const last = Math.min(power.length - 1, Math.floor(high));
  let strongest = 0;
  for (let bin = first; bin <= last; bin += 1) if (power[bin] > strongest) strongest = power[bin];
  if (last >= first) return strongest;
  const middle = Math.min(power.length - 2, (low + high) / 2);
  const below = Math.floor(middle);
  return power[below] + (middle - below) * (power[below + 1] - power[below]);
}

const STOPS = [
  [12, 12, 28],
  [46, 24, 92],
  [120, 32, 122],
  [196, 56, 92],
  [240, 118, 52],
  [250, 196, 92],
  [253, 246, 208],
];

/** 256 colours from silence to the loudest, as [r, g, b]. */
export const COLOURS = Array.from({ length: 256 }, (_, level) => {
  const position = (level / 255) * (STOPS.length - 1);
  const below = Math.min(STOPS.length - 2, Math.floor(position));
  return STOPS[below].map((value, part) => Math.round(value + (position - below) * (STOPS[below + 1][part] - value)));
});
