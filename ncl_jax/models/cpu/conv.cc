// 3x3 convolution with one zero of padding on each side, and its gradients, as XLA custom calls for CPU. Dense float32
// arrays: images [B, H, W, I], kernel [3, 3, I, O], results [B, H', W', O], O a multiple of kLanes. All work ends in Product, a small matrix product in registers:
// - directly: in memory the 3 * I values that one output pixel takes from one row of the image, its taps, lie side by
//   side, and so do the kernel's;
// - at stride 1, with H and W even and I a multiple of kLanes, by the minimal filtering F(2x2, 3x3) of Lavin and Gray
//   (arXiv 1509.09308): tiles of 4x4 pixels and the kernel are transformed, multiplied position by position and
//   transformed back to 2x2 pixels of the result, with 16 products where the direct form takes 36.

#include <vector>

#include "filtering.h"

namespace {

constexpr int kTiles = 32;    // transformed together, to stay in the L2 cache
constexpr int kGap = 16;      // floats between the positions of tiles, whose cache lines would displace each other
constexpr int kPixels = 128;  // of the result that a direct gradient's inner loops stay on, to stay in the L1 cache
constexpr int kParts = 8;     // of the batch at most, whose gradients are added in a fixed order

struct Shape {
  int64_t batch, height, width, inputs, out_height, out_width, outputs, stride;

  int64_t Image() const { return height * width * inputs; }  // floats
  int64_t Result() const { return out_height * out_width * outputs; }
  int64_t Row() const { return (width + 2) * inputs; }  // of the padded image
  int64_t Taps() const { return kTaps * inputs; }       // that one row of the kernel has
  int64_t Tap() const { return inputs * outputs; }
  bool Tiled() const { return stride == 1 && inputs % kLanes == 0 && height % 2 == 0 && width % 2 == 0; }
  int64_t Tiles() const { return height / 2 * (width / 2); }
  int64_t LeftPosition() const { return kTiles * inputs + kGap; }
  int64_t RightPosition() const { return kTiles * outputs + kGap; }
  // Where a tile begins in an array with `row` floats a row and `step` floats a pixel.
  int64_t Corner(int64_t tile, int64_t row, int64_t step) const {
    return tile / (width / 2) * 2 * row + tile % (width / 2) * 2 * step;
  }
};

// A thread's memory, kept between calls.
struct Scratch {
  std::vector<float> padded, left, right;

