// Inference of networks with depthwise convolutions (EfficientNet-Lite), as XLA custom calls for CPU: batch normalisation
// is folded into weights and biases, and an inverted residual block is one call, so that its wide activations never leave
// the caches. Dense float32 arrays: images [B, H, W, I], results [B, H', W', O]. The weights of a 1x1 convolution come in
// panels [ceil(O / kPanel), I, kPanel], filled up with zeros, its biases [ceil(O / kPanel) * kPanel].

#include <cstring>

#include "vectors.h"

namespace {

constexpr int kPanel = 2 * kLanes;       // columns of a panel of weights
constexpr int64_t kStrip = 64;           // pixels of the result at least that are worked on at once
constexpr int kColumns = 4;              // of the depthwise result, made at once

inline Vector Clamp(Vector v) {
  const Vector zero = {}, six = zero + 6.0f;
  v = v > zero ? v : zero;
  return v < six ? v : six;
}

// Writes the first `count` numbers of V vectors, plus those of `add` where there are any.
template <int V>
inline void Put(const Vector* sums, int64_t count, const float* add, float* to) {
  if (count == V * kLanes) {
    for (int v = 0; v < V; ++v) Vectors(to)[v] = add ? sums[v] + Vectors(add)[v] : sums[v];
    return;
  }
  const float* values = reinterpret_cast<const float*>(sums);
  for (int64_t i = 0; i < count; ++i) to[i] = add ? values[i] + add[i] : values[i];
}

// Where rows lie: `group` of them side by side, and the groups `step` apart.
struct Rows {
  float* first;
  int64_t size, group, step;

  float* operator()(int64_t row) const { return first + row / group * step + row % group * size; }
};

// to(row) = act(a[row] * weights + bias), plus row `row` of `add`, as long as the result, where that is not null; act is
// ReLU6 or nothing.
template <bool kClamp>
void Affine(const float* a, int64_t rows, int64_t depth, const float* weights, const float* bias, int64_t outputs,
            const Rows& to, const float* add = nullptr) {
  thread_local std::vector<float*> places;  // a division for each would take as long as a short product
  places.resize(rows);
  for (int64_t row = 0; row < rows; ++row) places[row] = to(row);
  for (int64_t column = 0; column < outputs; column += kPanel, weights += depth * kPanel) {
    const int64_t left = std::min<int64_t>(outputs - column, kPanel);
    auto cover = [&](auto vectors) {
      constexpr int kVectors = decltype(vectors)::value, kMost = kSums / kVectors;
      for (int64_t row = 0; row < rows; row += kMost) {
        WithRows<kMost>(rows - row, [&](auto count) {
          constexpr int kCount = decltype(count)::value;
          Vector sums[kCount][kVectors];
          for (int r = 0; r < kCount; ++r) {
            for (int v = 0; v < kVectors; ++v) sums[r][v] = Vectors(bias + column)[v];
          }
          Product<kCount, kVectors>(a + row * depth, depth, 1, weights, kPanel, depth, sums);
          for (int r = 0; r < kCount; ++r) {
            for (int v = 0; kClamp && v < kVectors; ++v) sums[r][v] = Clamp(sums[r][v]);
            const float* own = add ? add + (row + r) * outputs + column : nullptr;
            Put<kVectors>(sums[r], left, own, places[row + r] + column);
          }
        });
      }
    };
    if (left > kLanes) {
      cover(std::integral_constant<int, 2>());
    } else {
      cover(std::integral_constant<int, 1>());
    }
  }
}

// N results of a depthwise convolution side by side, all channels; `image` is the first pixel that the first one sees.
template <int K, int S, int N>
void DepthwisePixels(const float* image, int64_t row_step, int64_t channels, const float* kernel, const float* bias,
                     float* out) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    Vector sums[N];
    for (int n = 0; n < N; ++n) sums[n] = *Vectors(bias + c);
    for (int i = 0; i < K; ++i) {
      const float* row = image + i * row_step + c;
      Vector taps[K];
      for (int j = 0; j < K; ++j) taps[j] = *Vectors(kernel + (i * K + j) * channels + c);
      for (int x = 0; x < (N - 1) * S + K; ++x) {
        const Vector pixel = *Vectors(row + x * channels);
        for (int n = 0; n < N; ++n) {
          const int j = x - n * S;
          if (j >= 0 && j < K) sums[n] += pixel * taps[j];
        }
      }
    }
    for (int n = 0; n < N; ++n) *Vectors(out + n * channels + c) = Clamp(sums[n]);
  }
}

