// Convolutions and their gradients in the direct form: in memory the size * I values that one output pixel takes from one
// row of the image, its taps, lie side by side, and so do the kernel's.

#ifndef NCL_DIRECT_H_
#define NCL_DIRECT_H_

#include "shape.h"

namespace {

constexpr int64_t kPixels = 128;  // of the result that a gradient's inner loops stay on, to stay in the L1 cache
constexpr int64_t kSlice = 64;    // input channels whose gradient is a task, to stay in the L2 cache

// One image; the kernel [size * size * I, O] in panels.
void ForwardDirect(const Shape& s, const float* image, const float* panels, float* result) {
  const float* frame = Framed(image, s.height, s.width, s.inputs, s.Border());
  const int64_t row_step = (s.width + 2 * s.Border()) * s.inputs, step = s.stride * s.inputs;
  ForPanels(s.outputs, [&](int64_t column, auto vectors) {
    const float* panel = panels + column * s.size * s.Taps();
    for (int64_t y = 0; y < s.out_height; ++y) {
      ForRows(s.out_width, vectors, [&](int64_t x, auto rows, auto vectors) {
        Vector sums[rows][vectors] = {};
        for (int64_t row = 0; row < s.size; ++row) {
          Product<rows, vectors>(frame + (y * s.stride + row) * row_step + x * step, step, 1,
                                 panel + row * s.Taps() * vectors * kLanes, vectors * kLanes, s.Taps(), sums);
        }
        Store<rows, vectors>(sums, result + (y * s.out_width + x) * s.outputs + column, s.outputs);
      });
    }
  });
}

// The gradient [size, size, count, O] of the kernel's input channels [channel, channel + count), of all pixels of
// `images` images.
void GradientDirect(const Shape& s, const float* x, const float* dy, int64_t images, int64_t channel, int64_t count,
                    float* gradient) {
  std::fill_n(gradient, s.size * s.size * count * s.outputs, 0.0f);
  const int64_t pixels = s.out_height * s.out_width, together = std::max<int64_t>(1, kPixels / pixels);
  const int64_t chunk = std::max<int64_t>(1, kPixels / s.out_width);  // rows
  const int64_t row_step = (s.width + 2 * s.Border()) * count, frame_step = row_step * (s.height + 2 * s.Border());
  float* frames = scratch.padded.Resize(together * frame_step);
  float* panels = scratch.right.Resize(chunk * s.out_width * s.outputs);
  for (int64_t image = 0; image < images; image += together) {
    const int64_t taken = std::min(together, images - image);
    for (int64_t i = 0; i < taken; ++i) {
      Pad(x + (image + i) * s.Image(), s.height, s.width, s.inputs, channel, count, s.Border(), frames + i * frame_step);
    }
    for (int64_t first = 0; first < taken * s.out_height; first += chunk) {
      const int64_t end = std::min(first + chunk, taken * s.out_height), depth = (end - first) * s.out_width;
      ToPanels(dy + image * s.Result() + first * s.out_width * s.outputs, depth, s.outputs, panels);
      for (int64_t row = 0; row < s.size; ++row) {
        ForPanels(s.outputs, [&](int64_t column, auto vectors) {
          ForRows(s.size * count, vectors, [&](int64_t tap, auto rows, auto vectors) {
            Vector sums[rows][vectors] = {};
            const float* panel = panels + column * depth;
            for (int64_t y = first; y < end; ++y, panel += s.out_width * vectors * kLanes) {
              const float* seen = frames + y / s.out_height * frame_step;
              Product<rows, vectors>(seen + (y % s.out_height * s.stride + row) * row_step + tap, 1, s.stride * count,
                                     panel, vectors * kLanes, s.out_width, sums);
            }
            Add<rows, vectors>(sums, gradient + (row * s.size * count + tap) * s.outputs + column, s.outputs);
          });
        });
      }
    }
  }
}

// The gradient with respect to an image at a stride of 2; the kernel [size * size * O, I] in panels. Result
// (y + border - row) / 2 sees row y by the kernel's `row` where the division leaves no rest; columns alike.
void ImageGradientDirect(const Shape& s, const float* dy, const float* panels, float* dx) {
  const int64_t border = s.Border(), row_step = (s.out_width + 2 * border) * s.outputs;
  const float* frame = Framed(dy, s.out_height, s.out_width, s.outputs, border);
  ForPanels(s.inputs, [&](int64_t column, auto vectors) {
    const float* panel = panels + column * s.size * s.size * s.outputs;
    for (int64_t y = 0; y < s.height; ++y) {
      for (int64_t odd = 0; odd < std::min<int64_t>(2, s.width); ++odd) {
        ForRows((s.width - odd + 1) / 2, vectors, [&](int64_t x, auto rows, auto vectors) {
          Vector sums[rows][vectors] = {};
          for (int64_t row = (y + border) % 2; row < s.size; row += 2) {
            for (int64_t tap = (odd + border) % 2; tap < s.size; tap += 2) {
              const int64_t above = (y + 3 * border - row) / 2, left = x + (odd + 3 * border - tap) / 2;
              Product<rows, vectors>(frame + above * row_step + left * s.outputs, s.outputs, 1,
                                     panel + (row * s.size + tap) * s.outputs * vectors * kLanes, vectors * kLanes,
                                     s.outputs, sums);
            }
          }
          Store<rows, vectors>(sums, dx + (y * s.width + 2 * x + odd) * s.inputs + column, 2 * s.inputs);
        });
      }
    }
  });
}

}  // namespace

#endif  // NCL_DIRECT_H_
