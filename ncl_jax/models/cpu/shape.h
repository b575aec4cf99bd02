// What a convolution's kernels share: its shape and a thread's memory.

#ifndef NCL_SHAPE_H_
#define NCL_SHAPE_H_

#include "vectors.h"

namespace {

struct Shape {
  int64_t batch, height, width, inputs, out_height, out_width, outputs, size, stride;

  int64_t Image() const { return height * width * inputs; }  // floats
  int64_t Result() const { return out_height * out_width * outputs; }
  int64_t Border() const { return size / 2; }
  int64_t Taps() const { return size * inputs; }  // that one row of the kernel has
  int64_t Tap() const { return inputs * outputs; }
  bool Tiled() const { return size == 3 && stride == 1 && inputs % kLanes == 0; }
};

// A thread's memory, kept between calls.
struct Scratch {
  Floats padded, left, right;
};
thread_local Scratch scratch;

// Channels [first, first + count) of an image [height, width, channels] in a frame of zeros, `border` wide; returns the
// end of what is written.
inline float* Pad(const float* image, int64_t height, int64_t width, int64_t channels, int64_t first, int64_t count,
                  int64_t border, float* to) {
  const int64_t side = border * count, row = width * count + 2 * side;
  to = std::fill_n(to, border * row, 0.0f);
  for (int64_t y = 0; y < height; ++y) {
    to = std::fill_n(to, side, 0.0f);
    const float* from = image + y * width * channels + first;
    if (count == channels) {
      to = std::copy_n(from, width * channels, to);
    } else {
      for (int64_t x = 0; x < width; ++x) to = std::copy_n(from + x * channels, count, to);
    }
    to = std::fill_n(to, side, 0.0f);
  }
  return std::fill_n(to, border * row, 0.0f);
}

// A whole image in its frame; the image itself where there is none.
inline const float* Framed(const float* image, int64_t height, int64_t width, int64_t channels, int64_t border) {
  if (border == 0) return image;
  float* frame = scratch.padded.Resize((height + 2 * border) * (width + 2 * border) * channels);
  Pad(image, height, width, channels, 0, channels, border, frame);
  return frame;
}

}  // namespace

#endif  // NCL_SHAPE_H_
