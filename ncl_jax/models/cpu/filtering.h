// 3x3 convolutions at a stride of 1 by the minimal filtering F(2x2, 3x3) of Lavin and Gray (arXiv 1509.09308): tiles of 4x4
// pixels and the kernel are transformed, multiplied position by position and transformed back to 2x2 pixels of the
// result, with 16 products where the direct form takes 36.

#ifndef NCL_FILTERING_H_
#define NCL_FILTERING_H_

#include "shape.h"

namespace {

constexpr int kTaps = 3;        // the kernel's width and height
constexpr int kPositions = 16;  // of a transformed tile, 4x4
constexpr int kGap = 16;        // floats between tiles, whose cache lines would displace each other

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
inline INLINE void Transform2D(const Vector (&in)[N][N], Vector (&out)[M][M]) {
  Vector half[N][M];
  for (int i = 0; i < N; ++i) Transform::Apply(in[i], half[i]);
  for (int j = 0; j < M; ++j) {
    Vector column[N], result[M];
    for (int i = 0; i < N; ++i) column[i] = half[i][j];
    Transform::Apply(column, result);
    for (int i = 0; i < M; ++i) out[i][j] = result[i];
  }
}

// Which tiles of a batch are transformed together. So that all stays in the L1 and L2 caches they are few, each whole in
// memory, [tiles, 16, channels]; with many channels, where the kernel is what takes time to read, they are more, and lie
// position by position, [16, tiles, channels].
struct Group {
  int64_t first, count;
};
bool Wide(const Shape& s) { return s.Tap() > 128 * 128; }
int64_t GroupSize(const Shape& s) { return Wide(s) ? 64 : 32; }
int64_t Step(const Shape& s, int64_t channels) {  // floats from a tile to the next
  return (Wide(s) ? channels : kPositions * channels) + kGap;
}
int64_t Position(const Shape& s, int64_t channels) {  // from a position to the next
  return Wide(s) ? GroupSize(s) * Step(s, channels) + kGap : channels;
}
int64_t GroupFloats(const Shape& s, int64_t channels) {
  return Wide(s) ? kPositions * Position(s, channels) : GroupSize(s) * Step(s, channels);
}

int64_t TilesAcross(const Shape& s) { return (s.width + 1) / 2; }
int64_t TilesOfImage(const Shape& s) { return (s.height + 1) / 2 * TilesAcross(s); }

// Calls work(i, image, y, x) for the group's tiles, y and x being the first row and column of a tile in the result.
template <typename Work>
inline INLINE void ForTiles(const Shape& s, const Group& group, const Work& work) {
  const int64_t within = group.first % TilesOfImage(s), across = 2 * TilesAcross(s);
  int64_t image = group.first / TilesOfImage(s), y = within / TilesAcross(s) * 2, x = within % TilesAcross(s) * 2;
  for (int64_t i = 0; i < group.count; ++i) {
    work(i, image, y, x);
    if ((x += 2) == across) x = 0, y += 2;
    if (y >= s.height) y = 0, ++image;
  }
}

// The group's tiles of the images, transformed, without positions outside of rows [top, bottom) of the 4x4. A tile
// shares two of its four columns with the one before it.
const float* TransformImages(Shape s, const float* images, const Group& group, int top, int bottom) {
  const int64_t row = s.width * s.inputs, step = Step(s, s.inputs), position = Position(s, s.inputs);
  float* left = scratch.left.Resize(GroupFloats(s, s.inputs));
  for (int64_t c = 0; c < s.inputs; c += kLanes) {
    Vector columns[4][4];
    ForTiles(s, group, [=, &columns](int64_t i, int64_t image, int64_t y, int64_t x) INLINE {
      const float* pixels = images + image * s.Image() + c;
      auto transform_column = [=](int64_t column, Vector* to) INLINE {
        auto pixel = [=](int64_t y) INLINE {
          const bool inside = y >= 0 && y < s.height && column >= 0 && column < s.width;
          return inside ? *Vectors(pixels + y * row + column * s.inputs) : Vector{};
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
      float* tile = left + i * step + c;
      for (int j = top; j < bottom; ++j) {
        const Vector in[4] = {columns[0][j], columns[1][j], columns[2][j], columns[3][j]};
        Vector out[4];
        OfImage::Apply(in, out);
        for (int k = 0; k < 4; ++k) *Vectors(tile + (4 * j + k) * position) = out[k];
      }
    });
  }
  return left;
}

// The group's tiles of the results' gradient, transformed.
const float* TransformResults(Shape s, const float* dy, const Group& group) {
  const int64_t row = s.width * s.outputs, step = Step(s, s.outputs), position = Position(s, s.outputs);
  float* right = scratch.right.Resize(GroupFloats(s, s.outputs));
  for (int64_t c = 0; c < s.outputs; c += kLanes) {
    ForTiles(s, group, [=](int64_t i, int64_t image, int64_t y, int64_t x) INLINE {
      const float* pixels = dy + image * s.Result() + y * row + x * s.outputs + c;
      const bool below = y + 1 < s.height, beside = x + 1 < s.width;
      const Vector none = {};
      const Vector in[2][2] = {{*Vectors(pixels), beside ? *Vectors(pixels + s.outputs) : none},
                               {below ? *Vectors(pixels + row) : none,
                                below && beside ? *Vectors(pixels + row + s.outputs) : none}};
      Vector out[4][4];
      Transform2D<OfResult>(in, out);
      for (int p = 0; p < kPositions; ++p) *Vectors(right + p * position + i * step + c) = out[p / 4][p % 4];
    });
  }
  return right;
}

// Rows [first, end) of I of the kernel [3, 3, I, O], transformed: [16, I, O], each position in panels.
void TransformKernel(Shape s, const float* kernel, int64_t first, int64_t end, float* panels) {
  for (int64_t i = first; i < end; ++i) {
    for (int64_t o = 0; o < s.outputs; o += kLanes) {
      Vector in[kTaps][kTaps], out[4][4];
      const float* taps = kernel + i * s.outputs + o;
      for (int t = 0; t < kTaps * kTaps; ++t) in[t / kTaps][t % kTaps] = *Vectors(taps + t * s.Tap());
      Transform2D<OfKernel>(in, out);
      float* to = panels + InPanels(s.inputs, s.outputs, i, o);
      for (int p = 0; p < kPositions; ++p) *Vectors(to + p * s.Tap()) = out[p / 4][p % 4];
    }
  }
}

// The way back for a gradient [16, I, O], its numbers [first, end) of I * O.
void KernelOfGradient(Shape s, const float* gradient, int64_t first, int64_t end, float* kernel) {
  for (int64_t i = first; i < end; i += kLanes) {
    Vector in[4][4], out[kTaps][kTaps];
    for (int p = 0; p < kPositions; ++p) in[p / 4][p % 4] = *Vectors(gradient + p * s.Tap() + i);
    Transform2D<ToKernel>(in, out);
    for (int t = 0; t < kTaps * kTaps; ++t) *Vectors(kernel + t * s.Tap() + i) = out[t / kTaps][t % kTaps];
  }
}

// The results of a group of tiles, with the kernel's panels of `TransformKernel`.
void ForwardTiled(Shape s, const float* images, const float* panels, const Group& group, float* results) {
  const float* left = TransformImages(s, images, group, 0, 4);
  const int64_t step = Step(s, s.outputs), position = Position(s, s.outputs), row = s.width * s.outputs;
  float* right = scratch.right.Resize(GroupFloats(s, s.outputs));
  const int64_t left_step = Step(s, s.inputs), left_position = Position(s, s.inputs);
  for (int64_t p = 0; p < kPositions; ++p) {
    ForPanels(s.outputs, [=](int64_t column, auto vectors) {
      const float *tiles = left + p * left_position, *panel = panels + p * s.Tap() + column * s.inputs;
      float* to = right + p * position + column;
      ForRows(group.count, vectors, [=](int64_t tile, auto rows, auto vectors) {
        Vector sums[rows][vectors] = {};
        Product<rows, vectors>(tiles + tile * left_step, left_step, 1, panel, vectors * kLanes, s.inputs, sums);
        Store<rows, vectors>(sums, to + tile * step, step);
      });
    });
  }
  for (int64_t c = 0; c < s.outputs; c += kLanes) {
    ForTiles(s, group, [=](int64_t i, int64_t image, int64_t y, int64_t x) INLINE {
      Vector in[4][4], out[2][2];
      for (int p = 0; p < kPositions; ++p) in[p / 4][p % 4] = *Vectors(right + p * position + i * step + c);
      Transform2D<ToResult>(in, out);
      float* pixels = results + image * s.Result() + y * row + x * s.outputs + c;
      const bool below = y + 1 < s.height, beside = x + 1 < s.width;
      *Vectors(pixels) = out[0][0];
      if (beside) *Vectors(pixels + s.outputs) = out[0][1];
      if (below) *Vectors(pixels + row) = out[1][0];
      if (below && beside) *Vectors(pixels + row + s.outputs) = out[1][1];
    });
  }
}

// Adds a group's part to the gradient of the transformed kernel, [16, I, O], its positions in rows [top, bottom).
void GradientTiled(Shape s, const float* images, const float* dy, const Group& group, int top, int bottom,
                   float* gradient) {
  const float* left = TransformImages(s, images, group, top, bottom);
  const float* right = TransformResults(s, dy, group);
  const int64_t left_step = Step(s, s.inputs), right_step = Step(s, s.outputs);
  for (int64_t p = 4 * top; p < 4 * bottom; ++p) {
    ForPanels(s.outputs, [=](int64_t column, auto vectors) {
      const float* pixels = left + p * Position(s, s.inputs);
      const float* results = right + p * Position(s, s.outputs) + column;
      float* to = gradient + p * s.Tap() + column;
      ForRows(s.inputs, vectors, [=](int64_t input, auto rows, auto vectors) {
        Vector sums[rows][vectors] = {};
        Product<rows, vectors>(pixels + input, 1, left_step, results, right_step, group.count, sums);
        Add<rows, vectors>(sums, to + input * s.outputs, s.outputs);
      });
    });
  }
}

}  // namespace

#endif  // NCL_FILTERING_H_
