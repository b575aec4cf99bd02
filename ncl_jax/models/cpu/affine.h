// A product of large matrices with all that follows it in inference: bias, an addend and a clamp.

#ifndef NCL_AFFINE_H_
#define NCL_AFFINE_H_

#include <limits>

#include "vectors.h"

namespace {

constexpr int kPanel = 2 * kLanes;            // columns of a panel of weights
constexpr int kTall = kLanes == 16 ? 14 : 6;  // rows of a product, in the 32 registers of AVX-512 or 16 of AVX2

// Where rows lie: `group` of them `size` apart, and the groups `step` apart.
template <typename Float>
struct Rows {
  Float* first;
  int64_t size, group, step;

  Float* operator()(int64_t row) const { return first + row / group * step + row % group * size; }
};

// The left factor: a row's numbers are `passes` times `depth`, `pass` apart.
struct Left {
  Rows<const float> rows;
  int64_t depth, passes = 1, pass = 0;
};

// What follows the product.
struct Finish {
  const float* bias = nullptr;  // [ceil(outputs / kPanel) * kPanel], or nothing
  const float* add = nullptr;   // [rows, outputs], or nothing
  float low = -std::numeric_limits<float>::infinity(), high = std::numeric_limits<float>::infinity();

  Vector Clamp(Vector v) const {
    const Vector least = Vector{} + low, most = Vector{} + high;
    v = v < least ? least : v;  // what is no number stays
    return v > most ? most : v;
  }
};

// R rows and V vectors of the result, of which the first `count` numbers of each row are wanted; bias and addend are
// those of the first.
template <int R, int V>
void AffineTile(const Left& left, const float* a, const float* weights, const Finish& finish, int64_t add_row,
                int64_t count, float* const* places, int64_t column) {
  Vector sums[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sums[r][v] = finish.bias ? Vectors(finish.bias)[v] : Vector{};
  }
  for (int64_t pass = 0; pass < left.passes; ++pass, a += left.pass, weights += left.depth * kPanel) {
    Product<R, V>(a, left.rows.size, 1, weights, kPanel, left.depth, sums);
  }
  for (int r = 0; r < R; ++r) {
    float* to = places[r] + column;
    const float* add = finish.add ? finish.add + r * add_row : nullptr;
    if (count == V * kLanes) {
      for (int v = 0; v < V; ++v) Vectors(to)[v] = finish.Clamp(add ? sums[r][v] + Vectors(add)[v] : sums[r][v]);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        const float value = sums[r][i / kLanes][i % kLanes] + (add ? add[i] : 0.0f);
        to[i] = std::min(std::max(value, finish.low), finish.high);
      }
    }
  }
}

// to(row) = clamp(left(row) * weights + bias + add[row]). The weights come in panels [ceil(outputs / kPanel),
// passes * depth, kPanel], filled up with zeros.
inline void Affine(const Left& left, int64_t rows, const float* weights, const Finish& finish, int64_t outputs,
                   const Rows<float>& to) {
  thread_local std::vector<float*> places;  // a division for each would take as long as a short product
  places.resize(rows);
  for (int64_t row = 0; row < rows; ++row) places[row] = to(row);
  for (int64_t column = 0; column < outputs; column += kPanel, weights += left.passes * left.depth * kPanel) {
    const int64_t count = std::min<int64_t>(outputs - column, kPanel);
    for (int64_t first = 0; first < rows; first += left.rows.group) {
      const int64_t size = std::min(left.rows.group, rows - first), tiles = (size + kTall - 1) / kTall;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t row = tile * size / tiles;
        Finish own = finish;
        if (own.bias) own.bias += column;
        if (own.add) own.add += (first + row) * outputs + column;
        WithRows<kTall>((tile + 1) * size / tiles - row, [&](auto number) {
          constexpr int kRows = decltype(number)::value;
          auto make = count > kLanes ? AffineTile<kRows, 2> : AffineTile<kRows, 1>;
          make(left, left.rows(first) + row * left.rows.size, weights, own, outputs, count,
               places.data() + first + row, column);
        });
      }
    }
  }
}

}  // namespace

#endif  // NCL_AFFINE_H_
