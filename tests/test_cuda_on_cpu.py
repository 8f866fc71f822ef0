"""The CPU that stands in for a GPU is as strict as one: what it runs, and what it refuses."""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest
from cuda_on_cpu import compiling, cublas, machine, transfers
from cuda_on_cpu.modules import stand_in
from strict_backend import Sync

from tinygrad_mnist.kernels import Backend

if compiling.compiler() is None:
    pytest.skip("g++ was not found", allow_module_level=True)

SOURCE = r"""
typedef long long i64;
struct Line { double slope; i64 add; };

#define EACH(name, value) \
    extern "C" __global__ void name(const real* x, real* y, i64 n) { \
        i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; \
        if (i < n) y[i] = value; \
    }
EACH(exp_each, exp(x[i]))
EACH(at_most_one, min(x[i], (real)1))

extern "C" __global__ void on_line(const real* x, real* y, i64 n, Line line, double scale) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = (real)(scale * (line.slope * x[i] + line.add));
}

template <int N> __device__ real turned(real value) {
    __shared__ real all[N];
    all[threadIdx.x] = value;
    __syncthreads();
    return all[N - 1 - threadIdx.x];
}

// Each block's sum: within warps by shuffles, then over them.
extern "C" __global__ void __launch_bounds__(128) sums(const real* x, real* y) {
    __shared__ real warps[4];
    real value = turned<128>(x[blockIdx.x * 128 + threadIdx.x]);
    for (int k = 16; k; k >>= 1) value += __shfl_xor_sync(0xffffffffu, value, k);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x) return;
    real total = 0;
    for (int i = 0; i < 4; i++) total += warps[i];
    y[blockIdx.x] = total;
}

extern "C" __global__ void lanes(const int* x, int* y) {
    int t = threadIdx.x, value = x[t];
    y[t] = __shfl_down_sync(0xffffffffu, value, 3, 8);
    y[32 + t] = __shfl_up_sync(0xffffffffu, value, 1);
    y[64 + t] = __shfl_sync(0xffffffffu, value, 5, 16);
    y[96 + t] = (int)__ballot_sync(0xffffffffu, value % 3 == 0);
}

extern "C" __global__ void missed(real* y) {
    if (threadIdx.x == 7) return;
    if (threadIdx.x < 40) __syncthreads();  // some wait here
    else __syncthreads();                   // the others there
    y[threadIdx.x] = 1;
}

extern "C" __global__ void gone(real* y) {
    if (threadIdx.x == 7) return;
    y[threadIdx.x] = __shfl_sync(0xffffffffu, y[threadIdx.x], 0);
}

extern "C" __global__ void not_filled(real* y) {
    __shared__ real all[64];
    if (blockIdx.x == 0) all[threadIdx.x] = 1;
    y[blockIdx.x * blockDim.x + threadIdx.x] = all[threadIdx.x];
}

extern "C" __global__ void too_far(real* y, i64 n) { y[n] = 0; }

extern "C" __global__ void in_order(int* taken, i64* y) {
    y[atomicAdd(taken, 1)] = blockIdx.x * 10 + threadIdx.x;
}
"""


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """A test may set the machine; what it freed is freed before the next begins."""
    before = machine.devices, machine.memory
    yield
    machine.devices, machine.memory = before
    machine.backwards = False
    gc.collect()


@pytest.fixture
def cupy() -> Any:
    return stand_in()["cupy"]


@pytest.fixture
def kernel(cupy: Any) -> Callable[[str], Any]:
    return cupy.RawModule(code=SOURCE, options=("--std=c++17", "-Dreal=float")).get_function


