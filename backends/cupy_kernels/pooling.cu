// Max pooling of images (N, C, H, W): one thread for each element of the result, so that each adds
// up what it needs itself, in one order.

// Sizes, of the images and of the pooling's result; rows first.
struct Pool {
    int planes;  // N · C
    int height, width, down, across;
    int kh, kw, step_y, step_x, pad_y, pad_x;
};

// Where element ``i`` of planes of ``height`` by ``width`` lies.
struct Spot {
    int plane, y, x;
    __device__ Spot(int i, int height, int width) {
        int row = i / width;
        x = i - row * width;
        plane = row / height;
        y = row - plane * height;
    }
};

// The maximum of each window, then ``act``; and which of the window's cells it was: the first of
// equal ones, the last NaN, the first that is not padding where all are −∞.
extern "C" __global__ void max_pool2d(
    const real* __restrict__ x, real* y, int* index, Pool pool, i64 act
) {
    i64 i = element();
    if (i >= (i64)pool.planes * pool.down * pool.across) return;
    Spot at((int)i, pool.down, pool.across);
    int top = at.y * pool.step_y - pool.pad_y, left = at.x * pool.step_x - pool.pad_x;
    int first_row = max(-top, 0), first_col = max(-left, 0);
    int rows = min(pool.kh, pool.height - top), cols = min(pool.kw, pool.width - left);
    real best = -infinity();
    int which = first_row * pool.kw + first_col;
    for (int row = first_row; row < rows; row++) {
        const real* line = x + (at.plane * pool.height + top + row) * pool.width + left;
        for (int col = first_col; col < cols; col++) {
            real cell = line[col];
            if (cell > best || cell != cell) {
                best = cell;
                which = row * pool.kw + col;
            }
        }
    }
    y[i] = activated(best, act);
    index[i] = which;
}

// What of ``dY`` fell on each cell: from the windows that cover it.
extern "C" __global__ void max_pool2d_grad(
    const real* __restrict__ dY, const int* __restrict__ index, real* dX, Pool pool
) {
    i64 i = element();
    if (i >= (i64)pool.planes * pool.height * pool.width) return;
    Spot at((int)i, pool.height, pool.width);
    int y = at.y + pool.pad_y, x = at.x + pool.pad_x;
    int top = y < pool.kh ? 0 : (y - pool.kh) / pool.step_y + 1;
    int left = x < pool.kw ? 0 : (x - pool.kw) / pool.step_x + 1;
    int bottom = min(y / pool.step_y, pool.down - 1), right = min(x / pool.step_x, pool.across - 1);
    real total = 0;
    for (int row = top; row <= bottom; row++) {
        int line = (at.plane * pool.down + row) * pool.across;
        int cell = (y - row * pool.step_y) * pool.kw + x;  // that a window at column 0 has here
        for (int col = left; col <= right; col++)
            if (index[line + col] == cell - col * pool.step_x) total += dY[line + col];
    }
    dX[i] = total;
}

// The cells that ``index`` names.
extern "C" __global__ void max_pool2d_take(
    const real* __restrict__ x, const int* __restrict__ index, real* taken, Pool pool
) {
    i64 i = element();
    if (i >= (i64)pool.planes * pool.down * pool.across) return;
    Spot at((int)i, pool.down, pool.across);
    int which = index[i], row = which / pool.kw;
    int y = at.y * pool.step_y - pool.pad_y + row;
    int column = at.x * pool.step_x - pool.pad_x + which - row * pool.kw;
    bool inside = which >= 0 && which < pool.kh * pool.kw && y >= 0 && y < pool.height
        && column >= 0 && column < pool.width;
    taken[i] = inside ? x[(at.plane * pool.height + y) * pool.width + column] : (real)0;
}