template <int K, int S>
void DepthwiseRow(const float* image, int64_t row_step, int64_t width, int64_t channels, const float* kernel,
                  const float* bias, float* out) {
  int64_t x = 0;
  for (; x + kColumns <= width; x += kColumns) {
    DepthwisePixels<K, S, kColumns>(image + x * S * channels, row_step, channels, kernel, bias, out + x * channels);
  }
  for (; x < width; ++x) {
    DepthwisePixels<K, S, 1>(image + x * S * channels, row_step, channels, kernel, bias, out + x * channels);
  }
}

using Row = void (*)(const float*, int64_t, int64_t, int64_t, const float*, const float*, float*);

Row RowOf(int64_t kernel_size, int64_t stride) {
  if (kernel_size == 3) return stride == 1 ? DepthwiseRow<3, 1> : DepthwiseRow<3, 2>;
  return stride == 1 ? DepthwiseRow<5, 1> : DepthwiseRow<5, 2>;
}

struct Block {
  int64_t height, width, inputs, out_height, out_width, outputs, channels, kernel_size, stride, before_y, before_x;
  bool expands, adds;
  const float *expand, *expand_bias, *depthwise, *depthwise_bias, *project, *project_bias;

  int64_t Padded() const { return (out_width - 1) * stride + kernel_size; }  // columns that the kernel sees
};

thread_local Floats wide_rows, deep_rows;

// An image's block, strip by strip: expanded rows that the next strip sees again are kept.
void RunBlock(const Block& b, const float* image, float* result) {
  const int64_t strip = std::min(b.out_height, (kStrip + b.out_width - 1) / b.out_width);
  const int64_t tall = (strip - 1) * b.stride + b.kernel_size, row_step = b.Padded() * b.channels;
  float* wide = wide_rows.Resize(tall * row_step);
  float* deep = deep_rows.Resize(strip * b.out_width * b.channels);
  const Row depthwise = RowOf(b.kernel_size, b.stride);
  const int64_t seen = std::min(b.width, b.Padded() - b.before_x);
  int64_t held_first = 0, held_end = 0;  // rows of the image that `wide` holds
  for (int64_t y = 0; y < b.out_height; y += strip) {
    const int64_t count = std::min(strip, b.out_height - y);
    const int64_t first = y * b.stride - b.before_y, end = first + (count - 1) * b.stride + b.kernel_size;
    const int64_t kept = y == 0 ? first : std::min(std::max(held_end, first), end);
    if (kept > first) std::memmove(wide, wide + (first - held_first) * row_step, (kept - first) * row_step * 4);
    for (int64_t r = kept; r < end; ++r) {
      float* row = wide + (r - first) * row_step;
      if (r < 0 || r >= b.height) {
        std::fill_n(row, row_step, 0.0f);
        continue;
      }
      std::fill_n(row, b.before_x * b.channels, 0.0f);
      std::fill_n(row + (b.before_x + seen) * b.channels, row_step - (b.before_x + seen) * b.channels, 0.0f);
      if (!b.expands) std::copy_n(image + r * b.width * b.inputs, seen * b.inputs, row + b.before_x * b.channels);
    }
    const int64_t top = std::max<int64_t>(kept, 0), bottom = std::min(end, b.height);
    if (b.expands && top < bottom) {
      const Rows to = {wide + (top - first) * row_step + b.before_x * b.channels, b.channels, seen, row_step};
      if (seen == b.width) {
        Affine<true>(image + top * b.width * b.inputs, (bottom - top) * b.width, b.inputs, b.expand, b.expand_bias,
                     b.channels, to);
      } else {  // the last columns are not looked at
        for (int64_t r = top; r < bottom; ++r) {
          const Rows row = {to((r - top) * seen), b.channels, seen, row_step};
          Affine<true>(image + r * b.width * b.inputs, seen, b.inputs, b.expand, b.expand_bias, b.channels, row);
        }
      }
    }
    held_first = first, held_end = end;
    for (int64_t r = 0; r < count; ++r) {
      depthwise(wide + r * b.stride * row_step, row_step, b.out_width, b.channels, b.depthwise, b.depthwise_bias,
                deep + r * b.out_width * b.channels);
    }
    const int64_t pixels = count * b.out_width;
    const Rows to = {result + y * b.out_width * b.outputs, b.outputs, pixels, 0};
    const float* own = b.adds ? image + y * b.width * b.inputs : nullptr;
    Affine<false>(deep, pixels, b.channels, b.project, b.project_bias, b.outputs, to, own);
  }
}

