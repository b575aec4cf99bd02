// Inference of convolutional networks, as XLA custom calls for CPU: batch normalisation is folded into weights and
// biases, and bias, shortcut and ReLU are a part of the convolution. Dense float32 arrays: images [B, H, W, I], results
// and what is added to them [B, H', W', O], the latter or nothing; then results are clamped to [0, most] where `most` is
// not negative.

#include "affine.h"
#include "filtering.h"

namespace {

constexpr int64_t kBand = 1 << 18;     // floats of an image that are worked on at once, to stay in the L2 cache
constexpr int64_t kTiles = 4 * kTall;  // transformed together
constexpr int64_t kPooled = 14;        // rows of a pooled image that are worked on at once

using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

thread_local Floats padded, left_tiles, right_tiles;

Finish FinishOf(const Array& bias, const Array& add, float most) {
  Finish finish = {bias.typed_data(), add.element_count() ? add.typed_data() : nullptr};
  if (most >= 0) finish.low = 0, finish.high = most;
  return finish;
}

// Rows [first, first + height) and columns [left, left + width) of an image, with zeros outside of it.
const float* Cut(const float* image, ffi::Span<const int64_t> in, int64_t first, int64_t height, int64_t left,
                 int64_t width) {
  const int64_t inputs = in[3], row = width * inputs, before = std::max<int64_t>(-left, 0);
  const int64_t from = left + before, seen = std::min(in[2] - from, width - before);
  float* start = padded.Resize(height * row);
  for (int64_t y = first; y < first + height; ++y) {
    float* to = start + (y - first) * row;
    if (y < 0 || y >= in[1]) {
      std::fill_n(to, row, 0.0f);
    } else {
      float* pixels = std::fill_n(to, before * inputs, 0.0f);
      pixels = std::copy_n(image + (y * in[2] + from) * inputs, seen * inputs, pixels);
      std::fill(pixels, to + row, 0.0f);
    }
  }
  return start;
}

// The weights come in panels, see affine.h, their rows [kernel_size, kernel_size, I].
ffi::Error Convolved(ffi::ThreadPool pool, Array x, Array weights, Array bias, Array add, Result y,
                     int64_t kernel_size, int64_t stride, int64_t before_y, int64_t before_x, float most) {
  const auto in = x.dimensions(), out = y->dimensions();
  const int64_t inputs = in[3], outputs = out[3], width = (out[2] - 1) * stride + kernel_size;
  const int64_t band = std::clamp<int64_t>(kBand / (stride * width * inputs), 1, out[1]);
  const int64_t bands = (out[1] + band - 1) / band;
  ParallelFor(pool, in[0] * bands, [&](int64_t i) {
    const int64_t top = i % bands * band, count = std::min(band, out[1] - top);
    const float* image = x.typed_data() + i / bands * in[1] * in[2] * inputs;
    const float* seen = Cut(image, in, top * stride - before_y, (count - 1) * stride + kernel_size, -before_x, width);
    const int64_t place = (i / bands * out[1] + top) * out[2] * outputs, row = width * inputs;
    Finish finish = FinishOf(bias, add, most);
    if (finish.add) finish.add += place;
    const Left left = {{seen, stride * inputs, out[2], stride * row}, kernel_size * inputs, kernel_size, row};
    const int64_t pixels = count * out[2];
    Affine(left, pixels, weights.typed_data(), finish, outputs, {y->typed_data() + place, outputs, pixels, 0});
  });
  return ffi::Error::Success();
}

// Rows [first, first + count) of a pooled image: the largest of every 3x3 window at a stride of 2 of numbers that are not
// negative, of which `from` has rows [top, bottom).
void Pool(const float* from, int64_t top, int64_t bottom, int64_t width, int64_t channels, int64_t first, int64_t count,
          int64_t out_width, float* to) {
  for (int64_t y = first; y < first + count; ++y) {
    for (int64_t x = 0; x < out_width; ++x, to += channels) {
      for (int64_t c = 0; c < channels; c += kLanes) {
        Vector most = {};
        for (int64_t v = std::max(2 * y - 1, top); v < std::min(2 * y + 2, bottom); ++v) {
          for (int64_t u = std::max<int64_t>(2 * x - 1, 0); u < std::min(2 * x + 2, width); ++u) {
            const Vector here = *Vectors(from + ((v - top) * width + u) * channels + c);
            most = (here <= most) | (most != most) ? most : here;  // one that is no number stays
          }
        }
        *Vectors(to + c) = most;
      }
    }
  }
}

// A ResNet's stem: a convolution at a stride of 2, ReLU and max pooling, between which the largest images of all do not
// leave the cache. O is a multiple of kLanes.
ffi::Error Stem(ffi::ThreadPool pool, Array x, Array weights, Array bias, Result y, int64_t kernel_size) {
  const auto in = x.dimensions(), out = y->dimensions();
  const int64_t inputs = in[3], outputs = out[3], height = (in[1] + 1) / 2, width = (in[2] + 1) / 2;
  const int64_t seen_width = (width - 1) * 2 + kernel_size, row = seen_width * inputs;
  const int64_t bands = (out[1] + kPooled - 1) / kPooled;
  ParallelFor(pool, in[0] * bands, [&](int64_t i) {
    const int64_t first = i % bands * kPooled, count = std::min(kPooled, out[1] - first);
    const int64_t top = std::max<int64_t>(2 * first - 1, 0), bottom = std::min(2 * (first + count), height);
    const float* image = x.typed_data() + i / bands * in[1] * in[2] * inputs;
    const float* seen = Cut(image, in, 2 * top - kernel_size / 2, (bottom - top - 1) * 2 + kernel_size,
                            -kernel_size / 2, seen_width);
    const int64_t pixels = (bottom - top) * width;
    float* convolved = right_tiles.Resize(pixels * outputs);
    const Left left = {{seen, 2 * inputs, width, 2 * row}, kernel_size * inputs, kernel_size, row};
    Affine(left, pixels, weights.typed_data(), {bias.typed_data(), nullptr, 0}, outputs,
           {convolved, outputs, pixels, 0});
    Pool(convolved, top, bottom, width, outputs, first, count, out[2],
         y->typed_data() + (i / bands * out[1] + first) * out[2] * outputs);
  });
  return ffi::Error::Success();
}

// The tiles of 2x2 results of a 3x3 convolution with one zero of padding at a stride of 1, through all images.
struct Tiles {
  int64_t height, width, across, each;  // pixels; tiles in a row and in an image