@pytest.fixture
def loaded() -> Backend:
    found = cuda_on_cpu.load()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def captured(cupy: Any, make: Callable[[], Any]) -> tuple[Any, Any]:
    """The graph of what ``make`` does, and what it returns."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        made = make()
        return stream.end_capture(), made


# ---- kernels


@pytest.mark.parametrize("real", ["float", "double"])
def test_a_kernel_of_each_element(cupy: Any, real: str) -> None:
    dtype = np.dtype("f4" if real == "float" else "f8")
    module = cupy.RawModule(code=SOURCE, options=(f"-Dreal={real}",))
    host = np.linspace(-3, 3, 300).astype(dtype)
    x, y = cupy.asarray(host), cupy.empty(300, dtype)
    module.get_function("exp_each")((2,), (256,), (x, y, 300))
    np.testing.assert_allclose(y.get(), np.exp(host), rtol=4 * np.finfo(dtype).eps)
    module.get_function("at_most_one")((2,), (256,), (x, y, 300))
    assert (y.get() == np.minimum(host, 1)).all()


def test_a_struct_by_value(cupy: Any, kernel: Any) -> None:
    line = np.zeros((), [("slope", "f8"), ("add", "i8")])
    line[()] = 2.0, 5
    x, y = cupy.asarray(np.arange(4, dtype=np.float32)), cupy.empty(4, np.float32)
    kernel("on_line")((1,), (32,), (x, y, 4, line, 0.5))
    assert y.get().tolist() == [2.5, 3.5, 4.5, 5.5]


@pytest.mark.parametrize("backwards", [False, True])
def test_barriers_and_shuffles(cupy: Any, kernel: Any, backwards: bool) -> None:
    machine.backwards = backwards
    host = np.random.default_rng(0).integers(-9, 9, 512).astype(np.float32)
    y = cupy.empty(4, np.float32)
    kernel("sums")((4,), (128,), (cupy.asarray(host), y))
    assert (y.get() == host.reshape(4, 128).sum(1)).all()


def test_what_lanes_get(cupy: Any, kernel: Any) -> None:
    x, y = cupy.asarray(np.arange(32, dtype=np.int32)), cupy.empty((4, 32), np.int32)
    kernel("lanes")((1,), (32,), (x, y))
    down, up, one, votes = y.get()
    lane = np.arange(32)
    assert (down == np.where(lane % 8 < 5, lane + 3, lane)).all()
    assert (up == np.where(lane > 0, lane - 1, 0)).all()
    assert (one == lane // 16 * 16 + 5).all()
    assert (votes.view(np.uint32) == sum(1 << int(i) for i in lane[::3])).all()


def test_the_order_of_blocks_and_threads_can_be_turned_round(cupy: Any, kernel: Any) -> None:
    found = []
    for machine.backwards in (False, True):
        y = cupy.empty(6, np.int64)
        kernel("in_order")((2,), (3,), (cupy.zeros(1, np.int32), y))
        found.append(y.get().tolist())
    assert found == [[0, 1, 2, 10, 11, 12], [12, 11, 10, 2, 1, 0]]


def test_a_barrier_that_some_miss(cupy: Any, kernel: Any) -> None:
    message = r"kernel missed: thread \d+ waits at the barrier of line \d+.*some wait here.*there"
    for _ in range(2):  # what was left waiting does not come back
        with pytest.raises(RuntimeError, match=message):
            kernel("missed")((1,), (64,), (cupy.empty(64, np.float32),))
    y = cupy.empty(1, np.float32)
    kernel("sums")((1,), (128,), (cupy.ones(128, np.float32), y))
    assert y.get().tolist() == [128]


def test_a_shuffle_that_some_miss(cupy: Any, kernel: Any) -> None:
    with pytest.raises(RuntimeError, match=r"kernel gone: thread 7 has returned, thread .* waits"):
        kernel("gone")((1,), (32,), (cupy.zeros(32, np.float32),))
    with pytest.raises(RuntimeError, match="a shuffle in a warp of 8 threads"):
        kernel("lanes")((1,), (8,), (cupy.zeros(32, np.int32), cupy.zeros(128, np.int32)))


def test_shared_memory_begins_as_nan(cupy: Any, kernel: Any) -> None:
    y = cupy.empty((2, 64), np.float32)
    kernel("not_filled")((2,), (64,), (y,))
    assert (y.get()[0] == 1).all()
    assert np.isnan(y.get()[1]).all()


def test_a_write_beside_an_array(cupy: Any, kernel: Any) -> None:
    for place in (5, -1):
        with pytest.raises(RuntimeError, match=r"too_far.*wrote beside 20 bytes"):
            kernel("too_far")((1,), (1,), (cupy.empty(5, np.float32), place))


def test_what_nvrtc_does_not_know(cupy: Any) -> None:
    for code in ("float x = INFINITY;", "int64_t x;", "#include <cmath>\nauto x = std::exp(1.0);"):
        module = cupy.RawModule(code=code)
        with pytest.raises(compiling.CompileError):
            module.compile()
    code = 'extern "C" __global__ void f(float* x) { atomicAdd(x, 1.0f); }'
    with pytest.raises(compiling.CompileError, match="atomicAdd"):
        cupy.RawModule(code=code).get_function("f")


def test_a_second_run_compiles_nothing(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy.RawModule(code=SOURCE, options=("-Dreal=float",)).compile()
    monkeypatch.setattr(compiling, "_compile", None)
    cupy.RawModule(code=SOURCE, options=("-Dreal=float",)).compile()


# ---- arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({2: 4.0}, "argument 2 is a Python float, the kernel takes an integer of 8 bytes"),
        ({4: 1}, "argument 4 is a Python int, the kernel takes a float of 8 bytes"),
        ({4: np.float32(1)}, "argument 4 is a float32 of 4 bytes"),
        ({3: np.zeros((), "f8")}, "argument 3 is a float64 of 8 bytes, the kernel takes a struct"),
        ({3: np.zeros((), "i8,i8,i8")}, "argument 3 is a struct of 24 bytes"),
        ({0: np.zeros(4, "f4")}, "argument 0 is a NumPy array of shape"),
        ({0: np.zeros(1, "f4")}, "argument 0 is a float32 of 4 bytes, the kernel takes a pointer"),
        ({0: 1.0}, "argument 0 is a Python float, the kernel takes a pointer"),
        ({2: None}, "argument 2 is a pointer"),
        ({2: "4"}, "Unsupported type <class 'str'>"),
        ({3: np.zeros(1, "f8,i8")[0]}, "Unsupported type <class 'numpy.void'>"),
    ],
)
def test_an_argument_of_another_type(
    cupy: Any, kernel: Any, change: dict[int, Any], message: str
) -> None:
    line = np.zeros((), [("slope", "f8"), ("add", "i8")])
    given = [cupy.zeros(4, np.float32), cupy.zeros(4, np.float32), 4, line, 1.0]
    kernel("on_line")((1,), (4,), tuple(given))
    for place, value in change.items():
        given[place] = value
    with pytest.raises(TypeError, match=message):
        kernel("on_line")((1,), (4,), tuple(given))


def test_pointers(cupy: Any, kernel: Any) -> None:
    x, y = cupy.ones(4, np.float32), cupy.empty(4, np.float32)
    for given in (x.data, x.data.ptr, x):
        y.fill(0)
        kernel("exp_each")((1,), (4,), (given, y, True))  # CuPy's bool is an integer to a kernel
        assert y.get()[0] > 2.7
    kernel("exp_each")((1,), (4,), (None, y, 0))
    with pytest.raises(RuntimeError, match="there is nothing at 0x7"):
        kernel("exp_each")((1,), (4,), (7, y, 4))
    with pytest.raises(TypeError, match="of float64, the kernel takes a pointer to a float of 4"):
        kernel("exp_each")((1,), (4,), (cupy.ones(4), y, 4))
    with pytest.raises(TypeError, match="of int32, the kernel takes a pointer to a float of 4"):
        kernel("exp_each")((1,), (4,), (cupy.ones(4, np.int32), y, 4))
    with pytest.raises(TypeError, match="takes 3 arguments, 2 were given"):
        kernel("exp_each")((1,), (4,), (x, y))


@pytest.mark.parametrize(
    ("name", "grid", "block", "shared"),
    [
        ("exp_each", (1,), (1025,), 0),
        ("exp_each", (1,), (64, 32), 0),
        ("exp_each", (1, 65536), (1,), 0),
        ("exp_each", (1,), (1,), 48 * 1024 + 1),
        ("sums", (1,), (256,), 0),  # more than its __launch_bounds__
        ("sums", (1,), (128,), 48 * 1024 - 128 * 4),
    ],
)
def test_the_limits_of_a_launch(
    cupy: Any, kernel: Any, name: str, grid: Any, block: Any, shared: int
) -> None:
    x = cupy.ones(2048, np.float32)
    given = (x, x, 0) if name == "exp_each" else (x, x)
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidValue"):
        kernel(name)(grid, block, given, shared_mem=shared)


# ---- arrays


@pytest.mark.parametrize(
    "look", [float, bool, int, list, np.asarray, np.exp, lambda x: x.item(), lambda x: x.tolist()]
)
def test_an_array_is_not_looked_at(cupy: Any, look: Callable[[Any], Any]) -> None:
    with pytest.raises((Sync, TypeError)):
        look(cupy.ones(1))


def test_what_crosses_is_counted(cupy: Any) -> None:
    with transfers() as seen:
        x = cupy.asarray(np.ones((2, 3)))
        y = (x + 1).sum(axis=0)
        assert seen == ["to the device: float64(2, 3)"]
        assert seen.launches == ["cupy.add", "cupy.sum"]
        assert y.get().tolist() == [4, 4, 4]
        cupy.cuda.get_current_stream().synchronize()
    assert seen[1:] == ["to the host: float64(3,)", "waited for stream 0"]


def test_where_cupy_is_not_numpy(cupy: Any) -> None:
    x = cupy.asarray(np.array([-1, 1, 2, 3]))
    assert cupy.power(x, cupy.asarray(np.array([-3, -3, -3, 3]))).get().tolist() == [-1, 1, 0, 27]
    index = cupy.asarray(np.array([4, -5]))
    assert x[index].get().tolist() == [-1, 3]
    assert cupy.take(x, index, axis=0).get().tolist() == [-1, 3]
    x[index] = 9
    assert x.get().tolist() == [9, 1, 2, 9]


def test_views_lie_in_the_same_memory(cupy: Any) -> None:
    x = cupy.zeros((3, 4), np.float32)
    assert x[1].data.ptr == x.data.ptr + 16
    assert x.T.reshape(4, 3).data.ptr == x.data.ptr
    rows = cupy.ndarray((2, 2), np.float32, x.data + 16, (16, 4))
    rows.fill(1)
    expected = [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert x.get().tolist() == expected
    last = cupy.lib.stride_tricks.as_strided(x, (2,), (44,))
    del x, rows
    assert last.get().tolist() == [0, 0]


def test_memory_is_nan_at_first_and_again_when_freed(cupy: Any) -> None:
    x = cupy.empty(3, np.float32)
    assert np.isnan(x.get()).all()
    x.fill(1)
    address, seen = x.data.ptr, np.asarray(x.data.mem)
    bytes_of_it = np.ndarray(12, np.uint8, (ctypes.c_ubyte * 12).from_address(address))
    del x, seen
    gc.collect()
    assert (bytes_of_it == 0xFF).all()
    assert cupy.empty(3, np.float32).data.ptr == address


def test_a_pool_has_a_limit_and_counts(cupy: Any) -> None:
    pool = cupy.cuda.MemoryPool()
    pool.set_limit(size=2048)
    with cupy.cuda.using_allocator(pool.malloc):
        x = cupy.empty(300, np.float32)
        assert (pool.used_bytes(), pool.total_bytes()) == (1536, 1536)
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match="allocating 1,024 bytes"):
            cupy.empty(200, np.float32)
    del x
    assert (pool.used_bytes(), pool.total_bytes(), pool.n_free_blocks()) == (0, 1536, 1)
    pool.free_all_blocks()
    assert pool.total_bytes() == 0
    machine.memory = 1 << 20
    with pytest.raises(MemoryError, match="Out of memory"):
        cupy.empty(1 << 20)


def test_a_write_to_freed_memory(cupy: Any) -> None:
    x = cupy.zeros(1000)
    address = x.data.ptr
    del x
    ctypes.c_double.from_address(address).value = 1
    with pytest.raises(RuntimeError, match="written to after they had been freed"):
        cupy.empty(1000)


def test_an_array_of_another_device(cupy: Any, kernel: Any) -> None:
    x = cupy.ones(4, np.float32)
    with cupy.cuda.Device(1):
        y = cupy.ones(4, np.float32)
        assert y.device.id == 1
        with pytest.raises(ValueError, match="resides on device 0, the current device is 1"):
            cupy.add(x, y)
        with pytest.raises(ValueError, match="argument 0 resides on device 0"):
            kernel("exp_each")((1,), (4,), (x, y, 4))
        assert (x.copy() + y).get().tolist() == [2] * 4
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidDevice"):
        cupy.cuda.Device(2).use()


def test_page_locked_memory(cupy: Any) -> None:
    memory = cupy.cuda.alloc_pinned_memory(64)
    fields = np.frombuffer(memory, np.int64, 5)
    fields[:] = 3
    assert ctypes.c_int64.from_address(memory.ptr).value == 3


# ---- graphs


def test_a_graph_replays(cupy: Any, kernel: Any) -> None:
    x = cupy.ones(128, np.float32)
    total = cupy.zeros(1, np.float32)

    def make() -> Any:
        y = cupy.empty(1, np.float32)
        kernel("sums")((1,), (128,), (x, y))
        total[...] = y * 2
        total.__iadd__(1)
        return total + 1

    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc), transfers() as seen:
        graph, after = captured(cupy, make)
    assert not seen.launches
    assert total.get().tolist() == [0]
    assert np.isnan(after.get()).all()
    assert graph.names == ["sums", "cupy.mul", "cupy.set", "cupy.iadd", "cupy.add"]
    for value in (1, 3):
        x.fill(value)
        with transfers() as seen:
            graph.launch()
        assert (list(seen), seen.launches) == ([], ["graph"])
        assert total.get().tolist() == [256 * value + 1]
        assert after.get().tolist() == [256 * value + 2]


def test_a_graph_keeps_what_was_given_by_value(cupy: Any, kernel: Any) -> None:
    x, y = cupy.ones(4, np.float32), cupy.empty(4, np.float32)
    line = np.zeros((), [("slope", "f8"), ("add", "i8")])
    line[()] = 1, 1
    given = (x, y, 4, line, 1.0)
    graph, _ = captured(cupy, lambda: kernel("on_line")((1,), (4,), given))
    line[()] = 5, 5
    graph.launch()
    assert y.get().tolist() == [2] * 4


@pytest.mark.parametrize(
    ("what", "kind", "broken"),
    [
        (lambda cupy, x: cupy.asarray(np.ones(2)), RuntimeError, False),
        (lambda cupy, x: cupy.matmul(x, x), NotImplementedError, False),
        (lambda cupy, x: x.get(), RuntimeError, True),
        (lambda cupy, x: cupy.cuda.get_current_stream().synchronize(), RuntimeError, True),
        (lambda cupy, x: cupy.cuda.runtime.deviceSynchronize(), RuntimeError, True),
        (lambda cupy, x: cupy.argwhere(x), RuntimeError, True),
        (lambda cupy, x: cupy.cuda.get_current_stream().begin_capture(), RuntimeError, False),
    ],
)
def test_what_cannot_be_captured(cupy: Any, what: Any, kind: Any, broken: bool) -> None:
    x, stream = cupy.ones((2, 2)), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(kind):
            what(cupy, x)
        if broken:
            with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Invalidated"):
                stream.end_capture()
        else:
            stream.end_capture()
        assert not stream.is_capturing()
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        cupy.cuda.Stream.null.begin_capture()


def test_a_graph_that_uses_freed_memory(cupy: Any) -> None:
    x = cupy.ones(5)

    def make() -> Any:
        scratch = cupy.exp(x)
        return cupy.log(scratch)

    graph, y = captured(cupy, make)  # its scratch went back to the pool of all
    with pytest.raises(RuntimeError, match="went back to the pool of all"):
        graph.launch()
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        graph, y = captured(cupy, make)
    graph.launch()
    assert y.get().tolist() == [1] * 5
    del pool, y
    gc.collect()
    with pytest.raises(RuntimeError, match="given back"):
        graph.launch()


# ---- products


@pytest.fixture
def handle() -> Iterator[int]:
    module = cublas.module()
    made = module.create()
    yield made
    module.destroy(made)


def gemm(
    cupy: Any, handle: int, ta: int, tb: int, a: Any, b: Any, c: Any, alpha: float, beta: float,
    count: int = 1,
) -> int:  # fmt: skip
    """C ← alpha · op(A) · op(B) + beta · C of column-major matrices, each given by its rows."""
    number = ctypes.c_float if c.dtype == np.float32 else ctypes.c_double
    n, m = c.shape[-2:]
    k = a.shape[-1] if ta else a.shape[-2]
    letter = "S" if c.dtype == np.float32 else "D"
    library = ctypes.CDLL(stand_in()["cupy_backends.cuda.libs.cublas"].__file__)
    scale = ctypes.byref(number(alpha)), ctypes.byref(number(beta))
    parts = [
        (ctypes.c_void_p(v.data.ptr), v.shape[-1])
        + ((ctypes.c_longlong(v.shape[-1] * v.shape[-2]),) if count > 1 else ())
        for v in (a, b, c)
    ]
    function = getattr(library, f"cublas{letter}gemm" + ("StridedBatched" if count > 1 else "_v2"))
    many = (count,) if count > 1 else ()
    return function(
        ctypes.c_void_p(handle), ta, tb, m, n, k, scale[0], *parts[0], *parts[1], scale[1],
        *parts[2], *many,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ta", "tb", "dtype", "count", "beta"),
    list(itertools.product([0, 1], [0, 1], ["f4", "f8"], [1, 3], [0, 2.0])),
)
def test_gemm(
    cupy: Any, handle: int, ta: int, tb: int, dtype: str, count: int, beta: float
) -> None:
    m, n, k = 3, 4, 5
    rng = np.random.default_rng(0)
    # A column-major matrix's rows in memory are its columns.
    a = rng.integers(-9, 9, (count, m, k) if ta else (count, k, m)).astype(dtype)
    b = rng.integers(-9, 9, (count, k, n) if tb else (count, n, k)).astype(dtype)
    c = rng.integers(-9, 9, (count, n, m)).astype(dtype)
    if beta == 0:
        c[:] = np.nan  # does not count
    left = a if ta else a.swapaxes(1, 2)
    right = b if tb else b.swapaxes(1, 2)
    expected = 3 * np.matmul(left, right) + (beta * c.swapaxes(1, 2) if beta else 0)
    device = [cupy.asarray(v) for v in (a, b, c)]
    with transfers() as seen:
        assert gemm(cupy, handle, ta, tb, *device, 3.0, beta, count) == 0
    assert (list(seen), seen.launches) == ([], ["gemm"])
    assert (device[2].get().swapaxes(1, 2) == expected).all()


def test_gemm_refuses(cupy: Any, handle: int) -> None:
    a, c = cupy.ones((4, 4)), cupy.ones((4, 3))
    assert gemm(cupy, handle, 0, 0, a, a[:, :3], a, 1, 0) == 7  # ldb
    assert gemm(cupy, handle, 3, 0, a, a, a, 1, 0) == 7
    assert gemm(cupy, 0, 0, 0, a, a, a, 1, 0) == 1
    assert gemm(cupy, handle, 0, 0, cupy.ones((4, 3)), a, c, 1, 0) == 0
    assert gemm(cupy, handle, 0, 0, cupy.ones((4, 2)), a, c, 1, 0) == 7  # lda
    assert gemm(cupy, handle, 0, 0, a, cupy.ones((3, 4)), a, 1, 0) == 13
    assert "does not lie in one piece" in cublas.problems[-1]


def test_gemm_is_captured(cupy: Any, handle: int) -> None:
    x, y = cupy.ones((2, 2)), cupy.zeros((2, 2))
    library = ctypes.CDLL(stand_in()["cupy_backends.cuda.libs.cublas"].__file__)
    workspace = cupy.empty(1024, np.uint8)
    stream = cupy.cuda.Stream(non_blocking=True)
    library.cublasSetWorkspace_v2(ctypes.c_void_p(handle), ctypes.c_void_p(workspace.data.ptr), 9)
    assert cublas.Handle.from_address(handle).workspace == workspace.data.ptr
    with stream:
        stream.begin_capture()
        library.cublasSetStream_v2(ctypes.c_void_p(handle), ctypes.c_void_p(stream.ptr))
        assert cublas.Handle.from_address(handle).workspace is None
        assert gemm(cupy, handle, 0, 0, x, x, y, 1, 0) == 13
        assert "captured with no workspace" in cublas.problems[-1]
        library.cublasSetWorkspace_v2(
            ctypes.c_void_p(handle), ctypes.c_void_p(workspace.data.ptr), 9
        )
        assert gemm(cupy, handle, 0, 0, x, x, y, 1, 0) == 0
        graph = stream.end_capture()
    assert y.get().tolist() == [[0, 0], [0, 0]]
    x.fill(3)
    graph.launch()
    assert y.get().tolist() == [[18, 18], [18, 18]]


# ---- the backend


def test_the_backend_is_loaded_beside_others(loaded: Backend) -> None:
    assert loaded.name == "cupy"
    assert "tinygrad_mnist.backends.cupy_backend" not in sys.modules
    assert sys.modules.get("cupy") is not stand_in()["cupy"]
    assert cuda_on_cpu.module("cupy_kernels.launching").cupy is stand_in()["cupy"]


def test_the_backend_runs(loaded: Backend) -> None:
    host = np.array([[1.0, -2.0]], np.float32)
    x = loaded.asarray(host)
    assert isinstance(x, loaded.array_type)
    assert (loaded.to_numpy(loaded.relu(x)) == np.maximum(host, 0)).all()


def test_every_source_of_the_backend_compiles(loaded: Backend) -> None:
    module = cuda_on_cpu.module("cupy_kernels.launching")
    for file in module.FILES:
        for char in module.REAL:
            assert compiling.kernels(module.source(file), module.options(char)), file
