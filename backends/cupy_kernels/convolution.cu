// Convolution and its gradients: products of matrices of which the right one, the columns, exists
// only in pieces in shared memory.
//
// Numbers: conv2d's result (rows: channels out; columns: pixels of all images) is weight (rows,
// taps) · columns (taps, pixels), where a tap is a channel in and a cell of the kernel. The
// gradient by x is one of the same kind, with dY as the source and steps turned into divisors.
// The gradient by the weight is dY (rows, pixels) · columns (pixels, taps).

// Sizes of one group; y before x.
struct Conv {
    int images, groups;
    int depth, height, width;  // the source: channels, and what the columns are taken from
    int rows, down, across;    // channels of the result, and the pixels that are columns
    int kh, kw;
    int step_y, step_x, shift_y, shift_x;  // pixel · step + shift + cell · tap, divided, is where
    int tap_y, tap_x, divide_y, divide_x;  // in the source a pixel's tap lies
    int weight_row, weight_depth;          // what lies between rows, and channels, of the weight
};

// What a block computes, 4 × 4 numbers a thread; ``splits`` threads share each sum.
struct Tile {
    int rows, columns, splits;
    int chunk;  // terms of the sums that are in shared memory at a time
    int share;  // terms that the blocks of one z sum
};

// A tap or a pixel; a tap and a pixel add up to a place in the source.
struct alignas(16) Entry {
    int offset;  // of row and column too, where nothing divides them
    int row, column;
    int other;  // of a tap: its place in the weight; of a pixel: that in the other image
};

struct alignas(4 * sizeof(real)) Quad {
    real of[4];
};

const int POOL = 40960 / sizeof(real);  // numbers in shared memory, beside 8 KiB of entries
const int DEEPEST = 256, WIDEST = 256;

template <bool DIVIDED>
__device__ inline Entry entry(const Conv& conv, int plane, int row, int column, int other) {
    int offset = plane * conv.height * conv.width + (DIVIDED ? 0 : row * conv.width + column);
    Entry made = {offset, row, column, other};
    return made;
}

template <bool DIVIDED>
__device__ inline Entry tap_entry(const Conv& conv, int tap) {
    int cells = conv.kh * conv.kw, channel = tap / cells, cell = tap - channel * cells;
    int i = cell / conv.kw, j = cell - i * conv.kw;
    int other = channel * conv.weight_depth + cell;
    return entry<DIVIDED>(conv, channel, i * conv.tap_y, j * conv.tap_x, other);
}

template <bool DIVIDED>
__device__ inline Entry pixel_entry(const Conv& conv, int pixel, int group) {
    int area = conv.down * conv.across, image = pixel / area, at = pixel - image * area;
    int y = at / conv.across, x = at - y * conv.across, part = image * conv.groups + group;
    int row = y * conv.step_y + conv.shift_y, column = x * conv.step_x + conv.shift_x;
    return entry<DIVIDED>(conv, part * conv.depth, row, column, part * conv.rows * area + at);
}

// What a tap of a pixel meets: 0 outside of the source, and between its elements.
template <bool DIVIDED>
__device__ inline real met(
    const real* __restrict__ source, const Conv& conv, const Entry& a, const Entry& b
) {
    int row = a.row + b.row, column = a.column + b.column;
    int offset = a.offset + b.offset;
    bool between = false;
    if (DIVIDED) {
        int y = row / conv.divide_y, x = column / conv.divide_x;
        between = (y * conv.divide_y != row) | (x * conv.divide_x != column);
        row = y;
        column = x;
        offset += row * conv.width + column;
    }
    bool inside = !between & ((u32)row < (u32)conv.height) & ((u32)column < (u32)conv.width);
    real found = source[inside ? offset : 0];  // without a branch, so that many are read at once
    return inside ? found : (real)0;
}

// Calls put(k, get(k)) for every ``step``-th k from ``from`` on, four at a time.
template <typename Get, typename Put>
__device__ inline void each_of(int from, int many, int step, Get get, Put put) {
    for (int k = from; k < many; k += 4 * step) {
        real got[4];
        for (int i = 0; i < 4; i++) got[i] = get(min(k + i * step, many - 1));
        for (int i = 0; i < 4; i++)
            if (k + i * step < many) put(k + i * step, got[i]);
    }
}

// How long rows of ``size``, a multiple of 4, are in shared memory: an odd number of fours, so that
// the 8 × 4 threads of a warp write to 32 banks.
__device__ inline int padded(int size) {
    return (size / 4 | 1) * 4;
}

