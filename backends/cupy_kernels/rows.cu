// Softmax and cross-entropy of rows (rows, cols). Threads in a group share a row: ``lanes`` of them,
// 2ᵏ ≤ 32, or the whole block. All threads of a block reach every exchange; those whose row lies
// past the end work on the last one and write nothing.

struct Group {
    i64 row, lane, lanes;
    bool writes;
};

__device__ inline Group group_of(i64 rows, i64 lanes) {
    Group group;
    const i64 row = quotient(element(), lanes);
    group.lanes = lanes;
    group.lane = threadIdx.x % (u32)lanes;
    group.writes = row < rows;
    group.row = group.writes ? row : rows - 1;
    return group;
}

struct Sum {
    template <typename T> __device__ static T of(T x, T y) { return x + y; }
};

// NaN is lost here, and shows in the sums after it.
struct Largest {
    template <typename T> __device__ static T of(T x, T y) { return x > y ? x : y; }
};

// A number for each warp of the block.
__device__ inline void* of_warps() {
    __shared__ i64 numbers[32];
    return numbers;
}

// What all threads of a group have, put together in a fixed order; each of them gets it.
template <typename Of, typename T> __device__ inline T together(T value, i64 lanes) {
    for (int apart = lanes < 32 ? (int)lanes / 2 : 16; apart > 0; apart /= 2) {
        value = Of::of(value, __shfl_xor_sync(0xffffffffu, value, apart));
    }
    if (lanes <= 32) return value;
    T* parts = (T*)of_warps();
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    value = parts[0];
    for (int i = 1; i < (int)lanes / 32; i++) value = Of::of(value, parts[i]);
    return value;
}

__device__ inline real largest(const real* x, i64 cols, const Group& group) {
    real most = -infinity();
    for (i64 j = group.lane; j < cols; j += group.lanes) most = Largest::of(most, x[j]);
    return together<Largest>(most, group.lanes);
}

// Σ e^(x − most)
__device__ inline real powers(const real* x, real most, i64 cols, const Group& group) {
    real total = 0;
    for (i64 j = group.lane; j < cols; j += group.lanes) total += exp(x[j] - most);
    return together<Sum>(total, group.lanes);
}

extern "C" __global__ void softmax(const real* x, real* y, i64 rows, i64 cols, i64 lanes) {
    const Group group = group_of(rows, lanes);
    x += group.row * cols;
    y += group.row * cols;
    const real most = largest(x, cols, group), total = powers(x, most, cols, group);
    if (!group.writes) return;
    for (i64 j = group.lane; j < cols; j += lanes) y[j] = exp(x[j] - most) / total;
}

extern "C" __global__ void log_softmax(const real* x, real* y, i64 rows, i64 cols, i64 lanes) {
    const Group group = group_of(rows, lanes);
    x += group.row * cols;
    y += group.row * cols;
    const real most = largest(x, cols, group), total = log(powers(x, most, cols, group));
    if (!group.writes) return;
    for (i64 j = group.lane; j < cols; j += lanes) y[j] = x[j] - most - total;
}

extern "C" __global__ void softmax_grad(
    const real* dY, const real* y, real* dX, i64 rows, i64 cols, i64 lanes
) {
    const Group group = group_of(rows, lanes);
    const i64 start = group.row * cols;
    real total = 0;
    for (i64 j = group.lane; j < cols; j += lanes) total += dY[start + j] * y[start + j];
    total = together<Sum>(total, lanes);
    if (!group.writes) return;
    for (i64 j = group.lane; j < cols; j += lanes) {
        dX[start + j] = y[start + j] * (dY[start + j] - total);
    }
}

extern "C" __global__ void log_softmax_grad(
    const real* dY, const real* y, real* dX, i64 rows, i64 cols, i64 lanes
) {
    const Group group = group_of(rows, lanes);
    const i64 start = group.row * cols;
    real total = 0;
    for (i64 j = group.lane; j < cols; j += lanes) total += dY[start + j];
    total = together<Sum>(total, lanes);
    if (!group.writes) return;
    for (i64 j = group.lane; j < cols; j += lanes) {
        dX[start + j] = dY[start + j] - exp(y[start + j]) * total;
    }
}

// ---- cross-entropy

// How many targets are not ``ignored``, NaN for none: the work of one block.
__device__ inline void count_of(const i64* target, i64 rows, i64 ignored, real* count) {
    i64 found = 0;
    for (i64 i = threadIdx.x; i < rows; i += blockDim.x) found += target[i] != ignored;
    found = together<Sum>(found, blockDim.x);
    if (threadIdx.x == 0) *count = found ? (real)found : not_a_number();
}

// The last block counts, beside the others.
extern "C" __global__ void __launch_bounds__(1024) cross_entropy(
    const real* x, const i64* target, real* losses, real* count, i64 rows, i64 cols, i64 lanes,
    i64 ignored, Faults faults
) {
    if (blockIdx.x == gridDim.x - 1) {
        count_of(target, rows, ignored, count);
        return;
    }
    const Group group = group_of(rows, lanes);
    x += group.row * cols;
    const real most = largest(x, cols, group), total = powers(x, most, cols, group);
    if (!group.writes || group.lane != 0) return;
    const i64 at = target[group.row];
    const bool counts = at != ignored && in_range(at, 0, cols, faults);
    losses[group.row] = counts ? log(total) - (x[at] - most) : (real)0;
}

// dY's numbers lie ``step`` apart: 0 where it is one, repeated.
extern "C" __global__ void cross_entropy_grad(
    const real* dY, i64 step, const real* x, const i64* target, real* dX, i64 rows, i64 cols,
    i64 lanes, i64 ignored, Faults faults
) {
    const Group group = group_of(rows, lanes);
    x += group.row * cols;
    dX += group.row * cols;
    const real most = largest(x, cols, group), total = powers(x, most, cols, group);
    if (!group.writes) return;
    const i64 at = target[group.row];
    const bool counts = at != ignored && in_range(at, 0, cols, faults);
    const real slope = dY[group.row * step];
    for (i64 j = group.lane; j < cols; j += lanes) {
        const real share = exp(x[j] - most) / total * slope;
        dX[j] = !counts ? (real)0 : j == at ? share - slope : share;
    }
}
