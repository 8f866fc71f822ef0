// Updates of up to MOST tensors at once: one thread for each element of all of them, one after the
// other. ``ends`` says where each tensor ends; ``at[k]`` has the pointers of the list k: parameters,
// gradients, moments. A list that is empty has null pointers. Numbers take the parameters' dtype.

enum { MOST = 80, LISTS = 5 };

struct Tensors {
    i64 count;
    i64 ends[MOST];
    real* at[LISTS][MOST];
};

// The tensor that has this thread's element, and the element's place there.
__device__ inline bool found(const Tensors& tensors, int& which, i64& place) {
    const i64 i = element();
    int low = 0, high = (int)tensors.count - 1;
    if (i >= tensors.ends[high]) return false;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (i < tensors.ends[middle]) high = middle;
        else low = middle + 1;
    }
    which = low;
    place = low ? i - tensors.ends[low - 1] : i;
    return true;
}

__device__ inline real tiny() {
    return (real)(sizeof(real) == 4 ? 1.1754943508222875e-38 : 2.2250738585072014e-308);
}

// x, or 0 where it is a denormal number
__device__ inline real flushed(real x) {
    return fabs(x) < tiny() ? (real)0 : x;
}

__device__ inline real slope_of(real p, real g, double weight_decay, double maximize) {
    const real slope = maximize != 0 ? -g : g;
    const real decay = (real)weight_decay;
    return decay != 0 ? slope + decay * p : slope;  // 0 times an infinite p would be NaN
}

#define NUMBER(i) number(numbers, fresh, i)

#define EACH(t, i) \
    int t;         \
    i64 i;         \
    if (!found(tensors, t, i)) return

// numbers: momentum, undamped, nesterov, lr, weight_decay, maximize; lists: buffers
extern "C" __global__ void sgd(
    Tensors tensors, Numbers numbers, const double* fresh
) {
    EACH(t, i);
    const real p = tensors.at[0][t][i];
    const real slope = slope_of(p, tensors.at[1][t][i], NUMBER(4), NUMBER(5));
    real step = slope;
    if (NUMBER(0) != 0 && tensors.at[2][t]) {
        const real keep = (real)NUMBER(0);
        const real b = flushed(keep * tensors.at[2][t][i] + (real)NUMBER(1) * slope);
        tensors.at[2][t][i] = b;
        step = NUMBER(2) != 0 ? slope + keep * b : b;
    }
    tensors.at[0][t][i] = p - (real)NUMBER(3) * step;
}

// numbers: beta1, beta2, eps, weight_decay, shrink, maximize, step_size, correction; lists: the
// averages of gradients and of their squares, and the largest of the latter
extern "C" __global__ void adam(
    Tensors tensors, Numbers numbers, const double* fresh
) {
    EACH(t, i);
    const real p = tensors.at[0][t][i];
    const real slope = slope_of(p, tensors.at[1][t][i], NUMBER(3), NUMBER(5));
    const double beta1 = NUMBER(0), beta2 = NUMBER(1);
    const real m = flushed((real)beta1 * tensors.at[2][t][i] + (real)(1 - beta1) * slope);
    real v = flushed((real)beta2 * tensors.at[3][t][i] + (real)(1 - beta2) * (slope * slope));
    tensors.at[2][t][i] = m;
    tensors.at[3][t][i] = v;
    if (tensors.at[4][t]) {
        const real most = tensors.at[4][t][i];
        v = v >= most || v != v ? v : most;
        tensors.at[4][t][i] = v;
    }
    const real shrink = (real)NUMBER(4), old = shrink == 1 ? p : p * shrink;
    const real root = sqrt(v) / (real)NUMBER(7) + (real)NUMBER(2);
    tensors.at[0][t][i] = old - (real)NUMBER(6) * (m / root);
}

// numbers: rate, eps, weight_decay, maximize; lists: sums of squares
extern "C" __global__ void adagrad(
    Tensors tensors, Numbers numbers, const double* fresh
) {
    EACH(t, i);
    const real p = tensors.at[0][t][i];
    const real slope = slope_of(p, tensors.at[1][t][i], NUMBER(2), NUMBER(3));
    const real total = tensors.at[2][t][i] + slope * slope;
    tensors.at[2][t][i] = total;
    tensors.at[0][t][i] = p - (real)NUMBER(0) * (slope / (sqrt(total) + (real)NUMBER(1)));
}

// numbers: lr, rho, eps, weight_decay, maximize; lists: averages of squares, of the gradients and
// of the steps
extern "C" __global__ void adadelta(
    Tensors tensors, Numbers numbers, const double* fresh
) {
    EACH(t, i);
    const real p = tensors.at[0][t][i], u = tensors.at[3][t][i];
    const real slope = slope_of(p, tensors.at[1][t][i], NUMBER(3), NUMBER(4));
    const real keep = (real)NUMBER(1), add = (real)(1 - NUMBER(1)), eps = (real)NUMBER(2);
    const real v = flushed(keep * tensors.at[2][t][i] + add * (slope * slope));
    const real step = sqrt(u + eps) / sqrt(v + eps) * slope;
    tensors.at[2][t][i] = v;
    tensors.at[3][t][i] = flushed(keep * u + add * (step * step));
    tensors.at[0][t][i] = p - (real)NUMBER(0) * step;
}

// numbers: lr, alpha, eps, momentum, weight_decay, maximize; lists: averages of squares, averages,
// buffers
extern "C" __global__ void rmsprop(
    Tensors tensors, Numbers numbers, const double* fresh
) {
    EACH(t, i);
    const real p = tensors.at[0][t][i];
    const real slope = slope_of(p, tensors.at[1][t][i], NUMBER(4), NUMBER(5));
    const real keep = (real)NUMBER(1), add = (real)(1 - NUMBER(1));
    real v = flushed(keep * tensors.at[2][t][i] + add * (slope * slope));
    tensors.at[2][t][i] = v;
    if (tensors.at[3][t]) {
        const real mean = flushed(keep * tensors.at[3][t][i] + add * slope);
        tensors.at[3][t][i] = mean;
        v -= mean * mean;
        v = v < 0 ? (real)0 : v;  // rounding must not make it negative
    }
    real step = slope / (sqrt(v) + (real)NUMBER(2));
    if (tensors.at[4][t]) {
        step = flushed((real)NUMBER(3) * tensors.at[4][t][i] + step);
        tensors.at[4][t][i] = step;
    }
    tensors.at[0][t][i] = p - (real)NUMBER(0) * step;
}
