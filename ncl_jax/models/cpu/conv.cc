// 3x3 convolution with one zero of padding on each side, and its gradients, as XLA custom calls for CPU. Dense float32
// arrays: images [B, H, W, I], kernel [3, 3, I, O], results [B, H', W', O], O a multiple of kLanes. All work ends in
// Product, a small matrix product in registers:
// - directly: in memory the 3 * I values that one output pixel takes from one row of the image, its taps, lie side by
//   side, and so do the kernel's;
// - at stride 1, with H and W even and I a multiple of kLanes, by the minimal filtering F(2x2, 3x3) of Lavin and Gray
//   (arXiv 1509.09308): tiles of 4x4 pixels and the kernel are transformed, multiplied position by position and
//   transformed back to 2x2 pixels of the result, with 16 products where the direct form takes 36.

#include "filtering.h"

namespace {

constexpr int kTiles = 16;    // transformed together, to stay in the L1 and L2 caches
constexpr int kGap = 16;      // floats between tiles, whose cache lines would displace each other
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
  int64_t Left() const { return kPositions * inputs + kGap; }    // of a transformed tile of the image
  int64_t Right() const { return kPositions * outputs + kGap; }  // and of the result
};

// A thread's memory, kept between calls.
struct Scratch {
  Floats padded, left, right;

  // An image in a frame of zeros.
  const float* Pad(const float* image, int64_t height, int64_t width, int64_t channels) {
    const int64_t inside = width * channels, row = inside + 2 * channels;
    float* start = padded.Resize((height + 2) * row);
    float* to = std::fill_n(start, row, 0.0f);
    for (int64_t y = 0; y < height; ++y) {
      to = std::copy_n(image + y * inside, inside, std::fill_n(to, channels, 0.0f));
      to = std::fill_n(to, channels, 0.0f);
    }
    std::fill_n(to, row, 0.0f);
    return start;
  }
};
thread_local Scratch scratch;

// Calls work(i, y, x) for i < count, y and x being the first row and column of tile first + i in the result.
template <typename Work>
inline __attribute__((always_inline)) void ForTiles(const Shape& s, int64_t first, int64_t count, const Work& work) {
  int64_t y = first / (s.width / 2) * 2, x = first % (s.width / 2) * 2;
  for (int64_t i = 0; i < count; ++i) {
    work(i, y, x);
    if ((x += 2) == s.width) x = 0, y += 2;
  }
}

// Tiles [first, first + count) of an image, transformed: [count, 16, I], Left() apart. A tile shares two of its four
// columns with the one before it.
const float* TransformImage(const Shape& s, const float* image, int64_t first, int64_t count) {
  float* left = scratch.left.Resize(kTiles * s.Left());
  const int64_t row = s.width * s.inputs;
  for (int64_t c = 0; c < s.inputs; c += kLanes) {
    Vector columns[4][4];
    ForTiles(s, first, count, [&](int64_t i, int64_t y, int64_t x) {
      auto transform_column = [&](int64_t column, Vector* to) {
        auto pixel = [&](int64_t y) {
          const bool inside = y >= 0 && y < s.height && column >= 0 && column < s.width;
          return inside ? *Vectors(image + y * row + column * s.inputs + c) : Vector{};
        };
        const Vector in[4] = {pixel(y - 1), pixel(y), pixel(y + 1), pixel(y + 2)};
        OfImage::Apply(in, to);
      };
      if (i > 0 && x > 0) {
        for (int j = 0; j < 4; ++j) columns[0][j] = columns[2][j], columns[1][j] = columns[3][j];
      } else {
        transform_column(x - 1, columns[0]), transform_column(x, columns[1]);
      }
      transform_column(x + 1, columns[2]), transform_column(x + 2, columns[3]);
      float* tile = left + i * s.Left() + c;
      for (int j = 0; j < 4; ++j) {
        const Vector in[4] = {columns[0][j], columns[1][j], columns[2][j], columns[3][j]};
        Vector out[4];
        OfImage::Apply(in, out);
        for (int k = 0; k < 4; ++k) *Vectors(tile + (4 * j + k) * s.inputs) = out[k];
      }
    });
  }
  return left;
}

// kernel [3, 3, I, O], transformed: [16, I, O].
Floats TransformKernel(const Shape& s, const float* kernel) {
  Floats result(kPositions * s.Tap());
  for (int64_t i = 0; i < s.Tap(); i += kLanes) {
    ToTile<OfKernel, kTaps>(kernel + i, kTaps * s.Tap(), s.Tap(), result.data() + i, s.Tap());
  }
  return result;
}

void ForwardTiled(const Shape& s, const float* image, const float* transformed, float* result) {
  const int64_t row = s.out_width * s.outputs;
  float* right = scratch.right.Resize(kTiles * s.Right());
  for (int64_t first = 0; first < s.Tiles(); first += kTiles) {
    const int64_t count = std::min<int64_t>(kTiles, s.Tiles() - first);
    const float* left = TransformImage(s, image, first, count);
    for (int64_t p = 0; p < kPositions; ++p) {
      Cover(count, s.outputs, [&](int64_t tile, int64_t column, auto rows, auto vectors) {
        Vector sums[rows][vectors] = {};
        Product<rows, vectors>(left + p * s.inputs + tile * s.Left(), s.Left(), 1, transformed + p * s.Tap() + column,
                               s.outputs, s.inputs, sums);
        Store<rows, vectors>(sums, right + p * s.outputs + tile * s.Right() + column, s.Right());
      });
    }
    for (int64_t c = 0; c < s.outputs; c += kLanes) {
      ForTiles(s, first, count, [&](int64_t i, int64_t y, int64_t x) {
        FromTile<ToResult, 2>(right + i * s.Right() + c, s.outputs, result + y * row + x * s.outputs + c, row,
                              s.outputs);
      });
    }
  }
}

// Adds an image's part to the gradient of the transformed kernel, [16, I, O].
void GradientTiled(const Shape& s, const float* image, const float* dy, float* gradient) {
  const int64_t row = s.out_width * s.outputs;
  float* right = scratch.right.Resize(kTiles * s.Right());
  for (int64_t first = 0; first < s.Tiles(); first += kTiles) {
    const int64_t count = std::min<int64_t>(kTiles, s.Tiles() - first);
    const float* left = TransformImage(s, image, first, count);
    for (int64_t c = 0; c < s.outputs; c += kLanes) {
      ForTiles(s, first, count, [&](int64_t i, int64_t y, int64_t x) {
        ToTile<OfResult, 2>(dy + y * row + x * s.outputs + c, row, s.outputs, right + i * s.Right() + c, s.outputs);
      });
    }
    for (int64_t p = 0; p < kPositions; ++p) {
      Cover(s.inputs, s.outputs, [&](int64_t input, int64_t column, auto rows, auto vectors) {
        Vector sums[rows][vectors] = {};
        Product<rows, vectors>(left + p * s.inputs + input, 1, s.Left(), right + p * s.outputs + column, s.Right(),
                               count, sums);
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

// The gradient with respect to an image at a stride of 2. Result (y + 1 - row) / 2 sees row y by the kernel's `row`
// where the division leaves no rest: the middle one for even y, the other two for odd y; columns alike.
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
  Floats transformed = s.Tiled() ? TransformKernel(s, kernel.typed_data()) : Floats();
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
  Floats parts(num_parts * size);
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
    for (int64_t i = 0; i < s.Tap(); i += kLanes) {
      FromTile<ToKernel, kTaps>(sum + i, s.Tap(), result + i, kTaps * s.Tap(), s.Tap());
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
