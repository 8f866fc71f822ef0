// Sums over dims of an array, where its extremes are, and batch norm, which is made of sums over
// all dims but one.
//
// A block computes ``width`` results side by side, ``helpers`` threads each; ``slices`` of blocks
// share what a result sums where one block would take long, and another launch adds theirs up. All
// is added in an order that depends on the shape alone, in double.

// Sums over R and S of an array (A, R, B, S): how they are shared out.
struct Span {
    int count;    // of results, A · B
    int length;   // what each sums, R · S
    int between;  // B
    int run;      // S
    int width, helpers;
    int by_rows;  // whether threads side by side share a result, else they have one each
    int chunk;    // the part of the length that one slice sums
};

const int MOST_THREADS = 256;

// What this thread has to do.
struct Share {
    int column, helper, result, start, stop;
    bool there;  // whether it has a place in the block
};

__device__ inline Share share_of(const Span& span) {
    Share my;
    int t = threadIdx.x;
    my.column = span.by_rows ? t / span.helpers : t % span.width;
    my.helper = span.by_rows ? t % span.helpers : t / span.width;
    my.result = blockIdx.x * span.width + my.column;
    my.there = t < span.width * span.helpers;
    my.start = blockIdx.y * span.chunk;
    my.stop = min(my.start + span.chunk, span.length);
    return my;
}

// Calls ``each`` with the places of this thread's elements; there is no division in the loop.
template <typename Each>
__device__ inline void walk(const Span& span, const Share& my, Each each) {
    int at = my.start + my.helper;
    if (!my.there || my.result >= span.count || at >= my.stop) return;
    int hop = span.between * span.run, skip = span.helpers % span.run;
    int step = span.helpers / span.run * hop + skip, within = at % span.run;
    int first = my.result / span.between * (span.length * span.between);
    const int place = first + my.result % span.between * span.run;
    int offset = place + at / span.run * hop + within;
#pragma unroll 8
    for (; at < my.stop; at += span.helpers) {
        each(offset);
        within += skip;
        offset += step;
        if (within >= span.run) {
            within -= span.run;
            offset += hop - span.run;
        }
    }
}

// What the helpers of this thread's column found, made one by ``both`` of two, neighbours last.
template <typename T, typename Both>
__device__ inline T merged(const Span& span, const Share& my, T mine, Both both) {
    __shared__ T found[MOST_THREADS];
    T* column = found + my.column;
    __syncthreads();
    if (my.there) column[my.helper * span.width] = mine;
    for (int many = span.helpers; many > 1;) {
        int half = (many + 1) / 2, other = my.helper + half;
        __syncthreads();
        if (my.there && other < many) {
            T& at = column[my.helper * span.width];
            at = both(at, column[other * span.width]);
        }
        many = half;
    }
    __syncthreads();
    return my.there ? column[0] : mine;
}

// The sum of what the helpers of this thread's column found.
__device__ inline double together(const Span& span, const Share& my, double mine) {
    return merged(span, my, mine, [](double a, double b) { return a + b; });
}

// y[slice, result]: each slice's sums of x.
template <typename From, typename To>
__device__ inline void sums(const From* __restrict__ x, To* y, const Span& span) {
    Share my = share_of(span);
    double mine = 0;
    walk(span, my, [&](int i) { mine += x[i]; });
    double total = together(span, my, mine);
    if (my.there && my.helper == 0 && my.result < span.count)
        y[(i64)blockIdx.y * span.count + my.result] = (To)total;
}

extern "C" __global__ void sum(const real* x, real* y, Span span) {
    sums(x, y, span);
}

extern "C" __global__ void sum_slices(const real* x, double* y, Span span) {
    sums(x, y, span);
}

extern "C" __global__ void sum_of_slices(const double* x, real* y, Span span) {
    sums(x, y, span);
}

// ---- where extremes are

// A number and where it is; none has place −1.
struct Found {
    real value;
    int place;
};

// Whether ``a`` goes before ``b``: a NaN, then the larger, or the smaller; of equal ones the first.
__device__ inline bool before(const Found& a, const Found& b, bool larger) {
    if (a.place < 0 || b.place < 0) return b.place < 0 && a.place >= 0;
    bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan;
    if (a_nan || a.value == b.value) return a.place < b.place;
    return larger ? a.value > b.value : a.value < b.value;
}

// Along R of an array (A, R, B), in one slice.
extern "C" __global__ void place_of_extreme(
    const real* __restrict__ x, i64* index, i64 larger, Span span
) {
    Share my = share_of(span);
    Found best = {0, -1};
    walk(span, my, [&](int i) {
        Found each = {x[i], i};
        if (before(each, best, larger)) best = each;
    });
    best = merged(span, my, best, [=](Found a, Found b) { return before(b, a, larger) ? b : a; });
    if (my.there && my.helper == 0 && my.result < span.count)
        index[my.result] = best.place / span.between % span.length;
}

// ---- batch norm: results are channels

