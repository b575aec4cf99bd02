"""The CIFAR ResNet with blocks of neighbouring pixels in the channel axis, for devices with wide registers.

A TPU's registers and matrix units have 128 lanes, of which 16 channels fill 16. Here an activation `[B, H, W, C]` is
kept as `[B, H / h, W / w, h * w * C]`: 2 x 4 pixels of 16 channels, 2 x 2 of 32 and 1 x 2 of 64 fill the lanes. Half of
the activations lie on a *shifted* grid, whose blocks begin half a block before the image: from a grid to the shifted
one and back, a 3x3 convolution of pixels reaches 2 x 2 blocks, not 3 x 3. The variables are the plain network's.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ncl_jax.models.cifar_resnet import CifarResNet
from ncl_jax.models.layers import BatchNorm, normalize, num_rows, own_copy, running_average, whole_sums

LANES = 128
BLOCKS = ((2, 4), (2, 2), (1, 2), (1, 1))  # pixels, the most first


class Grid(NamedTuple):
    """How the pixels of square images lie in blocks."""

    side: int  # of the images, pixels
    block: tuple[int, int]
    shifted: bool = False

    @property
    def offsets(self) -> tuple[int, int]:
        """Pixels of the first blocks, by axis, that lie before the image."""
        return (self.block[0] // 2, self.block[1] // 2) if self.shifted else (0, 0)

    @property
    def counts(self) -> tuple[int, int]:
        """Blocks by axis."""
        pairs = zip(self.block, self.offsets, strict=True)
        return tuple(-(-(self.side + offset) // block) for block, offset in pairs)  # type: ignore[return-value]

    @property
    def pixels(self) -> int:
        """Pixels in a block."""
        return self.block[0] * self.block[1]

    def keep(self, x: jax.Array) -> jax.Array:
        """`x [B, P, Q, lanes]` with zeros for the pixels that do not lie in the image."""
        inside = self.inside()
        if inside.all():
            return x
        return x * np.repeat(inside, x.shape[-1] // self.pixels, axis=-1).astype(x.dtype)

    def numbers(self, x: jax.Array) -> float:
        """How many pixels in the image a lane of `x [B, P, Q, lanes]` holds on average."""
        return num_rows(x) * self.side**2 / self.pixels

    def means(self, a: jax.Array, b: jax.Array) -> list[jax.Array]:
        """Of `a` and of `a * b`, float32 `[B, P, Q, lanes]`, over batch and pixels: [lanes], the same for all of a
        block. `a` is 0 outside the images."""
        sums = whole_sums(jnp.stack([jnp.sum(array, (0, 1, 2)) for array in (a, a * b)]))
        eye = np.eye(sums.shape[1] // self.pixels, dtype=np.float32)
        same = np.tile(eye, (self.pixels,) * 2) / np.float32(num_rows(a) * self.side**2)
        return list(jnp.matmul(sums, same, precision=lax.Precision.HIGHEST))

    def inside(self) -> np.ndarray:
        """bool [blocks, blocks, pixels]: which pixels lie in the image."""
        rows, columns = (
            _within(np.arange(count)[:, None] * block + np.arange(block) - offset, self.side)
            for count, block, offset in zip(self.counts, self.block, self.offsets, strict=True)
        )
        return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(*self.counts, self.pixels)


def _within(pixel, side):
    return (pixel >= 0) & (pixel < side)


def make_grid(side: int, channels: int, shifted: bool = False) -> Grid:
    """The grid whose blocks fill the most lanes and divide the side."""
    fits = (b for b in BLOCKS if b[0] * b[1] * channels <= LANES and not side % b[0] and not side % b[1])
    return Grid(side, next(fits, (1, 1)), shifted)


class Axis(NamedTuple):
    """A convolution of pixels as one of blocks, along one axis."""

    taps: np.ndarray  # 0 or 1 [T, block of inputs, block of outputs, k]: which of the kernel's k numbers lies there
    stride: int  # blocks
    padding: tuple[int, int]  # blocks


def _axis(size, stride, inputs, outputs):
    """The `Axis` from `inputs` to `outputs`, each (block, offset, number of blocks)."""
    (block_in, offset_in, count_in), (block_out, offset_out, count_out) = inputs, outputs
    step = stride * block_out // block_in
    places = [
        (*divmod(stride * (pixel - offset_out) + k - size // 2 + offset_in, block_in), pixel, k)
        for pixel, k in itertools.product(range(block_out), range(size))
    ]
    first, last = min(places)[0], max(places)[0]
    taps = np.zeros((last - first + 1, block_in, block_out, size))
    for block, place, pixel, k in places:
        taps[block - first, place, pixel, k] = 1
    return Axis(taps, step, (-first, (count_out - 1) * step + last - (count_in - 1)))


class Layer(NamedTuple):
    """What a convolution does, beside its numbers: layers of one kind are prepared together."""

    kernel_shape: tuple[int, int, int, int]  # k, k, I, O
    stride: int
    inputs: Grid
    outputs: Grid


@functools.lru_cache(maxsize=64)
def _axes(layer):
    sides = [zip(grid.block, grid.offsets, grid.counts, strict=True) for grid in (layer.inputs, layer.outputs)]
    return [_axis(layer.kernel_shape[0], layer.stride, *axis) for axis in zip(*sides, strict=True)]


@functools.lru_cache(maxsize=64)
def _selection(layer):
    """0 or 1 `[T, pixels of inputs, k * k * O, pixels of outputs * O]`: where the kernel's numbers go.

    A product with it is one pass of the matrix unit; the same by slices and shifts takes several times as long as the
    convolution itself.
    """
    rows, columns = _axes(layer)
    taps = np.einsum("yiuk,xjvl->yxijkluv", rows.taps, columns.taps)
    size, _, _, outputs = layer.kernel_shape
    taps = taps.reshape(-1, layer.inputs.pixels, size**2, layer.outputs.pixels)
    placed = np.einsum("tiku,op->tikoup", taps, np.eye(outputs))
    return placed.reshape(*taps.shape[:2], size**2 * outputs, -1)


def kernels_of_blocks(layer: Layer, kernels: jax.Array) -> list[jax.Array]:
    """Kernels `[N, k, k, I, O]` of pixels as N kernels of blocks, `[T, T', pixels * I, pixels' * O]`."""
    number, size, _, inputs, outputs = kernels.shape
    flat = kernels.transpose(0, 3, 1, 2, 4).reshape(number, inputs, size**2 * outputs)
    select = jnp.asarray(_selection(layer), kernels.dtype)
    placed = jnp.einsum("nck,tikq->tincq", flat, select, precision=lax.Precision.HIGHEST)
    rows, columns = _axes(layer)
    shape = (len(rows.taps), len(columns.taps), layer.inputs.pixels * inputs, layer.outputs.pixels * outputs)
    return [kernel.reshape(shape) for kernel in lax.split(placed, (1,) * number, axis=2)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, strides: tuple, padding: tuple) -> jax.Array:
    """A convolution of blocks, `[B, P, Q, I]` and `[T, T', I, O]`."""
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _forward(x, kernel, strides, padding):
    return convolve(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, saved, grad):
    x, kernel = saved
    (grad_x,) = jax.linear_transpose(lambda x: convolve.fun(x, kernel, strides, padding), x)(grad)
    if strides == (1, 1) and grad.shape[1] > x.shape[1]:
        # The larger of the two slides over nothing: XLA would turn it around, pixel by pixel, to slide the smaller.
        sides = [tuple(t - 1 - p for p in pads) for t, pads in zip(kernel.shape, padding, strict=False)]
        numbers = lax.ConvDimensionNumbers((3, 0, 1, 2), (3, 0, 1, 2), (3, 2, 0, 1))
        return grad_x, lax.conv_general_dilated(grad, x, (1, 1), sides, dimension_numbers=numbers)[::-1, ::-1]
    (grad_kernel,) = jax.linear_transpose(lambda k: convolve.fun(x, k, strides, padding), kernel)(grad)
    return grad_x, grad_kernel


convolve.defvjp(_forward, _backward)


def to_blocks(images: jax.Array, grid: Grid) -> jax.Array:
    """`[B, side, side, C]` on a grid, zeros around them."""
    (h, w), (rows, columns) = grid.block, grid.counts
    before = [(offset, count * block - side - offset) for offset, count, block, side in
              zip(grid.offsets, grid.counts, grid.block, images.shape[1:3], strict=True)]  # fmt: skip
    padded = jnp.pad(images, ((0, 0), *before, (0, 0)))
    split = padded.reshape(len(images), rows, h, columns, w, -1)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(len(images), rows, columns, -1)


class PackedCifarResNet(CifarResNet):
    """The same network with the same variables; it trains in blocks, and does everything else as the plain one does."""

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features `[B, 4 * width]` of square images, as `CifarResNet`."""
        plain = not train or self.is_initializing() or self.freeze or self.remat or x.shape[1] != x.shape[2]
        if plain:
            return super().__call__(x, train)
        variables = self.variables
        blocks = _Blocks(self.depth, self.width, self.dtype, x)
        features, moments = blocks.features(variables["params"], x)
        for name, stats in blocks.running(variables["batch_stats"], moments).items():
            self.put_variable("batch_stats", name, stats)
        return features


