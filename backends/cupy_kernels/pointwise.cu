// Functions of each element. ``out`` may be an input: each thread reads its elements, then writes.
// Where two inputs may be numbers, a null pointer stands for the number that follows it.

#define EACH(i)              \
    const i64 i = element(); \
    if (i >= size) return

__device__ inline real operand(const real* x, double value, i64 i) {
    return x ? x[i] : (real)value;
}

extern "C" __global__ void sigmoid(const real* x, real* y, i64 size) {
    EACH(i);
    y[i] = sigmoid_of(x[i]);
}

extern "C" __global__ void sigmoid_grad(const real* dY, const real* y, real* dX, i64 size) {
    EACH(i);
    dX[i] = dY[i] * ((1 - y[i]) * y[i]);
}

// Our own, so that it has the bits of ``activated``.
extern "C" __global__ void tanh_each(const real* x, real* y, i64 size) {
    EACH(i);
    y[i] = tanh(x[i]);
}

extern "C" __global__ void tanh_grad(const real* dY, const real* y, real* dX, i64 size) {
    EACH(i);
    dX[i] = dY[i] * (1 - y[i] * y[i]);
}

extern "C" __global__ void relu(const real* x, real* y, i64 size) {
    EACH(i);
    y[i] = relu_of(x[i]);
}

extern "C" __global__ void relu_grad(const real* dY, const real* y, real* dX, i64 size) {
    EACH(i);
    dX[i] = y[i] <= 0 ? (real)0 : dY[i];
}

extern "C" __global__ void erf_each(const real* x, real* y, i64 size) {
    EACH(i);
    y[i] = erf(x[i]);
}

// ---- GELU

// Φ(x); erfc keeps the digits of the lower tail.
__device__ inline real normal_below(real x) {
    return (real)0.5 * erfc(x * (real)-0.70710678118654752440);
}

// tanh(√(2/π) · (x + 0.044715·x³)) and, of what tanh is taken of, the slope
__device__ inline real wave_of(real x, real& slope) {
    const real a = (real)0.79788456080286535588, b = (real)0.035677408136300125;
    const real square = x * x;
    slope = a + 3 * b * square;
    return tanh((a + b * square) * x);
}

extern "C" __global__ void gelu(const real* x, real* y, i64 size) {
    EACH(i);
    y[i] = normal_below(x[i]) * x[i];
}

extern "C" __global__ void gelu_grad(const real* dY, const real* x, real* dX, i64 size) {
    EACH(i);
    const real at = x[i], density = exp((real)-0.5 * at * at) * (real)0.39894228040143267794;
    dX[i] = dY[i] * (normal_below(at) + density * at);
}

extern "C" __global__ void gelu_tanh(const real* x, real* y, i64 size) {
    EACH(i);
    real slope;
    y[i] = (1 + wave_of(x[i], slope)) * x[i] * (real)0.5;
}

extern "C" __global__ void gelu_tanh_grad(const real* dY, const real* x, real* dX, i64 size) {
    EACH(i);
    const real at = x[i];
    // Beyond, the slope of the wave is 0 and would meet an overflow. NaN stays.
    const real near = at < -10 ? (real)-10 : at > 10 ? (real)10 : at;
    real slope;
    const real wave = wave_of(near, slope), bend = (1 - wave * wave) * at;
    dX[i] = dY[i] * ((real)0.5 * (bend * slope + wave + 1));
}

// ---- two arrays, or an array and a number

extern "C" __global__ void where(
    const unsigned char* condition, const real* x, double x_value, const real* y, double y_value,
    real* out, i64 size
) {
    EACH(i);
    out[i] = condition[i] ? operand(x, x_value, i) : operand(y, y_value, i);
}

// What is left of x after a whole number of ys, of the sign of y, as Python has it; NumPy's at
// infinities, and where y is 0.
__device__ inline real remainder_of(real x, real y) {
    real left = fmod(x, y);
    if (y == 0) return left;
    if (left == 0) return copysign((real)0, y);
    return (y < 0) != (left < 0) ? left + y : left;
}

extern "C" __global__ void remainder_each(
    const real* x, double x_value, const real* y, double y_value, real* out, i64 size
) {
    EACH(i);
    out[i] = remainder_of(operand(x, x_value, i), operand(y, y_value, i));
}

extern "C" __global__ void floor_divide(
    const real* x, double x_value, const real* y, double y_value, real* out, i64 size
) {
    EACH(i);
    const real a = operand(x, x_value, i), b = operand(y, y_value, i);
    if (b == 0) {
        out[i] = a / b;
        return;
    }
    const real left = fmod(a, b);
    real times = (a - left) / b;  // whole but for its rounding
    if (left != 0 && (b < 0) != (left < 0)) times -= 1;
    const real below = floor(times);
    out[i] = times == 0 ? copysign((real)0, a / b) : times - below > (real)0.5 ? below + 1 : below;
}

// Integers; a negative power is none.
extern "C" __global__ void power(
    const i64* x, i64 x_value, const i64* y, i64 y_value, i64* out, i64 size, Faults faults
) {
    EACH(i);
    i64 left = y ? y[i] : y_value;
    u64 square = (u64)(x ? x[i] : x_value), found = 1;  // unsigned: what overflows wraps
    if (!in_range(left, 0, 0x7fffffffffffffffLL, faults)) found = 0;
    for (; left > 0; left >>= 1) {
        if (left & 1) found *= square;
        square *= square;
    }
    out[i] = (i64)found;
}

// ---- in place

extern "C" __global__ void lerp(
    real* x, const real* end, i64 size, Numbers numbers, const double* fresh
) {
    EACH(i);
    x[i] += (real)number(numbers, fresh, 0) * (end[i] - x[i]);
}

// Rows (…, cols) of y to act(y + bias); no bias is null.
extern "C" __global__ void bias_act(real* y, const real* bias, i64 size, i64 cols, i64 act) {
    EACH(i);
    const real shift = bias ? bias[i - quotient(i, cols) * cols] : (real)0;
    y[i] = activated(bias ? y[i] + shift : y[i], act);
}
