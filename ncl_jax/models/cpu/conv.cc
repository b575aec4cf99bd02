// Convolution with a square kernel and half of it as zeros on each side, and its gradients, as XLA custom calls for CPU.
// Dense float32 arrays: images [B, H, W, I], kernel [K, K, I, O], K odd, results [B, H', W', O], O a multiple of kLanes.
// All work ends in Product, a small matrix product in registers: directly (direct.h) or, for 3x3 at a stride of 1 and I a
// multiple of kLanes, by minimal filtering (filtering.h).

#include "direct.h"
#include "filtering.h"

namespace {

constexpr int kParts = 8;  // of a gradient's work at least, so that threads share it; added in a fixed order

Shape MakeShape(ffi::Span<const int64_t> x, ffi::Span<const int64_t> y, int64_t size, int64_t stride) {
  return {x[0], x[1], x[2], x[3], y[1], y[2], y[3], size, stride};
}

ffi::Error Forward(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> kernel,
                   ffi::ResultBuffer<ffi::F32> y, int64_t stride) {
  const Shape s = MakeShape(x.dimensions(), y->dimensions(), kernel.dimensions()[0], stride);
  const float *images = x.typed_data(), *taps = kernel.typed_data();
  float* results = y->typed_data();
  if (s.Tiled()) {
    Floats panels(kPositions * s.Tap());
    const int64_t tiles = s.batch * TilesOfImage(s), rows = 16;
    ParallelFor(pool, (s.inputs + rows - 1) / rows, [&](int64_t i) {
      TransformKernel(s, taps, i * rows, std::min(s.inputs, (i + 1) * rows), panels.data());
    });
    ParallelFor(pool, (tiles + GroupSize(s) - 1) / GroupSize(s), [&](int64_t i) {
      const int64_t first = i * GroupSize(s);
      ForwardTiled(s, images, panels.data(), {first, std::min(GroupSize(s), tiles - first)}, results);
    });
    return ffi::Error::Success();
  }
  Floats panels(s.size * s.size * s.Tap());
  ToPanels(taps, s.size * s.Taps(), s.outputs, panels.data());
  ParallelFor(pool, s.batch, [&](int64_t i) {
    ForwardDirect(s, images + i * s.Image(), panels.data(), results + i * s.Result());
  });
  return ffi::Error::Success();
}

// By minimal filtering. A part of the work is a part of the tiles, or of the positions where these have many numbers.
void TiledGradient(ffi::ThreadPool& pool, const Shape& s, const float* x, const float* dy, float* dkernel) {
  const int64_t groups = (s.batch * TilesOfImage(s) + GroupSize(s) - 1) / GroupSize(s);
  const int64_t bands = Wide(s) ? 4 : 1, num_parts = std::min(groups, kParts / bands), size = kPositions * s.Tap();
  Floats parts(num_parts * size);
  ParallelFor(pool, num_parts * bands, [&](int64_t i) {
    const int64_t part = i / bands, top = i % bands * 4 / bands, bottom = top + 4 / bands;
    float* gradient = parts.data() + part * size;
    std::fill(gradient + 4 * top * s.Tap(), gradient + 4 * bottom * s.Tap(), 0.0f);
    for (int64_t g = groups * part / num_parts; g < groups * (part + 1) / num_parts; ++g) {
      const int64_t first = g * GroupSize(s), count = std::min(GroupSize(s), s.batch * TilesOfImage(s) - first);
      GradientTiled(s, x, dy, {first, count}, top, bottom, gradient);
    }
  });
  const int64_t slices = s.inputs / kLanes, slice = s.Tap() / slices;
  ParallelFor(pool, slices, [&](int64_t i) {
    for (int64_t p = 0; p < kPositions; ++p) {
      AddParts(parts.data() + p * s.Tap(), num_parts, size, i * slice, (i + 1) * slice);
    }
    KernelOfGradient(s, parts.data(), i * slice, (i + 1) * slice, dkernel);
  });
}

// Directly. A part of the work is a slice of the input channels or, where there are few, of the batch.
void DirectGradient(ffi::ThreadPool& pool, const Shape& s, const float* x, const float* dy, float* dkernel) {
  const int64_t slices = (s.inputs + kSlice - 1) / kSlice, size = s.size * s.size * s.Tap();
  const int64_t num_parts = std::min<int64_t>(s.batch, (kParts + slices - 1) / slices);
  Floats parts(num_parts * size);
  ParallelFor(pool, num_parts * slices, [&](int64_t i) {
    const int64_t part = i / slices, channel = i % slices * kSlice, count = std::min(kSlice, s.inputs - channel);
    const int64_t first = s.batch * part / num_parts, end = s.batch * (part + 1) / num_parts;
    GradientDirect(s, x + first * s.Image(), dy + first * s.Result(), end - first, channel, count,
                   parts.data() + part * size + s.size * s.size * channel * s.outputs);
  });
  ParallelFor(pool, slices, [&](int64_t i) {  // [K * K, count, O] each
    const int64_t channel = i * kSlice, length = std::min(kSlice, s.inputs - channel) * s.outputs;
    const int64_t first = s.size * s.size * channel * s.outputs, taps = s.size * s.size;
    AddParts(parts.data(), num_parts, size, first, first + taps * length);
    for (int64_t tap = 0; tap < taps; ++tap) {
      std::copy_n(parts.data() + first + tap * length, length, dkernel + tap * s.Tap() + channel * s.outputs);
    }
  });
}

ffi::Error Gradient(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> dy,
                    ffi::ResultBuffer<ffi::F32> dkernel, int64_t stride) {
  const Shape s = MakeShape(x.dimensions(), dy.dimensions(), dkernel->dimensions()[0], stride);
  (s.Tiled() ? TiledGradient : DirectGradient)(pool, s, x.typed_data(), dy.typed_data(), dkernel->typed_data());
  return ffi::Error::Success();
}

// kernel [K, K, O, I], K at most 3; I a multiple of kLanes, the stride 2.
ffi::Error ImageGradient(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> dy, ffi::Buffer<ffi::F32> kernel,
                         ffi::ResultBuffer<ffi::F32> dx) {
  const Shape s = MakeShape(dx->dimensions(), dy.dimensions(), kernel.dimensions()[0], 2);
  Floats panels(s.size * s.size * s.Tap());
  ToPanels(kernel.typed_data(), s.size * s.size * s.outputs, s.inputs, panels.data());
  ParallelFor(pool, s.batch, [&](int64_t i) {
    ImageGradientDirect(s, dy.typed_data() + i * s.Result(), panels.data(), dx->typed_data() + i * s.Image());
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(NclConv, Forward, Binding().Attr<int64_t>("stride"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(NclConvGradient, Gradient, Binding().Attr<int64_t>("stride"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(NclConvImageGradient, ImageGradient, Binding());
