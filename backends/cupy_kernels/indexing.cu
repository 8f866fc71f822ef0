// Reading and adding at indices. Arrays are (before, rows, after), or (before, count, after) at the
// indices; what an index out of range would read is 0.

// A number of the size of ``real``, an integer perhaps, to be copied.
template <int bytes> struct Bits;
template <> struct Bits<4> { u32 bits; };
template <> struct Bits<8> { u64 bits; };
typedef Bits<sizeof(real)> Copied;

extern "C" __global__ void check_index(
    const i64* index, i64 count, i64 low, i64 high, Faults faults
) {
    const i64 i = element();
    if (i < count) in_range(index[i], low, high, faults);
}

extern "C" __global__ void wrap_index(
    const i64* x, i64* out, i64 count, i64 low, i64 size, i64 step, Faults faults
) {
    const i64 i = element();
    if (i >= count) return;
    const i64 at = x[i];
    out[i] = in_range(at, low, size, faults) ? (at < 0 ? at + size : at) * step : 0;
}

extern "C" __global__ void take(
    const Copied* x, const i64* index, Copied* out, i64 size, i64 rows, i64 count, i64 after,
    Faults faults
) {
    const i64 i = element();
    if (i >= size) return;
    const i64 place = quotient(i, after), before = place < count ? 0 : quotient(place, count);
    const i64 row = index[place - before * count];
    const bool there = in_range(row, 0, rows, faults);
    out[i] = there ? x[(before * rows + row) * after + i - place * after] : Copied{0};
}

extern "C" __global__ void take_scaled(
    const unsigned char* x, const i64* index, real* out, i64 size, i64 rows, i64 after,
    double scale, double shift, Faults faults
) {
    const i64 i = element();
    if (i >= size) return;
    const i64 place = quotient(i, after), row = index[place];
    const bool there = in_range(row, 0, rows, faults);
    out[i] = there ? x[row * after + i - place * after] * (real)scale + (real)shift : (real)0;
}

// ---- the gradient: what is added to one element is added in the order of the indices

struct Rows {
    i64 rows, count, after;
};

// Element i of dX (before, rows, after): its row, and where the numbers begin that may be added.
__device__ inline i64 row_of(i64 i, const Rows& of, i64& start) {
    const i64 place = quotient(i, of.after);
    const i64 before = place < of.rows ? 0 : quotient(place, of.rows);
    start = before * of.count * of.after + i - place * of.after;
    return place - before * of.rows;
}

// Little work: each element looks at every index.
template <typename T> __device__ inline void added(
    const T* dY, const i64* index, T* dX, i64 size, const Rows& of, const Faults& faults
) {
    const i64 i = element();
    if (i < of.count) in_range(index[i], 0, of.rows, faults);
    if (i >= size) return;
    i64 start;
    const i64 row = row_of(i, of, start);
    T total = 0;
    for (i64 j = 0; j < of.count; j++) {
        if (index[j] == row) total += dY[start + j * of.after];
    }
    dX[i] = total;
}

// Much: ``order`` sorts the indices, equal ones as they came.
template <typename T> __device__ inline void added_in_order(
    const T* dY, const i64* index, const i64* order, T* dX, i64 size, const Rows& of,
    const Faults& faults
) {
    const i64 i = element();
    if (i < of.count) in_range(index[i], 0, of.rows, faults);
    if (i >= size) return;
    i64 start;
    const i64 row = row_of(i, of, start);
    i64 low = 0, high = of.count;  // between them lies the first of this row's indices
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (index[order[middle]] < row) low = middle + 1;
        else high = middle;
    }
    T total = 0;
    for (; low < of.count && index[order[low]] == row; low++) {
        total += dY[start + order[low] * of.after];
    }
    dX[i] = total;
}

#define TAKE_GRAD(name, type)                                                              \
    extern "C" __global__ void name(                                                       \
        const type* dY, const i64* index, const i64* order, type* dX, i64 size, i64 rows,  \
        i64 count, i64 after, Faults faults                                                \
    ) {                                                                                    \
        const Rows of = {rows, count, after};                                              \
        if (order) added_in_order(dY, index, order, dX, size, of, faults);                 \
        else added(dY, index, dX, size, of, faults);                                       \
    }

TAKE_GRAD(take_grad, real)
TAKE_GRAD(take_grad_whole, i64)