// Of a channel or of one slice of it: its mean, Σ (x − mean)², and Σ dY and Σ dY · (x − mean).
struct Moments {
    double mean, squares, slopes, products;
};

// The moments of the elements that this thread's slice sums, in two readings.
template <bool GRADIENT>
__device__ inline Moments moments_of(
    const real* __restrict__ x, const real* __restrict__ dY, const Span& span, const Share& my
) {
    Moments its = {};
    double mine = 0;
    walk(span, my, [&](int i) { mine += x[i]; });
    its.mean = together(span, my, mine) / (my.stop - my.start);
    double squares = 0, slopes = 0, products = 0, mean = its.mean;
    walk(span, my, [&](int i) {
        double centred = x[i] - mean;
        squares += centred * centred;
        if (GRADIENT) {
            slopes += dY[i];
            products += dY[i] * centred;
        }
    });
    its.squares = together(span, my, squares);
    if (GRADIENT) its.slopes = together(span, my, slopes);
    if (GRADIENT) its.products = together(span, my, products);
    return its;
}

// The moments of a channel from those of its slices (Chan, Golub, LeVeque 1979).
template <bool GRADIENT>
__device__ inline Moments combined(
    const Moments* slices, int many, const Span& span, const Share& my
) {
    Moments all = {};
    const Moments* first = slices + min(my.result, span.count - 1);
    int step = span.helpers;
    double mine = 0;
#pragma unroll 4
    for (int s = my.helper; s < many; s += step)
        mine += first[(i64)s * span.count].mean
            * (min(span.length - s * span.chunk, span.chunk) / (double)span.length);
    all.mean = together(span, my, mine);
    double squares = 0, slopes = 0, products = 0;
#pragma unroll 4
    for (int s = my.helper; s < many; s += step) {
        Moments its = first[(i64)s * span.count];
        double apart = its.mean - all.mean;
        squares += its.squares + apart * apart * min(span.length - s * span.chunk, span.chunk);
        slopes += its.slopes;
        products += its.products + apart * its.slopes;
    }
    all.squares = together(span, my, squares);
    if (GRADIENT) all.slopes = together(span, my, slopes);
    if (GRADIENT) all.products = together(span, my, products);
    return all;
}

template <bool GRADIENT>
__device__ inline void slices_moments(
    const real* x, const real* dY, Moments* slices, const Span& span
) {
    Share my = share_of(span);
    Moments its = moments_of<GRADIENT>(x, dY, span, my);
    if (my.there && my.helper == 0 && my.result < span.count)
        slices[(i64)blockIdx.y * span.count + my.result] = its;
}

extern "C" __global__ void moments(const real* x, Moments* slices, Span span) {
    slices_moments<false>(x, 0, slices, span);
}

extern "C" __global__ void moments_grad(
    const real* x, const real* dY, Moments* slices, Span span
) {
    slices_moments<true>(x, dY, slices, span);
}

// x − mean, and what rounding the mean left out.
struct Centre {
    real mean, rest;
    __device__ explicit Centre(double exact) : mean((real)exact), rest((real)(exact - mean)) {}
    __device__ real operator()(real x) const { return x - mean - rest; }
};

// With ``slices`` null there is one, and its block finds the moments itself.
extern "C" __global__ void batch_norm(
    const real* __restrict__ x, const real* weight, const real* bias, const Moments* slices,
    double eps, i64 act, real* y, real* mean, real* var, Span span
) {
    Share my = share_of(span);
    Moments its = slices ? combined<false>(slices, gridDim.y, span, my)
                         : moments_of<false>(x, 0, span, my);
    if (!my.there || my.result >= span.count) return;
    double variance = its.squares / span.length;
    if (blockIdx.y == 0 && my.helper == 0) {
        mean[my.result] = (real)its.mean;
        var[my.result] = (real)variance;
    }
    Centre centred(its.mean);
    real scale = (real)(weight[my.result] / sqrt(variance + eps)), shift = bias[my.result];
    walk(span, my, [&](int i) { y[i] = activated(centred(x[i]) * scale + shift, act); });
}

extern "C" __global__ void batch_norm_grad(
    const real* __restrict__ dY, const real* __restrict__ x, const real* weight,
    const Moments* slices, double eps, real* dX, real* dweight, real* dbias, Span span
) {
    Share my = share_of(span);
    Moments its = slices ? combined<true>(slices, gridDim.y, span, my)
                         : moments_of<true>(x, dY, span, my);
    if (!my.there || my.result >= span.count) return;
    double inverse = 1 / sqrt(its.squares / span.length + eps);
    double along = its.products * inverse;
    if (blockIdx.y == 0 && my.helper == 0) {
        dweight[my.result] = (real)along;
        dbias[my.result] = (real)its.slopes;
    }
    Centre centred(its.mean);
    real tilt = (real)(along * inverse / span.length), level = (real)(its.slopes / span.length);
    real scale = (real)(weight[my.result] * inverse);
    walk(span, my, [&](int i) { dX[i] = (dY[i] - level - centred(x[i]) * tilt) * scale; });
}
