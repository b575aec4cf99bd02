// The largest number of every 3x3 window at a stride of 2, with a border that never wins, and its gradient, as XLA custom
// calls for CPU. Dense float32 arrays: images [B, H, W, D], results [B, ceil(H / 2), ceil(W / 2), D], D a multiple of
// kLanes.

#include "vectors.h"

namespace {

struct Shape {
  int64_t batch, height, width, channels, out_height, out_width;
};

// Calls work(result, pixels, rows, columns) for the windows of an image: where the window's result and its first pixel
// lie in the arrays, and how many rows and columns of it lie inside.
template <typename Work>
void ForWindows(const Shape& s, const Work& work) {
  for (int64_t y = 0; y < s.out_height; ++y) {
    const int64_t top = std::max<int64_t>(0, 2 * y - 1), rows = std::min(s.height, 2 * y + 2) - top;
    for (int64_t x = 0; x < s.out_width; ++x) {
      const int64_t left = std::max<int64_t>(0, 2 * x - 1), columns = std::min(s.width, 2 * x + 2) - left;
      work((y * s.out_width + x) * s.channels, (top * s.width + left) * s.channels, rows, columns);
    }
  }
}

void Largest(const Shape& s, const float* image, float* result) {
  ForWindows(s, [&](int64_t to, int64_t from, int64_t rows, int64_t columns) {
    for (int64_t c = 0; c < s.channels; c += kLanes) {
      Vector most = *Vectors(image + from + c);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          const Vector v = *Vectors(image + from + (i * s.width + j) * s.channels + c);
          most = (v <= most) | (most != most) ? most : v;  // one that is no number stays
        }
      }
      *Vectors(result + to + c) = most;
    }
  });
}

// The gradient of every window goes to the first of its pixels that is the largest.
void LargestGradient(const Shape& s, const float* image, const float* result, const float* dy, float* dx) {
  std::fill_n(dx, s.height * s.width * s.channels, 0.0f);
  ForWindows(s, [&](int64_t to, int64_t from, int64_t rows, int64_t columns) {
    for (int64_t c = 0; c < s.channels; c += kLanes) {
      const Vector most = *Vectors(result + to + c), none = {};
      Vector left = *Vectors(dy + to + c);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          const int64_t pixel = from + (i * s.width + j) * s.channels + c;
          const auto here = *Vectors(image + pixel) == most;
          *Vectors(dx + pixel) += here ? left : none;
          left = here ? none : left;
        }
      }
    }
  });
}

Shape MakeShape(ffi::Span<const int64_t> x, ffi::Span<const int64_t> y) { return {x[0], x[1], x[2], x[3], y[1], y[2]}; }

ffi::Error Pool(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> y) {
  const Shape s = MakeShape(x.dimensions(), y->dimensions());
  const int64_t image = s.height * s.width * s.channels, result = s.out_height * s.out_width * s.channels;
  ParallelFor(pool, s.batch,
              [&](int64_t i) { Largest(s, x.typed_data() + i * image, y->typed_data() + i * result); });
  return ffi::Error::Success();
}

ffi::Error PoolGradient(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> y,
                        ffi::Buffer<ffi::F32> dy, ffi::ResultBuffer<ffi::F32> dx) {
  const Shape s = MakeShape(x.dimensions(), y.dimensions());
  const int64_t image = s.height * s.width * s.channels, result = s.out_height * s.out_width * s.channels;
  ParallelFor(pool, s.batch, [&](int64_t i) {
    LargestGradient(s, x.typed_data() + i * image, y.typed_data() + i * result, dy.typed_data() + i * result,
                    dx->typed_data() + i * image);
  });
  return ffi::Error::Success();
}

auto Bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<ffi::Buffer<ffi::F32>>(); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(NclPool, Pool, Bind().Ret<ffi::Buffer<ffi::F32>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    NclPoolGradient, PoolGradient,
    Bind().Arg<ffi::Buffer<ffi::F32>>().Arg<ffi::Buffer<ffi::F32>>().Ret<ffi::Buffer<ffi::F32>>());
