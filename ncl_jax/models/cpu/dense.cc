// Inference of layers that see each pixel or token by itself, and attention, as XLA custom calls for CPU.

#include <cmath>
#include <cstring>

#include "affine.h"

namespace {

constexpr int64_t kChunk = 8 * kTall;    // rows that are worked on at once, to stay in the L2 cache
constexpr int64_t kQueries = 4 * kTall;  // whose scores are worked on at once

using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

typedef int32_t Integers __attribute__((vector_size(kLanes * sizeof(int32_t))));

thread_local Floats normal, scores, key_panels, value_panels;

// The sum of c[i] * x^i.
template <int N>
Vector Polynomial(Vector x, const float (&c)[N]) {
  Vector sum = Vector{} + c[N - 1];
  for (int i = N - 2; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

Vector Clip(Vector x, float low, float high) {
  x = x < low ? Vector{} + low : x;
  return x > high ? Vector{} + high : x;
}

// To a relative 3e-7; x < -87 as -87, x > 87 as 87.
Vector Exp(Vector x) {
  const Vector power = Clip(x, -87, 87) * 1.44269504f, shifted = power + 12582912.0f;  // 1.5 * 2^23: rounds
  const Vector rest = power - (shifted - 12582912.0f);
  const Vector small = Polynomial(rest, {1, 0.69314718f, 0.24022651f, 0.05550411f, 0.00961813f, 0.00133336f, 0.00015403f});
  Integers bits, place;
  std::memcpy(&bits, &small, sizeof bits);
  std::memcpy(&place, &shifted, sizeof place);
  bits += place << 23;
  Vector result;
  std::memcpy(&result, &bits, sizeof result);
  return x == x ? result : x;
}

// x times the normal distribution function at x, to 1.1e-6 for |x| <= 8, by a rational function of x^2 (least squares).
Vector Gelu(Vector x) {
  const Vector near = Clip(x, -5.6f, 5.6f), square = near * near;
  const Vector above = Polynomial(square, {0.398942232f, 0.0343728848f, 0.00470704818f, 0.000173816545f, 6.35616607e-06f,
                                           2.21469245e-08f});
  const Vector below = Polynomial(square, {1, 0.252825767f, 0.0289382078f, 0.00191278418f, 7.50903200e-05f,
                                           1.18023263e-06f});
  return x * (0.5f + near * above / below);
}

Vector QuickGelu(Vector x) { return x / (1.0f + Exp(-1.702f * x)); }

template <typename Function>
void Apply(float* values, int64_t count, const Function& function) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) *Vectors(values + i) = function(*Vectors(values + i));
  if (i == count) return;
  float last[kLanes] = {};
  std::copy_n(values + i, count - i, last);
  *Vectors(last) = function(*Vectors(last));
  std::copy_n(last, count - i, values + i);
}

float Sum(const float* values, int64_t count) {
  Vector sums = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sums += *Vectors(values + i);
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
  for (; i < count; ++i) sum += values[i];
  return sum;
}

// Rows of mean 0 and variance 1, but for epsilon.
const float* Normalize(const float* x, int64_t rows, int64_t depth, float epsilon) {
  float* to = normal.Resize(rows * depth);
  for (int64_t r = 0; r < rows; ++r, x += depth) {
    float* row = to + r * depth;
    const float mean = Sum(x, depth) / depth;
    Vector squares = {};
    float square = 0;
    int64_t i = 0;
    for (; i + kLanes <= depth; i += kLanes) {
      const Vector d = *Vectors(x + i) - mean;
      *Vectors(row + i) = d, squares += d * d;
    }
    for (; i < depth; ++i) row[i] = x[i] - mean, square += row[i] * row[i];
    for (int lane = 0; lane < kLanes; ++lane) square += squares[lane];
    const float factor = 1 / std::sqrt(square / depth + epsilon);
    Apply(row, depth, [&](Vector v) { return v * factor; });
  }
  return to;
}

// y[row] = act(normalised(x[row]) * weights + bias + add[row]), for x [..., I], y and `add` (or nothing) [..., O].
// Weights come in panels, see affine.h. Nothing is normalised where epsilon is 0; act: 0 nothing, 1 GELU, 2 OpenAI's; a
// `most` that is not negative clamps to [0, most] before.
ffi::Error Dense(ffi::ThreadPool pool, Array x, Array weights, Array bias, Array add, Result y, float epsilon,
                 float most, int64_t act) {
  const int64_t inputs = x.dimensions().back(), outputs = y->dimensions().back();
  const int64_t total = x.element_count() / inputs, chunks = (total + kChunk - 1) / kChunk;
  ParallelFor(pool, chunks, [&](int64_t chunk) {
    const int64_t first = chunk * kChunk, rows = std::min(kChunk, total - first);
    const float* a = x.typed_data() + first * inputs;
    if (epsilon > 0) a = Normalize(a, rows, inputs, epsilon);
    Finish finish = {bias.typed_data(), add.element_count() ? add.typed_data() + first * outputs : nullptr};
    if (most >= 0) finish.low = 0, finish.high = most;
    float* result = y->typed_data() + first * outputs;
    Affine({{a, inputs, rows, 0}, inputs}, rows, weights.typed_data(), finish, outputs, {result, outputs, rows, 0});
    if (act == 1) Apply(result, rows * outputs, Gelu);
    if (act == 2) Apply(result, rows * outputs, QuickGelu);
  });
  return ffi::Error::Success();
}

// Scores [rows, step], of which `count` count, to weights that sum to 1.
void Softmax(float* row, int64_t rows, int64_t step, int64_t count, float scale) {
  for (int64_t r = 0; r < rows; ++r, row += step) {
    std::fill(row + count, row + step, -std::numeric_limits<float>::infinity());
    Vector largest = *Vectors(row);
    for (int64_t i = kLanes; i < step; i += kLanes) {
      const Vector v = *Vectors(row + i);
      largest = v > largest ? v : largest;
    }
    float most = largest[0];
    for (int lane = 1; lane < kLanes; ++lane) most = std::max(most, largest[lane]);
    Apply(row, step, [&](Vector v) { return Exp((v - most) * scale); });
    const float share = 1 / Sum(row, count);
    Apply(row, step, [&](Vector v) { return v * share; });
  }
}

// [count, size], `step` apart, as panels of columns; transposed: of the transpose.
void Pack(const float* from, int64_t count, int64_t step, int64_t size, bool transposed, float* to) {
  const int64_t depth = transposed ? size : count, columns = transposed ? count : size;
  for (int64_t column = 0; column < columns; column += kPanel) {
    const int64_t here = std::min<int64_t>(kPanel, columns - column);
    for (int64_t k = 0; k < depth; ++k, to += kPanel) {
      for (int64_t c = 0; c < here; ++c) to[c] = transposed ? from[(column + c) * step + k] : from[k * step + column + c];
      std::fill(to + here, to + kPanel, 0.0f);
    }
  }
}

// The attention of each head of `size` numbers: queries, keys and values [B, N, 3, D / size, size] to [B, N, D].
ffi::Error Attention(ffi::ThreadPool pool, Array x, Result y, int64_t size) {
  const auto out = y->dimensions();
  const int64_t number = out[1], width = out[2], heads = width / size, step = 3 * width;
  const int64_t padded = (number + kPanel - 1) / kPanel * kPanel, wide = (size + kPanel - 1) / kPanel * kPanel;
  const float scale = 1 / std::sqrt(static_cast<float>(size));
  ParallelFor(pool, out[0] * heads, [&](int64_t i) {
    const float* queries = x.typed_data() + i / heads * number * step + i % heads * size;
    float* result = y->typed_data() + i / heads * number * width + i % heads * size;
    float* keys = key_panels.Resize(padded * size);
    float* values = value_panels.Resize(number * wide);
    float* weights = scores.Resize(kQueries * padded);
    Pack(queries + width, number, step, size, true, keys);
    Pack(queries + 2 * width, number, step, size, false, values);
    for (int64_t first = 0; first < number; first += kQueries) {
      const int64_t rows = std::min(kQueries, number - first);
      Affine({{queries + first * step, step, rows, 0}, size}, rows, keys, {}, padded, {weights, padded, rows, 0});
      Softmax(weights, rows, padded, number, scale);
      Affine({{weights, padded, rows, 0}, number}, rows, values, {}, size, {result + first * width, width, rows, 0});
    }
  });
  return ffi::Error::Success();
}

auto Bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(NclDense, Dense,
                              Bind()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Attr<float>("epsilon")
                                  .Attr<float>("most")
                                  .Attr<int64_t>("act"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(NclAttention, Attention, Bind().Arg<Array>().Ret<Array>().Attr<int64_t>("size"));
