"""The C++ kernels equal XLA's convolution, value and both gradients, and its sums."""

import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncl_jax.config import base_config, build
from ncl_jax.errors import ConfigError
from ncl_jax.models import cpu, layers
from ncl_jax.models.cifar_resnet import CifarResNet
from ncl_jax.models.cpu import conv, library
from ncl_jax.runtime.devices import make_mesh

LANES = library.lanes()

# batch, height, width, channels in and out, stride and, if not 3, the kernel's side: by tiles and directly, with every
# rest of rows, columns, parts and slices; few channels and many
SHAPES = [
    (3, 8, 8, 16, 16, 1), (9, 7, 5, 8, 3 * LANES, 1), (2, 32, 32, 16, 16, 1), (2, 8, 8, 64, 64, 1), (3, 8, 8, 3, 16, 1),
    (3, 8, 8, 16, 32, 2), (2, 9, 7, LANES, LANES, 2), (2, 6, 11, 3 * LANES, LANES, 2), (2, 1, 1, LANES, LANES, 2),
    (2, 1, 2, LANES, LANES, 1), (1, 5, 13, 5, LANES, 1), (2, 7, 8, 3, LANES, 3), (1, 4, 4, 128, 128, 1),
    (3, 7, 5, LANES, 3 * LANES, 1), (5, 9, 7, 128, 144, 1), (3, 4, 6, 80, LANES, 2), (9, 13, 10, 3, 2 * LANES, 2, 7),
    (2, 6, 7, LANES, 3 * LANES, 2, 1), (2, 7, 7, 144, 48, 2, 1),
]  # fmt: skip

needs_kernels = pytest.mark.usefixtures("kernels")


def arrays(shape, kernels=1):
    batch, height, width, inputs, outputs, _, *rest = shape
    size = rest[0] if rest else 3
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, height, width, inputs)), jnp.float32)
    return x, jnp.asarray(rng.normal(size=(kernels, size, size, inputs, outputs)), jnp.float32) / inputs


def values_and_gradients(function, x, kernel):
    def scalar(x, kernel):
        y = function(x, kernel)
        return jnp.sum(jnp.sin(y) * (1 + jnp.arange(y.size).reshape(y.shape) % 7)), y

    (_, y), gradients = jax.jit(jax.value_and_grad(scalar, (0, 1), has_aux=True))(x, kernel)
    return (y, *gradients)


@needs_kernels
def test_the_kernels_compile():
    assert cpu.load() == ""


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_plain_convolution(shape):
    x, (kernel,) = arrays(shape)
    stride, padding = shape[5], len(kernel) // 2
    assert conv.supports(x, kernel, stride, padding)
    ours = values_and_gradients(lambda x, k: conv.conv(x, k, stride), x, kernel)
    plain = values_and_gradients(lambda x, k: layers.convolve(x, k, stride, padding), x, kernel)
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * float(jnp.abs(other).max()))


@needs_kernels
@pytest.mark.parametrize(
    "shape", [(3, 8, 8, LANES), (2, 7, 9, 2 * LANES), (1, 1, 2, LANES), (2, 5, 4, 12), (0, 4, 4, LANES)]
)
def test_the_largest_of_a_window_is_as_plain_loops_find_it(shape):
    """Bit-identical: of equal ones the first takes the gradient; other channels, or no image, are XLA's."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=shape), 0).astype(np.float32)  # many zeros, as after a rectifier
    batch, height, width, channels = shape
    y, dx = np.zeros((batch, -(-height // 2), -(-width // 2), channels), np.float32), np.zeros_like(x)
    dy = rng.integers(1, 9, y.shape).astype(np.float32)
    for n, row, column, c in np.ndindex(y.shape):
        rows, columns = slice(max(0, 2 * row - 1), 2 * row + 2), slice(max(0, 2 * column - 1), 2 * column + 2)
        window = x[n, rows, columns, c]
        y[n, row, column, c] = window.max()
        i, j = np.unravel_index(window.argmax(), window.shape)
        dx[n, rows, columns, c][i, j] += dy[n, row, column, c]
    got, pull = jax.vjp(jax.jit(cpu.OPERATIONS.max_pool), x)
    np.testing.assert_array_equal(got, y)
    np.testing.assert_array_equal(pull(jnp.asarray(dy))[0], dx)


@needs_kernels
def test_what_is_no_number_stays_in_the_largest():
    x = jnp.ones((1, 4, 4, LANES)).at[0, 0, 0, 3].set(jnp.nan).at[0, 3, 3, 5].set(jnp.nan)
    np.testing.assert_array_equal(cpu.OPERATIONS.max_pool(x), layers.max_pool(x))


@needs_kernels
@pytest.mark.parametrize(
    "shape", [(64, 8, 8, 16), (3, 7, 5, 3 * LANES), (1, LANES), (5, 17 * LANES), (4, 3, 12), (0, LANES)]
)
def test_the_sums_equal_those_in_float64(shape):
    """Of many rows and of a few, whatever is left over; other channels, or none, are XLA's."""
    a, b = np.random.default_rng(0).normal(1, 1, (2, *shape)).astype(np.float32)
    axes = tuple(range(len(shape) - 1))
    for got, terms in zip(jax.jit(cpu.OPERATIONS.sums)(a, b), (a, a.astype(float) * b), strict=True):
        size = np.sum(np.abs(terms), axes, dtype=float)
        np.testing.assert_array_less(np.abs(got - np.sum(terms, axes, dtype=float)), 5e-7 * size + 1e-30)