Path = tuple[str, ...]  # of a convolution among the variables


def norm_of(path: Path) -> Path:
    """The batch normalisation that follows a convolution."""
    return (*path[:-1], path[-1].replace("conv", "bn"))


def _get(tree, path):
    return functools.reduce(lambda node, name: node[name], path, tree)


class _Blocks:
    """A training pass over images of one shape."""

    def __init__(self, depth: int, width: int, dtype: Any, images: jax.Array):
        self._depth, self._width, self._dtype = depth, width, dtype
        self._rows, self._side = num_rows(images), images.shape[1]
        self._layers = dict(self._plan(images.shape[3]))
        self._kinds: dict[Layer, list[Path]] = {}
        for path, layer in self._layers.items():
            self._kinds.setdefault(layer, []).append(path)

    def _plan(self, colours):
        """The convolutions in their order: (path, layer)."""
        side, channels, grid = self._side, self._width, make_grid(self._side, self._width)
        yield ("conv1",), Layer((3, 3, colours, channels), 1, grid._replace(shifted=True), grid)
        for stage, block in itertools.product(range(3), range((self._depth - 2) // 6)):
            stride = 2 if stage > 0 and block == 0 else 1
            side, outputs = -(-side // stride), self._width * 2**stage
            after = make_grid(side, outputs)
            name, shifted = f"layer{stage + 1}_{block}", after._replace(shifted=True)
            yield (name, "conv1"), Layer((3, 3, channels, outputs), stride, grid, shifted)
            yield (name, "conv2"), Layer((3, 3, outputs, outputs), 1, shifted, after)
            grid, channels = after, outputs

    def features(self, params: Any, images: jax.Array) -> tuple[jax.Array, dict[Path, tuple[jax.Array, jax.Array]]]:
        """`[B, 4 * width]`, and for each convolution the mean and the biased variance, float32 [lanes]."""
        (kernels, factors), moments = self._prepare(params), dict[Path, tuple[jax.Array, jax.Array]]()

        def convolve_and_normalize(x, path):
            y = convolve(x, kernels[path], *_windows(self._layers[path]))
            y, mean, var = normalize(y, *factors[path], BatchNorm.epsilon, self._layers[path].outputs)
            moments[path] = (mean, var)
            return y

        stem = ("conv1",)
        x = to_blocks(images.astype(self._dtype), self._layers[stem].inputs)
        x = jax.nn.relu(convolve_and_normalize(x, stem))
        _, *paths = self._layers
        for first, second in zip(paths[::2], paths[1::2], strict=True):
            y = jax.nn.relu(convolve_and_normalize(x, first))
            y = convolve_and_normalize(self._layers[first].outputs.keep(y), second)
            x = jax.nn.relu(y + _shortcut(x, self._layers[first], self._layers[second].outputs))
        means = jnp.mean(x.astype(jnp.float32), axis=(1, 2))  # [B, pixels * 4 * width]
        return means.reshape(len(means), -1, 4 * self._width).mean(1), moments

    def _prepare(self, params):
        """By path: the kernel of blocks; the normalisation's scale and bias, float32 [lanes]."""
        kernels: dict[Path, jax.Array] = {}
        factors: dict[Path, tuple[jax.Array, jax.Array]] = {}
        for layer, paths in self._kinds.items():
            raw = own_copy(jnp.stack([_get(params, path)["kernel"] for path in paths])).astype(self._dtype)
            kernels.update(zip(paths, kernels_of_blocks(layer, raw), strict=True))
            norms = [_get(params, norm_of(path)) for path in paths]
            pairs = jnp.stack([norm[name] for norm in norms for name in ("scale", "bias")])
            tiled = [row[0] for row in lax.split(jnp.tile(pairs, layer.outputs.pixels), (1,) * len(pairs))]
            factors.update(zip(paths, zip(tiled[::2], tiled[1::2], strict=True), strict=True))
        return kernels, factors

    def running(self, stats: Any, moments: dict[Path, tuple[jax.Array, jax.Array]]) -> dict[str, Any]:
        """The running statistics after the pass, as the plain network's."""
        new: dict[str, Any] = {}
        for path, layer in self._layers.items():
            count, channels = self._rows * layer.outputs.side**2, layer.kernel_shape[3]
            old = _get(stats, norm_of(path))
            mean, var = (moment[:channels] for moment in moments[path])
            node = functools.reduce(lambda node, name: node.setdefault(name, {}), norm_of(path), new)
            node["mean"], node["var"] = running_average(old["mean"], old["var"], mean, var, count, BatchNorm.update)
        return new


def _windows(layer):
    """A layer's strides and padding by axis, in blocks."""
    rows, columns = _axes(layer)
    return (rows.stride, columns.stride), (rows.padding, columns.padding)


def _shortcut(x, layer, outputs):
    """Option A (`cifar_resnet.shortcut_a`) on blocks: a 1x1 convolution that gives every channel its place."""
    _, _, before, after = layer.kernel_shape
    if layer.stride == 1 and before == after:
        return x
    place = Layer((1, 1, before, after), layer.stride, layer.inputs, outputs)
    first = (after - before) // 2
    with jax.ensure_compile_time_eval():
        kernel = kernels_of_blocks(place, jnp.eye(before, after, first, dtype=x.dtype)[None, None, None])[0]
    strides, padding = _windows(place)
    numbers, exact = ("NHWC", "HWIO", "NHWC"), lax.Precision.HIGHEST
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, precision=exact)