// ``left`` is the weight, or with WEIGHTS dY; the columns are taps then, and not pixels.
template <bool WEIGHTS, bool DIVIDED>
__device__ inline void convolve(
    const real* __restrict__ left, const real* __restrict__ source,
    const real* __restrict__ bias, real* __restrict__ result, const Conv& conv, const Tile& tile,
    i64 act
) {
    __shared__ Quad pool[POOL / 4];
    __shared__ Entry terms[DEEPEST], columns[WIDEST];
    const int t = threadIdx.x, threads = blockDim.x, group = blockIdx.y % conv.groups;
    const int first_row = blockIdx.y / conv.groups * tile.rows;
    const int first_column = blockIdx.x * tile.columns;
    const int pixels = conv.images * conv.down * conv.across;
    const int taps = conv.depth * conv.kh * conv.kw;
    const int rows = min(tile.rows, conv.rows - first_row);
    const int cols = min(tile.columns, (WEIGHTS ? taps : pixels) - first_column);
    const int begin = blockIdx.z * tile.share;
    const int end = min(begin + tile.share, WEIGHTS ? pixels : taps);
    const int left_row = WEIGHTS ? conv.down * conv.across : conv.weight_row;
    left += first_row * left_row + (WEIGHTS ? 0 : group * conv.rows * taps);

    real* As = (real*)pool;
    const int a_row = padded(tile.rows), b_row = padded(tile.columns);
    real* Bs = As + tile.chunk * a_row;

    if (t < tile.columns) {
        int at = first_column + min(t, cols - 1);
        columns[t] = WEIGHTS ? tap_entry<DIVIDED>(conv, at) : pixel_entry<DIVIDED>(conv, at, group);
    }
    // Threads as they compute, as they read along the terms, and as they read along the columns.
    const int across = tile.columns / 4, down = tile.rows / 4;
    const int tx = t % across * 4, ty = t / across % down * 4, split = t / (across * down);
    const int term = t % 8 + t / 32 * 8, terms_step = threads / 32 * 8, line = t / 8 % 4;
    const int column = t % tile.columns, abreast = threads / tile.columns, turn = t / tile.columns;

    real sums[4][4] = {};
    for (int start = begin; start < end; start += tile.chunk) {
        const int many = min(tile.chunk, end - start);
        __syncthreads();
        for (int k = t; k < many; k += threads)
            terms[k] = WEIGHTS ? pixel_entry<DIVIDED>(conv, start + k, group)
                               : tap_entry<DIVIDED>(conv, start + k);
        __syncthreads();
        for (int m = line; m < tile.rows; m += 4) {
            const real* of_row = left + min(m, rows - 1) * left_row;
            each_of(term, many, terms_step, [&](int k) { return of_row[terms[k].other]; },
                    [&](int k, real got) { As[k * a_row + m] = got; });
        }
        if (WEIGHTS) {
            for (int n = line; n < tile.columns; n += 4) {
                const Entry tap = columns[n];
                each_of(term, many, terms_step,
                        [&](int k) { return met<DIVIDED>(source, conv, terms[k], tap); },
                        [&](int k, real got) { Bs[k * b_row + n] = got; });
            }
        } else if (turn < abreast) {
            const Entry pixel = columns[column];
            each_of(turn, many, abreast,
                    [&](int k) { return met<DIVIDED>(source, conv, terms[k], pixel); },
                    [&](int k, real got) { Bs[k * b_row + column] = got; });
        }
        __syncthreads();
        if (split < tile.splits) {
#pragma unroll 4
            for (int k = split; k < many; k += tile.splits) {
                const Quad a = *(const Quad*)(As + k * a_row + ty);
                const Quad b = *(const Quad*)(Bs + k * b_row + tx);
                for (int i = 0; i < 4; i++)
                    for (int j = 0; j < 4; j++) sums[i][j] += a.of[i] * b.of[j];
            }
        }
    }

    __syncthreads();
    if (split < tile.splits) {
        for (int i = 0; i < 4; i++) {
            Quad line;
            for (int j = 0; j < 4; j++) line.of[j] = sums[i][j];
            pool[(((split * tile.rows + ty + i) * tile.columns) + tx) / 4] = line;
        }
    }
    __syncthreads();
    if (turn >= abreast || column >= cols) return;
    const int result_row = WEIGHTS ? taps : conv.down * conv.across;
    real* to = result + columns[column].other;
    if (WEIGHTS) to += ((i64)blockIdx.z * conv.groups + group) * conv.rows * taps;
    for (int m = turn; m < rows; m += abreast) {
        real total = 0;
        for (int s = 0; s < tile.splits; s++)
            total += As[(s * tile.rows + m) * tile.columns + column];
        int row = first_row + m;
        if (bias) total += bias[group * conv.rows + row];
        to[row * result_row] = activated(total, act);
    }
}

extern "C" __global__ void conv2d(
    const real* weight, const real* source, const real* bias, real* y, Conv conv, Tile tile, i64 act
) {
    convolve<false, false>(weight, source, bias, y, conv, tile, act);
}

extern "C" __global__ void conv2d_divided(
    const real* weight, const real* source, const real* bias, real* y, Conv conv, Tile tile, i64 act
) {
    convolve<false, true>(weight, source, bias, y, conv, tile, act);
}

extern "C" __global__ void conv2d_dw(
    const real* dY, const real* source, real* partials, Conv conv, Tile tile
) {
    convolve<true, false>(dY, source, 0, partials, conv, tile, NO_ACT);
}

// ---- sums of windows

// Windows of images (C, H, W), C counting all images' planes, and what lies between the elements of
// dY (planes, kh, kw, H', W').
struct Windows {
    int planes, height, width, kh, kw, down, across;
    int step_y, step_x, tap_y, tap_x;
    int by_plane, by_row, by_column, by_y, by_x;
};

// Each cell of the images: the sum of dY where windows cover it.
extern "C" __global__ void windows_grad(const real* __restrict__ dY, real* dX, Windows at) {
    i64 i = element();
    if (i >= (i64)at.planes * at.height * at.width) return;
    int line = (int)i / at.width, column = (int)i - line * at.width;
    int plane = line / at.height, row = line - plane * at.height;
    real total = 0;
    for (int r = 0; r < at.kh; r++) {
        int y = row - r * at.tap_y;
        if (y < 0 || y % at.step_y || y / at.step_y >= at.down) continue;
        for (int c = 0; c < at.kw; c++) {
            int x = column - c * at.tap_x;
            if (x < 0 || x % at.step_x || x / at.step_x >= at.across) continue;
            total += dY[(i64)plane * at.by_plane + (i64)r * at.by_row + (i64)c * at.by_column
                        + (i64)(y / at.step_y) * at.by_y + (i64)(x / at.step_x) * at.by_x];
        }
    }
    dX[i] = total;
}
