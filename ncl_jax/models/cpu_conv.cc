// 3x3 convolution with one zero of padding on each side, and its gradient with respect to the kernel, as XLA custom
// calls for CPU. Dense float32 arrays: images [B, H, W, I], kernel [3, 3, I, O], results [B, H', W', O], O a multiple
// of kLanes. All work ends in Product, a small matrix product in registers:
// - directly: in memory the 3 * I values that one output pixel takes from one row of the image, its taps, lie side by
//   side, and so do the kernel's;
// - at stride 1, with H and W even and I a multiple of kLanes, by the minimal filtering F(2x2, 3x3) of Lavin and Gray
//   (arXiv 1509.09308): tiles of 4x4 pixels and the kernel are transformed, multiplied position by position and
//   transformed back to 2x2 pixels of the result, with 16 products where the direct form takes 36.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int kLanes = 8;       // floats of a vector
constexpr int kRows = 6;        // of a product; with two vectors of columns it fills the 16 registers of AVX2
constexpr int kTaps = 3;        // the kernel's width and height
constexpr int kPositions = 16;  // of a transformed tile, 4x4
constexpr int kTiles = 32;      // transformed together, to stay in the L2 cache
constexpr int kGap = 16;        // floats between the positions of tiles, whose cache lines would displace each other
constexpr int kPixels = 128;    // of the result that a direct gradient's inner loops stay on, to stay in the L1 cache
constexpr int kParts = 8;       // of the batch at most, whose gradients are added in a fixed order

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));

Vector* Vectors(float* values) { return reinterpret_cast<Vector*>(values); }
const Vector* Vectors(const float* values) { return reinterpret_cast<const Vector*>(values); }

// Calls work(i) for every i < count, on the caller's thread and on those of the pool that are free. It never waits for
// a task that has not begun, so that calls which share a pool cannot lock each other out.
template <typename Work>
void ParallelFor(ffi::ThreadPool& pool, int64_t count, const Work& work) {
  struct State {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto state = std::make_shared<State>();
  auto run = [state, count, &work]() noexcept {  // out of memory ends the process: other threads may be at work
    for (int64_t i; (i = state->next.fetch_add(1)) < count;) {
      work(i);
      state->done.fetch_add(1, std::memory_order_release);
    }
  };
  const int64_t threads = std::min(count, pool.num_threads());
  for (int64_t i = 1; i < threads; ++i) pool.Schedule(decltype(run)(run));  // a copy each
  run();
  while (state->done.load(std::memory_order_acquire) < count) std::this_thread::yield();
}

// sums[r][v] += the sum over k < depth of a[r * a_row + k * a_step] * (vector v of b + k * b_step).
template <int R, int V>
inline __attribute__((always_inline)) void Product(const float* a, int64_t a_row, int64_t a_step, const float* b,
                                                   int64_t b_step, int64_t depth, Vector (&sums)[R][V]) {
  for (int64_t k = 0; k < depth; ++k, a += a_step, b += b_step) {
    Vector columns[V];
    for (int v = 0; v < V; ++v) columns[v] = Vectors(b)[v];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) sums[r][v] += columns[v] * a[r * a_row];
    }
  }
}

// Calls block(row, column, R, V) for blocks of R <= kRows rows and V <= 2 vectors that cover rows x columns.
template <typename Block>
void Cover(int64_t rows, int64_t columns, const Block& block) {
  auto with_rows = [&](int64_t row, int64_t column, auto vectors) {
    switch (std::min<int64_t>(rows - row, kRows)) {
      case 1: return block(row, column, std::integral_constant<int, 1>(), vectors);
      case 2: return block(row, column, std::integral_constant<int, 2>(), vectors);
      case 3: return block(row, column, std::integral_constant<int, 3>(), vectors);
      case 4: return block(row, column, std::integral_constant<int, 4>(), vectors);
      case 5: return block(row, column, std::integral_constant<int, 5>(), vectors);
      default: return block(row, column, std::integral_constant<int, kRows>(), vectors);
    }
  };
  for (int64_t column = 0; column < columns; column += 2 * kLanes) {
    for (int64_t row = 0; row < rows; row += kRows) {
      if (columns - column > kLanes) {
        with_rows(row, column, std::integral_constant<int, 2>());
      } else {
        with_rows(row, column, std::integral_constant<int, 1>());
      }
    }
  }
}

template <int R, int V>
void Add(const Vector (&sums)[R][V], float* to, int64_t step) {
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) Vectors(to + r * step)[v] += sums[r][v];
  }
}

template <int R, int V>
void Store(const Vector (&sums)[R][V], float* to, int64_t step) {
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) Vectors(to + r * step)[v] = sums[r][v];
  }
}

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

  // The image in a frame of zeros.
  const float* Pad(const Shape& s, const float* image) {
    padded.assign((s.height + 2) * s.Row(), 0.0f);
    for (int64_t y = 0; y < s.height; ++y) {
      std::copy_n(image + y * s.width * s.inputs, s.width * s.inputs, padded.data() + (y + 1) * s.Row() + s.inputs);
    }
    return padded.data();
  }
};
thread_local Scratch scratch;