  // An image in a frame of zeros.
  const float* Pad(const float* image, int64_t height, int64_t width, int64_t channels) {
    const int64_t inside = width * channels, row = inside + 2 * channels;
    padded.resize((height + 2) * row);
    float* to = std::fill_n(padded.data(), row, 0.0f);
    for (int64_t y = 0; y < height; ++y) {
      to = std::copy_n(image + y * inside, inside, std::fill_n(to, channels, 0.0f));
      to = std::fill_n(to, channels, 0.0f);
    }
    std::fill_n(to, row, 0.0f);
    return padded.data();
  }
};
thread_local Scratch scratch;

// Tiles [first, first + count) of a padded image, transformed: [16, kTiles, I], positions LeftPosition() apart.
const float* TransformImage(const Shape& s, const float* padded, int64_t first, int64_t count) {
  scratch.left.resize(kPositions * s.LeftPosition());
  for (int64_t i = 0; i < count; ++i) {
    ToTile<OfImage, 4>(padded + s.Corner(first + i, s.Row(), s.inputs), s.Row(), s.inputs, s.inputs,
                       scratch.left.data() + i * s.inputs, s.LeftPosition());
  }
  return scratch.left.data();
}

// kernel [3, 3, I, O], transformed: [16, I, O].
std::vector<float> TransformKernel(const Shape& s, const float* kernel) {
  std::vector<float> result(kPositions * s.Tap());
  for (int64_t i = 0; i < s.Tap(); i += s.outputs) {
    ToTile<OfKernel, kTaps>(kernel + i, kTaps * s.Tap(), s.Tap(), s.outputs, result.data() + i, s.Tap());
  }
  return result;
}

void ForwardTiled(const Shape& s, const float* image, const float* transformed, float* result) {
  const float* padded = scratch.Pad(image, s.height, s.width, s.inputs);
  const int64_t row = s.out_width * s.outputs;
  scratch.right.resize(kPositions * s.RightPosition());
  for (int64_t first = 0; first < s.Tiles(); first += kTiles) {
    const int64_t count = std::min<int64_t>(kTiles, s.Tiles() - first);
    const float* left = TransformImage(s, padded, first, count);
    for (int64_t p = 0; p < kPositions; ++p) {
      float* right = scratch.right.data() + p * s.RightPosition();
      Cover(count, s.outputs, [&](int64_t tile, int64_t column, auto rows, auto vectors) {
        Vector sums[rows][vectors] = {};
        Product<rows, vectors>(left + p * s.LeftPosition() + tile * s.inputs, s.inputs, 1,
                               transformed + p * s.Tap() + column, s.outputs, s.inputs, sums);
        Store<rows, vectors>(sums, right + tile * s.outputs + column, s.outputs);
      });
    }
    for (int64_t i = 0; i < count; ++i) {
      FromTile<ToResult, 2>(scratch.right.data() + i * s.outputs, s.RightPosition(), s.outputs,
                            result + s.Corner(first + i, row, s.outputs), row, s.outputs);
    }
  }
}

// Adds an image's part to the gradient of the transformed kernel, [16, I, O].
void GradientTiled(const Shape& s, const float* image, const float* dy, float* gradient) {
  const float* padded = scratch.Pad(image, s.height, s.width, s.inputs);
  const int64_t row = s.out_width * s.outputs;
  scratch.right.resize(kPositions * s.RightPosition());
  for (int64_t first = 0; first < s.Tiles(); first += kTiles) {
    const int64_t count = std::min<int64_t>(kTiles, s.Tiles() - first);
    const float* left = TransformImage(s, padded, first, count);
    for (int64_t i = 0; i < count; ++i) {
      ToTile<OfResult, 2>(dy + s.Corner(first + i, row, s.outputs), row, s.outputs, s.outputs,
                          scratch.right.data() + i * s.outputs, s.RightPosition());
    }
    for (int64_t p = 0; p < kPositions; ++p) {
      const float* right = scratch.right.data() + p * s.RightPosition();
      Cover(s.inputs, s.outputs, [&](int64_t input, int64_t column, auto rows, auto vectors) {
        Vector sums[rows][vectors] = {};
        Product<rows, vectors>(left + p * s.LeftPosition() + input, 1, s.inputs, right + column, s.outputs, count,
                               sums);
        Add<rows, vectors>(sums, gradient + p * s.Tap() + input * s.outputs + column, s.outputs);
      });
    }
  }
}

void ForwardDirect(const Shape& s, const float* image, const float* kernel, float* result) {
  const float* padded = scratch.Pad(image, s.height, s.width, s.inputs);
  for (int64_t y = 0; y < s.out_height; ++y) {
    Cover(s.out_width, s.outputs, [&](int64_t x, int64_t column, auto rows, auto vectors) {
      Vector sums[rows][vectors] = {};
      for (int64_t row = 0; row < kTaps; ++row) {
        Product<rows, vectors>(padded + (y * s.stride + row) * s.Row() + x * s.stride * s.inputs, s.stride * s.inputs,
                               1, kernel + row * s.Taps() * s.outputs + column, s.outputs, s.Taps(), sums);
      }
      Store<rows, vectors>(sums, result + (y * s.out_width + x) * s.outputs + column, s.outputs);
    });
  }
}

// Adds an image's part to the gradient [3, 3, I, O].
void GradientDirect(const Shape& s, const float* image, const float* dy, float* gradient) {
  const float* padded = scratch.Pad(image, s.height, s.width, s.inputs);
  const int64_t chunk = std::max<int64_t>(1, kPixels / s.out_width);
  for (int64_t first = 0; first < s.out_height; first += chunk) {
    for (int64_t row = 0; row < kTaps; ++row) {
      Cover(s.Taps(), s.outputs, [&](int64_t tap, int64_t column, auto rows, auto vectors) {
        Vector sums[rows][vectors] = {};
        for (int64_t y = first; y < std::min(first + chunk, s.out_height); ++y) {
          Product<rows, vectors>(padded + (y * s.stride + row) * s.Row() + tap, 1, s.stride * s.inputs,
                                 dy + y * s.out_width * s.outputs + column, s.outputs, s.out_width, sums);
        }
        Add<rows, vectors>(sums, gradient + (row * s.Taps() + tap) * s.outputs + column, s.outputs);
      });
    }
  }
}

// The gradient with respect to an image at a stride of 2. Result (y + 1 - row) / 2 sees row y by the kernel's `row` where
// the division leaves no rest: the middle one for even y, the other two for odd y; columns alike.
void ImageGradientDirect(const Shape& s, const float* dy, const float* transposed, float* dx) {
  const float* padded = scratch.Pad(dy, s.out_height, s.out_width, s.outputs);
  const int64_t row_step = (s.out_width + 2) * s.outputs;
  for (int64_t y = 0; y < s.height; ++y) {
    for (int64_t odd = 0; odd < std::min<int64_t>(2, s.width); ++odd) {
      Cover((s.width - odd + 1) / 2, s.inputs, [&](int64_t x, int64_t column, auto rows, auto vectors) {
        Vector sums[rows][vectors] = {};
        for (int64_t row = 1 - y % 2; row < kTaps; row += 2) {
          for (int64_t tap = 1 - odd; tap < kTaps; tap += 2) {
            const float* seen = padded + (y + 3 - row) / 2 * row_step + (x + (odd + 3 - tap) / 2) * s.outputs;
            Product<rows, vectors>(seen, s.outputs, 1, transposed + (row * kTaps + tap) * s.Tap() + column, s.inputs,
                                   s.outputs, sums);
          }
        }
        Store<rows, vectors>(sums, dx + (y * s.width + 2 * x + odd) * s.inputs + column, 2 * s.inputs);
      });
    }
  }
}

Shape MakeShape(ffi::Span<const int64_t> x, ffi::Span<const int64_t> y, int64_t stride) {
  return {x[0], x[1], x[2], x[3], y[1], y[2], y[3], stride};
}

ffi::Error Forward(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> kernel,
                   ffi::ResultBuffer<ffi::F32> y, int64_t stride) {
  const Shape s = MakeShape(x.dimensions(), y->dimensions(), stride);
  const std::vector<float> transformed =
      s.Tiled() ? TransformKernel(s, kernel.typed_data()) : std::vector<float>();
  ParallelFor(pool, s.batch, [&](int64_t i) {
    const float* image = x.typed_data() + i * s.Image();
    float* result = y->typed_data() + i * s.Result();
    if (s.Tiled()) {
      ForwardTiled(s, image, transformed.data(), result);
    } else {
      ForwardDirect(s, image, kernel.typed_data(), result);
    }
  });
  return ffi::Error::Success();
}

ffi::Error Gradient(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> dy,
                    ffi::ResultBuffer<ffi::F32> dkernel, int64_t stride) {
  const Shape s = MakeShape(x.dimensions(), dy.dimensions(), stride);
  const auto add_gradient = s.Tiled() ? GradientTiled : GradientDirect;
  const int64_t taps = s.Tiled() ? kPositions : kTaps * kTaps, size = taps * s.Tap();
  const int64_t num_parts = std::min<int64_t>(s.batch, kParts);
  std::vector<float> parts(num_parts * size);
  ParallelFor(pool, num_parts, [&](int64_t part) {
    for (int64_t i = part; i < s.batch; i += num_parts) {
      add_gradient(s, x.typed_data() + i * s.Image(), dy.typed_data() + i * s.Result(),
                   parts.data() + part * size);
    }
  });
  float* sum = parts.data();
  ParallelFor(pool, taps,
              [&](int64_t tap) { AddParts(sum, num_parts, size, tap * s.Tap(), (tap + 1) * s.Tap()); });
  float* result = dkernel->typed_data();
  if (s.Tiled()) {
    for (int64_t i = 0; i < s.Tap(); i += s.outputs) {
      FromTile<ToKernel, kTaps>(sum + i, s.Tap(), s.outputs, result + i, kTaps * s.Tap(), s.Tap());
    }
  } else {
    std::copy_n(sum, size, result);
  }
  return ffi::Error::Success();
}

// kernel [3, 3, O, I]; I a multiple of kLanes, the stride 2.
ffi::Error ImageGradient(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> dy, ffi::Buffer<ffi::F32> kernel,
                         ffi::ResultBuffer<ffi::F32> dx) {
  const Shape s = MakeShape(dx->dimensions(), dy.dimensions(), 2);
  ParallelFor(pool, s.batch, [&](int64_t i) {
    ImageGradientDirect(s, dy.typed_data() + i * s.Result(), kernel.typed_data(), dx->typed_data() + i * s.Image());
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(NclConv, Forward, Binding().Attr<int64_t>("stride"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(NclConvGradient, Gradient, Binding().Attr<int64_t>("stride"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(NclConvImageGradient, ImageGradient, Binding());
