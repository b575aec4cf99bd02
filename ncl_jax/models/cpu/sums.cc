// The sums over rows of a and of a * b, in one pass over both, as an XLA custom call for CPU. Dense float32 arrays
// [..., D], D a multiple of kLanes, whatever comes before it being rows; the result is [2, D].

#include "vectors.h"

namespace {

constexpr int kBlock = 64;      // rows whose sums are made in registers
constexpr int kChains = 4;      // sums of a block that do not wait for each other
constexpr int kLeast = 256;     // rows worth a task
constexpr int kMostParts = 16;  // whose sums are added in a fixed order

// Those of rows x columns numbers: [2, columns].
void SumRows(const float* a, const float* b, int64_t rows, int64_t columns, float* sums) {
  std::fill_n(sums, 2 * columns, 0.0f);
  for (int64_t first = 0; first < rows; first += kBlock) {
    const int64_t end = std::min(first + kBlock, rows);
    for (int64_t column = 0; column < columns; column += kLanes) {
      Vector plain[kChains] = {}, product[kChains] = {};
      auto add = [&](int64_t row, int chain) {
        const Vector value = *Vectors(a + row * columns + column);
        plain[chain] += value, product[chain] += value * *Vectors(b + row * columns + column);
      };
      int64_t row = first;
      for (; row + kChains <= end; row += kChains) {
        for (int chain = 0; chain < kChains; ++chain) add(row + chain, chain);
      }
      for (; row < end; ++row) add(row, 0);
      *Vectors(sums + column) += (plain[0] + plain[1]) + (plain[2] + plain[3]);
      *Vectors(sums + columns + column) += (product[0] + product[1]) + (product[2] + product[3]);
    }
  }
}

ffi::Error Sums(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> a, ffi::Buffer<ffi::F32> b,
                ffi::ResultBuffer<ffi::F32> sums) {
  const int64_t columns = sums->dimensions()[1], rows = a.element_count() / columns, size = 2 * columns;
  const int64_t num_parts = std::clamp<int64_t>(rows / kLeast, 1, kMostParts);
  Floats parts(num_parts * size);
  ParallelFor(pool, num_parts, [&](int64_t part) {
    const int64_t first = rows * part / num_parts, end = rows * (part + 1) / num_parts;
    SumRows(a.typed_data() + first * columns, b.typed_data() + first * columns, end - first, columns,
            parts.data() + part * size);
  });
  AddParts(parts.data(), num_parts, size, 0, size);
  std::copy_n(parts.data(), size, sums->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(NclSums, Sums, Binding());
