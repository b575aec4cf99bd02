// Inference of networks with depthwise convolutions (EfficientNet-Lite), as XLA custom calls for CPU: batch normalisation
// is folded into weights and biases, and an inverted residual block is one call, so that its wide activations never leave
// the caches. Dense float32 arrays: images [B, H, W, I], results [B, H', W', O]. The weights of a 1x1 convolution come in
// panels [ceil(O / kPanel), I, kPanel], filled up with zeros, its biases [ceil(O / kPanel) * kPanel].

#include <cstring>

#include "affine.h"

namespace {

constexpr int64_t kStrip = 64;  // pixels of the result at least that are worked on at once
constexpr int kColumns = 4;     // of the depthwise result, made at once

inline Vector Clamp(Vector v) { return Finish{nullptr, nullptr, 0, 6}.Clamp(v); }

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
      const Rows<float> to = {wide + (top - first) * row_step + b.before_x * b.channels, b.channels, seen, row_step};
      Rows<const float> rows = {image + top * b.width * b.inputs, b.inputs, (bottom - top) * b.width, 0};
      if (seen < b.width) rows.group = seen, rows.step = b.width * b.inputs;  // the last columns are not looked at
      Affine({rows, b.inputs}, (bottom - top) * seen, b.expand, {b.expand_bias, nullptr, 0, 6}, b.channels, to);
    }
    held_first = first, held_end = end;
    for (int64_t r = 0; r < count; ++r) {
      depthwise(wide + r * b.stride * row_step, row_step, b.out_width, b.channels, b.depthwise, b.depthwise_bias,
                deep + r * b.out_width * b.channels);
    }
    const int64_t pixels = count * b.out_width;
    const Finish finish = {b.project_bias, b.adds ? image + y * b.width * b.inputs : nullptr};
    Affine({{deep, b.channels, pixels, 0}, b.channels}, pixels, b.project, finish, b.outputs,
           {result + y * b.out_width * b.outputs, b.outputs, pixels, 0});
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