@needs_kernels
@pytest.mark.parametrize(("operations", "called"), [(layers.XLA, False), (cpu.OPERATIONS, True)])
def test_a_network_in_training_calls_every_kernel(operations, called):
    model = CifarResNet(8, LANES, jnp.float32, operations)
    x = jnp.ones((2, 8, 8, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, True))

    def loss(params, stats):
        return jnp.sum(model.apply({"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"])[0])

    text = jax.jit(jax.grad(loss)).lower(variables["params"], variables["batch_stats"]).as_text()
    for target in ("NclConv", "NclConvGradient", "NclConvImageGradient", "NclSums"):
        assert (f"@{target}(" in text) == called, target


@needs_kernels
def test_works_under_vmap():
    x, kernels = arrays(SHAPES[0], kernels=3)
    ours = jax.vmap(lambda k: conv.conv(x, k, 1))(kernels)
    each = jnp.stack([layers.convolve(x, k, 1, 1) for k in kernels])
    np.testing.assert_allclose(ours, each, atol=1e-5)


@needs_kernels
def test_gives_the_same_bits_every_time():
    """Whichever thread takes which part: the sums have a fixed order."""
    x, (kernel,) = arrays((64, 8, 8, 16, 16, 1))
    gradient = jax.grad(lambda k: jnp.sum(jnp.square(conv.conv(x, k, 1))))
    function = jax.jit(lambda kernel: (gradient(kernel), *cpu.OPERATIONS.sums(x, x)))
    first = function(kernel)
    for _ in range(20):
        for one, other in zip(function(kernel), first, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize(
    "shape", [(3, 8, 8, 64, 64, 1), (2, 9, 7, 16, 48, 2), (2, 7, 7, 144, 128, 1), (2, 9, 8, 3, 16, 2, 7)]
)
def test_vectors_of_8_and_16_lanes_give_the_same_bits(monkeypatch, shape):
    """What a run computes does not depend on the vectors of the machine that continues it."""
    x, (kernel,) = arrays(shape)

    def results(lanes):
        library._register(library._build("c++", lanes), str(lanes))
        monkeypatch.setattr(jax.ffi, "ffi_call", lambda name, *args, **rest: ffi_call(f"{name}{lanes}", *args, **rest))
        return [*values_and_gradients(lambda x, k: conv.conv(x, k, shape[5]), x, kernel), *cpu.OPERATIONS.sums(x, x)]

    ffi_call = jax.ffi.ffi_call
    for one, other in zip(results(8), results(16), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "change", [{"dtype": jnp.bfloat16}, {"outputs": 12}, {"outputs": 528}, {"outputs": 0}, {"size": 1}, {"padding": 0}]
)
def test_everything_else_goes_to_xla(change):
    wanted = {"dtype": jnp.float32, "outputs": 16, "size": 3, "padding": 1} | change
    x = jnp.ones((2, 6, 6, 8), wanted["dtype"])
    kernel = jnp.ones((wanted["size"], wanted["size"], 8, wanted["outputs"]), wanted["dtype"])
    program = jax.jit(lambda x, k: conv.convolve(x, k, 1, wanted["padding"])).lower(x, kernel).as_text()
    assert "NclConv" not in program and "stablehlo.convolution" in program


def chosen(conv, data_devices=1):
    """The operations of a configuration."""
    config = base_config()
    config.run.conv = conv
    return build.operations(config, make_mesh(data_devices))


def test_one_cpu_device_takes_the_kernels_and_several_take_xla():
    assert chosen("auto", 8) is chosen("xla") is layers.XLA
    with pytest.raises(ConfigError, match=r"run\.conv=native is not available: they are for one CPU device"):
        chosen("native", 8)


@needs_kernels
def test_the_kernels_are_taken_where_they_can_be_had():
    assert chosen("auto") is chosen("native") is cpu.OPERATIONS


def test_without_a_compiler_auto_takes_xla_and_native_is_refused(monkeypatch):
    monkeypatch.setattr(cpu, "load", lambda: "no C++ compiler was found")
    assert chosen("auto") is layers.XLA
    with pytest.raises(ConfigError, match="native is not available: no C"):
        chosen("native")


def test_no_compiler_is_no_error(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no C++ compiler" in library.load.__wrapped__()


def test_nothing_is_compiled_where_nothing_can_be_run(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "statvfs", lambda _: types.SimpleNamespace(f_flag=os.ST_NOEXEC))
    monkeypatch.setattr(library, "_compile", lambda *_: pytest.fail("it was compiled"))
    with pytest.raises(library.Unbuilt, match=f"{tmp_path}.*noexec.*XDG_CACHE_HOME"):
        library._build("c++", LANES)


@needs_kernels
def test_a_compiler_that_fails_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "FLAGS", ("--no-such-flag",))
    assert "could not compile" in library.load.__wrapped__()


@pytest.mark.slow
@needs_kernels
def test_a_damaged_compiled_kernel_is_built_again(monkeypatch, tmp_path):
    """Loading a truncated library would end the program, and an empty one would mean the slow way for ever."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "small.cc").write_text('extern "C" void nothing() {}')
    monkeypatch.setattr(library, "SOURCES", [tmp_path / "small.cc"])
    monkeypatch.setattr(library, "TARGETS", ("nothing",))
    library._build("c++", LANES)
    (path,) = (tmp_path / "ncl_jax").glob("*.so")
    good = path.read_bytes()
    for content in (good[: len(good) // 2], b"", good + b"x"):
        path.write_bytes(content)
        library._build("c++", LANES)
        assert path.read_bytes() == good
    assert [p.name for p in path.parent.glob("*.so")] == [path.name]
