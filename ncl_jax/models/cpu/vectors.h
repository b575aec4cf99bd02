// What the kernels share: vectors, threads and a small matrix product in registers.

#ifndef NCL_VECTORS_H_
#define NCL_VECTORS_H_

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

#define INLINE __attribute__((always_inline))

constexpr int kLanes = NCL_LANES;  // floats of a vector
constexpr int kSums = kLanes == 16 ? 16 : 12;  // vectors of a product, in the 32 registers of AVX-512 or 16 of AVX2

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));

Vector* Vectors(float* values) { return reinterpret_cast<Vector*>(values); }
const Vector* Vectors(const float* values) { return reinterpret_cast<const Vector*>(values); }

// Numbers from the start of a cache line on, so that none of their vectors lies on two lines; at first any.
class Floats {
 public:
  explicit Floats(int64_t size = 0) : lines_(Lines(size)) {}
  float* data() { return reinterpret_cast<float*>(lines_.data()); }
  float* Resize(int64_t size) {
    lines_.resize(Lines(size));
    return data();
  }

 private:
  struct alignas(64) Line {
    Line() {}  // unlike a default constructor leaves the numbers as they are
    float values[16];
  };
  static int64_t Lines(int64_t size) { return (size + 15) / 16; }
  std::vector<Line> lines_;
};

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
inline INLINE void Product(const float* a, int64_t a_row, int64_t a_step, const float* b,
                                                   int64_t b_step, int64_t depth, Vector (&sums)[R][V]) {
  for (int64_t k = 0; k < depth; ++k, a += a_step, b += b_step) {
    Vector columns[V];
    for (int v = 0; v < V; ++v) columns[v] = Vectors(b)[v];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) sums[r][v] += columns[v] * a[r * a_row];
    }
  }
}

// Calls block(R) with the number of rows, at most R, as a type.
template <int R, typename Block>
void WithRows(int64_t rows, const Block& block) {
  if constexpr (R > 1) {
    if (rows < R) return WithRows<R - 1>(rows, block);
  }
  block(std::integral_constant<int, R>());
}

// Calls block(row, R, V) for blocks of rows that, by V vectors, have at most kSums sums together.
template <typename V, typename Block>
void ForRows(int64_t rows, V vectors, const Block& block) {
  constexpr int kRows = kSums / V::value;
  for (int64_t row = 0; row < rows; row += kRows) {
    WithRows<kRows>(rows - row, [&](auto count) { block(row, count, vectors); });
  }
}

// Calls panel(column, V) for panels of V <= 2 vectors that cover the columns.
template <typename Panel>
void ForPanels(int64_t columns, const Panel& panel) {
  for (int64_t column = 0; column < columns; column += 2 * kLanes) {
    if (columns - column > kLanes) {
      panel(column, std::integral_constant<int, 2>());
    } else {
      panel(column, std::integral_constant<int, 1>());
    }
  }
}

// Where row k of a matrix [depth, columns] in panels, one after the other, has `column`, the first of a vector.
inline int64_t InPanels(int64_t depth, int64_t columns, int64_t k, int64_t column) {
  const int64_t panel = column / (2 * kLanes) * 2 * kLanes;
  return panel * depth + k * std::min<int64_t>(2 * kLanes, columns - panel) + column - panel;
}

// Brings a matrix [depth, columns] into panels.
inline void ToPanels(const float* matrix, int64_t depth, int64_t columns, float* panels) {
  ForPanels(columns, [&](int64_t column, auto vectors) {
    for (int64_t k = 0; k < depth; ++k, panels += vectors * kLanes) {
      for (int v = 0; v < vectors; ++v) Vectors(panels)[v] = Vectors(matrix + k * columns + column)[v];
    }
  });
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

// Adds the numbers [first, end) of all parts, `size` numbers each, to those of the first part, in the parts' order.
void AddParts(float* parts, int64_t num_parts, int64_t size, int64_t first, int64_t end) {
  for (int64_t part = 1; part < num_parts; ++part) {
    for (int64_t i = first; i < end; ++i) parts[i] += parts[part * size + i];
  }
}

// What every kernel takes and gives; its attributes follow.
auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Ret<ffi::Buffer<ffi::F32>>();
}

}  // namespace

#endif  // NCL_VECTORS_H_