// The transforms of F(2, 3) in one dimension.
struct OfImage {  // 4 pixels
  static void Apply(const Vector* d, Vector* t) {
    t[0] = d[0] - d[2], t[1] = d[1] + d[2], t[2] = d[2] - d[1], t[3] = d[1] - d[3];
  }
};
struct OfKernel {  // 3 taps
  static void Apply(const Vector* g, Vector* t) {
    t[0] = g[0], t[1] = 0.5f * (g[0] + g[1] + g[2]), t[2] = 0.5f * (g[0] - g[1] + g[2]), t[3] = g[2];
  }
};
struct ToResult {  // 2 pixels
  static void Apply(const Vector* t, Vector* y) { y[0] = t[0] + t[1] + t[2], y[1] = t[1] - t[2] - t[3]; }
};
struct OfResult {  // the transpose of ToResult
  static void Apply(const Vector* y, Vector* t) { t[0] = y[0], t[1] = y[0] + y[1], t[2] = y[0] - y[1], t[3] = -y[1]; }
};
struct ToKernel {  // the transpose of OfKernel
  static void Apply(const Vector* t, Vector* g) {
    const Vector sum = 0.5f * (t[1] + t[2]);
    g[0] = t[0] + sum, g[1] = 0.5f * (t[1] - t[2]), g[2] = sum + t[3];
  }
};

// `Transform` along both dimensions, N x N vectors to M x M.
template <typename Transform, int N, int M>
inline __attribute__((always_inline)) void Transform2D(const Vector (&in)[N][N], Vector (&out)[M][M]) {
  Vector half[N][M];
  for (int i = 0; i < N; ++i) Transform::Apply(in[i], half[i]);
  for (int j = 0; j < M; ++j) {
    Vector column[N], result[M];
    for (int i = 0; i < N; ++i) column[i] = half[i][j];
    Transform::Apply(column, result);
    for (int i = 0; i < M; ++i) out[i][j] = result[i];
  }
}

// Transforms N x N pixels (or taps) of `channels` values, `row` and `step` floats apart, to the 16 positions of a tile,
// `position` floats apart.
template <typename Transform, int N>
void ToTile(const float* pixels, int64_t row, int64_t step, int64_t channels, float* tile, int64_t position) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    Vector in[N][N], out[4][4];
    for (int i = 0; i < N * N; ++i) in[i / N][i % N] = *Vectors(pixels + i / N * row + i % N * step + c);
    Transform2D<Transform>(in, out);
    for (int i = 0; i < kPositions; ++i) *Vectors(tile + i * position + c) = out[i / 4][i % 4];
  }
}

// The way back.
template <typename Transform, int N>
void FromTile(const float* tile, int64_t position, int64_t channels, float* pixels, int64_t row, int64_t step) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    Vector in[4][4], out[N][N];
    for (int i = 0; i < kPositions; ++i) in[i / 4][i % 4] = *Vectors(tile + i * position + c);
    Transform2D<Transform>(in, out);
    for (int i = 0; i < N * N; ++i) *Vectors(pixels + i / N * row + i % N * step + c) = out[i / N][i % N];
  }
}

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
  const float* padded = scratch.Pad(s, image);
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
  const float* padded = scratch.Pad(s, image);
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
  const float* padded = scratch.Pad(s, image);
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
  const float* padded = scratch.Pad(s, image);
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

Shape MakeShape(ffi::Span<const int64_t> x, ffi::Span<const int64_t> y, int64_t stride) {
  return {x[0], x[1], x[2], x[3], y[1], y[2], y[3], stride};
}

ffi::Error Forward(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> kernel, int64_t stride,
                   ffi::ResultBuffer<ffi::F32> y) {
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

ffi::Error Gradient(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> dy, int64_t stride,
                    ffi::ResultBuffer<ffi::F32> dkernel) {
  const Shape s = MakeShape(x.dimensions(), dy.dimensions(), stride);
  const auto image_gradient = s.Tiled() ? GradientTiled : GradientDirect;
  const int64_t taps = s.Tiled() ? kPositions : kTaps * kTaps, size = taps * s.Tap();
  const int64_t num_parts = std::min<int64_t>(s.batch, kParts);
  std::vector<float> parts(num_parts * size);
  ParallelFor(pool, num_parts, [&](int64_t part) {
    for (int64_t i = part; i < s.batch; i += num_parts) {
      image_gradient(s, x.typed_data() + i * s.Image(), dy.typed_data() + i * s.Result(),
                     parts.data() + part * size);
    }
  });
  float* sum = parts.data();
  ParallelFor(pool, taps, [&](int64_t tap) {
    for (int64_t part = 1; part < num_parts; ++part) {
      for (int64_t i = tap * s.Tap(); i < (tap + 1) * s.Tap(); ++i) sum[i] += sum[part * size + i];
    }
  });
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

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(NclConv, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("stride")
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(NclConvGradient, Gradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("stride")
                                  .Ret<ffi::Buffer<ffi::F32>>());
