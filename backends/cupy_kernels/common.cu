// What every file of kernels begins with; ``launching.source`` puts it in front of each.
//
// ``real`` is float or double: each file is compiled once for either. Kernels take pointers,
// i64, double and structs by value, nothing else. Arrays are C-contiguous.

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;

// Numbers that the host computes anew at each call of a kernel.
struct Numbers {
    double at[16];
};

// In a CUDA graph, whose arguments are fixed, they lie at ``fresh``; else that is null.
__device__ inline double number(const Numbers& numbers, const double* fresh, int i) {
    return fresh ? fresh[i] : numbers.at[i];
}

// The element that this thread of a one-dimensional grid is to compute.
__device__ inline i64 element() {
    return (i64)blockIdx.x * blockDim.x + threadIdx.x;
}

// a / b of numbers that are not negative; a division of 64 bits takes four times as long.
__device__ inline i64 quotient(i64 a, i64 b) {
    return ((a | b) >> 32) ? a / b : (i64)((u32)a / (u32)b);
}

__device__ inline real infinity() {
    return (real)__longlong_as_double(0x7ff0000000000000LL);
}

__device__ inline real not_a_number() {
    return (real)__longlong_as_double(0x7ff8000000000000LL);
}

// The first index out of range, for the host to find when it next waits for the device.
struct Faults {
    int* taken;    // on the device: whether there was one
    i64* record;   // on the host: found, low, size, what it was an index of, and that it is there
    i64 what;
};

// Whether ``low`` <= index < size; an index that is not is written down.
__device__ inline bool in_range(i64 index, i64 low, i64 size, const Faults& faults) {
    if (index >= low && index < size) return true;
    if (atomicCAS(faults.taken, 0, 1) == 0) {
        volatile i64* record = faults.record;
        record[0] = index;
        record[1] = low;
        record[2] = size;
        record[3] = faults.what;
        __threadfence_system();
        record[4] = 1;
    }
    return false;
}

// max(x, 0), the logistic function, tanh: what kernels take as ``act``. NaN passes through.
enum { NO_ACT, RELU, SIGMOID, TANH };

__device__ inline real relu_of(real x) {
    return x <= 0 ? (real)0 : x;
}

__device__ inline real sigmoid_of(real x) {
    return exp(x < 0 ? x : (real)0) / (1 + exp(-fabs(x)));
}

__device__ inline real activated(real x, i64 act) {
    if (act == RELU) return relu_of(x);
    if (act == SIGMOID) return sigmoid_of(x);
    if (act == TANH) return tanh(x);
    return x;
}