using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

ffi::Error Inverted(ffi::ThreadPool pool, Array x, Array expand, Array expand_bias, Array depthwise,
                    Array depthwise_bias, Array project, Array project_bias, Result y, int64_t stride, int64_t before_y,
                    int64_t before_x, int64_t adds) {
  const auto in = x.dimensions(), out = y->dimensions(), kernel = depthwise.dimensions();
  const Block b = {in[1], in[2], in[3], out[1], out[2], out[3], kernel[2], kernel[0], stride, before_y, before_x,
                   expand.element_count() > 0, adds != 0, expand.typed_data(), expand_bias.typed_data(),
                   depthwise.typed_data(), depthwise_bias.typed_data(), project.typed_data(),
                   project_bias.typed_data()};
  ParallelFor(pool, in[0], [&](int64_t i) {
    RunBlock(b, x.typed_data() + i * b.height * b.width * b.inputs,
             y->typed_data() + i * b.out_height * b.out_width * b.outputs);
  });
  return ffi::Error::Success();
}

// A 3x3 convolution of few channels at a stride of 2, with ReLU6: the weights' rows are [3, 3, I].
ffi::Error Stem(ffi::ThreadPool pool, Array x, Array weights, Array bias, Result y, int64_t before_y,
                int64_t before_x) {
  const auto in = x.dimensions(), out = y->dimensions();
  const int64_t inputs = in[3], depth = 9 * inputs;
  ParallelFor(pool, in[0], [&](int64_t i) {
    const float* image = x.typed_data() + i * in[1] * in[2] * inputs;
    float* result = y->typed_data() + i * out[1] * out[2] * out[3];
    float* patches = deep_rows.Resize(out[2] * depth);
    for (int64_t row = 0; row < out[1]; ++row) {
      for (int64_t column = 0; column < out[2]; ++column) {
        float* to = patches + column * depth;
        for (int64_t tap = 0; tap < 9; ++tap, to += inputs) {
          const int64_t v = row * 2 - before_y + tap / 3, u = column * 2 - before_x + tap % 3;
          const bool inside = v >= 0 && v < in[1] && u >= 0 && u < in[2];
          for (int64_t c = 0; c < inputs; ++c) to[c] = inside ? image[(v * in[2] + u) * inputs + c] : 0.0f;
        }
      }
      const Rows to = {result + row * out[2] * out[3], out[3], out[2], 0};
      Affine<true>(patches, out[2], depth, weights.typed_data(), bias.typed_data(), out[3], to);
    }
  });
  return ffi::Error::Success();
}

// The mean over pixels of a 1x1 convolution with ReLU6: [B, H, W, I] to [B, O].
ffi::Error Pooled(ffi::ThreadPool pool, Array x, Array weights, Array bias, Result y) {
  const auto in = x.dimensions();
  const int64_t pixels = in[1] * in[2], inputs = in[3], outputs = y->dimensions()[1];
  ParallelFor(pool, in[0], [&](int64_t i) {
    float* values = deep_rows.Resize(pixels * outputs);
    const Rows to = {values, outputs, pixels, 0};
    Affine<true>(x.typed_data() + i * pixels * inputs, pixels, inputs, weights.typed_data(), bias.typed_data(),
                 outputs, to);
    float* mean = y->typed_data() + i * outputs;
    std::fill_n(mean, outputs, 0.0f);
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t c = 0; c < outputs; ++c) mean[c] += values[p * outputs + c];
    }
    for (int64_t c = 0; c < outputs; ++c) mean[c] /= pixels;
  });
  return ffi::Error::Success();
}

auto Bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(NclInverted, Inverted,
                              Bind()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("before_y")
                                  .Attr<int64_t>("before_x")
                                  .Attr<int64_t>("adds"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    NclStem, Stem,
    Bind().Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>().Attr<int64_t>("before_y").Attr<int64_t>("before_x"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(NclPooled, Pooled, Bind().Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>());