  // Calls work(pixel, place, inside) for the N x N pixels from `before` rows and columns before the first result on.
  template <int N, typename Work>
  void Pixels(int64_t tile, int64_t before, const Work& work) const {
    const int64_t image = tile / each * height * width;
    const int64_t top = tile % each / across * 2 - before, left = tile % across * 2 - before;
    for (int p = 0; p < N * N; ++p) {
      const int64_t y = top + p / N, x = left + p % N;
      work(p, image + y * width + x, y >= 0 && y < height && x >= 0 && x < width);
    }
  }
};

// Tiles [first, first + count), transformed: [16, count, I].
void TransformTiles(const Tiles& tiles, const float* x, int64_t inputs, int64_t first, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    const float* pixels[kPositions];
    tiles.Pixels<4>(first + i, 1, [&](int p, int64_t place, bool inside) {
      pixels[p] = inside ? x + place * inputs : nullptr;
    });
    for (int64_t c = 0; c < inputs; c += kLanes) {
      Vector in[4][4], out[4][4];
      for (int p = 0; p < kPositions; ++p) in[p / 4][p % 4] = pixels[p] ? *Vectors(pixels[p] + c) : Vector{};
      Transform2D<OfImage>(in, out);
      for (int p = 0; p < kPositions; ++p) *Vectors(to + (p * count + i) * inputs + c) = out[p / 4][p % 4];
    }
  }
}

// The results of the tiles, from [16, count, O].
void FinishTiles(const Tiles& tiles, const float* from, int64_t outputs, int64_t first, int64_t count,
                 const Finish& finish, float* y) {
  for (int64_t i = 0; i < count; ++i) {
    int64_t places[4];
    tiles.Pixels<2>(first + i, 0, [&](int p, int64_t place, bool inside) { places[p] = inside ? place : -1; });
    for (int64_t c = 0; c < outputs; c += kLanes) {
      Vector in[4][4], out[2][2];
      for (int p = 0; p < kPositions; ++p) in[p / 4][p % 4] = *Vectors(from + (p * count + i) * outputs + c);
      Transform2D<ToResult>(in, out);
      for (int p = 0; p < 4; ++p) {
        if (places[p] < 0) continue;
        const int64_t place = places[p] * outputs + c;
        Vector value = out[p / 2][p % 2] + *Vectors(finish.bias + c);
        if (finish.add) value += *Vectors(finish.add + place);
        *Vectors(y + place) = finish.Clamp(value);
      }
    }
  }
}

// A 3x3 convolution with one zero of padding at a stride of 1, by minimal filtering. The transformed weights come in
// panels, [16, O / kPanel, I, kPanel]; I and O are multiples of kPanel.
ffi::Error Filtered(ffi::ThreadPool pool, Array x, Array weights, Array bias, Array add, Result y, float most) {
  const auto in = x.dimensions();
  const int64_t inputs = in[3], outputs = y->dimensions()[3], across = (in[2] + 1) / 2;
  const Tiles tiles = {in[1], in[2], across, (in[1] + 1) / 2 * across};
  const Finish finish = FinishOf(bias, add, most);
  const int64_t total = in[0] * tiles.each, chunks = (total + kTiles - 1) / kTiles;
  ParallelFor(pool, chunks, [&](int64_t chunk) {
    const int64_t first = chunk * total / chunks, count = (chunk + 1) * total / chunks - first;
    float* left = left_tiles.Resize(kPositions * count * inputs);
    float* right = right_tiles.Resize(kPositions * count * outputs);
    TransformTiles(tiles, x.typed_data(), inputs, first, count, left);
    for (int64_t p = 0; p < kPositions; ++p) {
      const Left factor = {{left + p * count * inputs, inputs, count, 0}, inputs};
      Affine(factor, count, weights.typed_data() + p * inputs * outputs, {}, outputs,
             {right + p * count * outputs, outputs, count, 0});
    }
    FinishTiles(tiles, right, outputs, first, count, finish, y->typed_data());
  });
  return ffi::Error::Success();
}

auto Bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>().Arg<Array>().Arg<Array>(); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(NclConvolved, Convolved,
                              Bind()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Attr<int64_t>("kernel_size")
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("before_y")
                                  .Attr<int64_t>("before_x")
                                  .Attr<float>("most"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(NclFiltered, Filtered, Bind().Arg<Array>().Ret<Array>().Attr<float>("most"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(NclStem, Stem, Bind().Ret<Array>().Attr<int64_t>("kernel_size"));
