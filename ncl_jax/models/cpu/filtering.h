// The transforms of the minimal filtering F(2x2, 3x3) of Lavin and Gray (arXiv 1509.09308).

#ifndef NCL_FILTERING_H_
#define NCL_FILTERING_H_

#include "vectors.h"

namespace {

constexpr int kTaps = 3;        // the kernel's width and height
constexpr int kPositions = 16;  // of a transformed tile, 4x4

// In one dimension, F(2, 3).
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

// Transforms N x N pixels (or taps), `row` and `step` floats apart, to the 16 positions of a tile, `position` floats
// apart: one vector of each.
template <typename Transform, int N>
inline __attribute__((always_inline)) void ToTile(const float* pixels, int64_t row, int64_t step, float* tile,
                                                  int64_t position) {
  Vector in[N][N], out[4][4];
  for (int i = 0; i < N * N; ++i) in[i / N][i % N] = *Vectors(pixels + i / N * row + i % N * step);
  Transform2D<Transform>(in, out);
  for (int i = 0; i < kPositions; ++i) *Vectors(tile + i * position) = out[i / 4][i % 4];
}

// The way back.
template <typename Transform, int N>
inline __attribute__((always_inline)) void FromTile(const float* tile, int64_t position, float* pixels, int64_t row,
                                                    int64_t step) {
  Vector in[4][4], out[N][N];
  for (int i = 0; i < kPositions; ++i) in[i / 4][i % 4] = *Vectors(tile + i * position);
  Transform2D<Transform>(in, out);
  for (int i = 0; i < N * N; ++i) *Vectors(pixels + i / N * row + i % N * step) = out[i / N][i % N];
}

}  // namespace

#endif  // NCL_FILTERING_H_
