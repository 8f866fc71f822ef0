// cuBLAS's products as far as they are called here: its checks and its statuses. What a call asks
// for goes to Python, which runs it or writes it down for a graph.

typedef long long i64;
enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7 };

struct Handle {
    void* stream;
    void* workspace;
    unsigned long workspace_size;
    int math_mode, pointer_mode, device;
};

// C ← alpha · op(A) · op(B) + beta · C, column by column, for each of ``count``.
struct Product {
    Handle* handle;
    i64 ta, tb, m, n, k, lda, ldb, ldc, sa, sb, sc, count, size;  // size: bytes of a number
    const void *alpha, *a, *b, *beta;
    void* c;
};

static int (*run)(const Product*);
static int (*current_device)();

#define API extern "C" __attribute__((visibility("default"))) int

extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_use(
    int (*runs)(const Product*), int (*device)()) {
    run = runs;
    current_device = device;
}

API cublasCreate_v2(Handle** handle) {
    if (!handle) return INVALID_VALUE;
    *handle = new Handle{nullptr, nullptr, 0, 0, 0, current_device ? current_device() : 0};
    return SUCCESS;
}
API cublasDestroy_v2(Handle* handle) {
    delete handle;
    return handle ? SUCCESS : NOT_INITIALIZED;
}
API cublasSetStream_v2(Handle* handle, void* stream) {
    if (!handle) return NOT_INITIALIZED;
    handle->stream = stream;
    handle->workspace = nullptr;  // back to cuBLAS's own
    handle->workspace_size = 0;
    return SUCCESS;
}
API cublasGetStream_v2(Handle* handle, void** stream) {
    if (!handle) return NOT_INITIALIZED;
    *stream = handle->stream;
    return SUCCESS;
}
API cublasSetWorkspace_v2(Handle* handle, void* workspace, unsigned long size) {
    if (!handle) return NOT_INITIALIZED;
    if ((unsigned long)workspace % 256) return INVALID_VALUE;
    handle->workspace = workspace;
    handle->workspace_size = size;
    return SUCCESS;
}
API cublasSetMathMode(Handle* handle, int mode) {
    if (!handle) return NOT_INITIALIZED;
    handle->math_mode = mode;
    return SUCCESS;
}
API cublasGetMathMode(Handle* handle, int* mode) {
    if (!handle) return NOT_INITIALIZED;
    *mode = handle->math_mode;
    return SUCCESS;
}
API cublasSetPointerMode_v2(Handle* handle, int mode) {
    if (!handle) return NOT_INITIALIZED;
    if (mode != 0 && mode != 1) return INVALID_VALUE;
    handle->pointer_mode = mode;
    return SUCCESS;
}

static int product(const Product& p) {
    if (!p.handle) return NOT_INITIALIZED;
    if (p.ta < 0 || p.ta > 2 || p.tb < 0 || p.tb > 2) return INVALID_VALUE;
    if (p.m < 0 || p.n < 0 || p.k < 0 || p.count < 0) return INVALID_VALUE;
    i64 rows_a = p.ta ? p.k : p.m, rows_b = p.tb ? p.n : p.k;
    if (p.lda < (rows_a > 1 ? rows_a : 1)) return INVALID_VALUE;
    if (p.ldb < (rows_b > 1 ? rows_b : 1)) return INVALID_VALUE;
    if (p.ldc < (p.m > 1 ? p.m : 1)) return INVALID_VALUE;
    if (!p.alpha || !p.beta) return INVALID_VALUE;
    if (!p.m || !p.n || !p.count) return SUCCESS;
    return run(&p);
}

#define GEMM(letter, type)                                                                       \
    API cublas##letter##gemm_v2(Handle* handle, int ta, int tb, int m, int n, int k,             \
                                const type* alpha, const type* a, int lda, const type* b,        \
                                int ldb, const type* beta, type* c, int ldc) {                   \
        return product({handle, ta, tb, m, n, k, lda, ldb, ldc, 0, 0, 0, 1, sizeof(type), alpha, \
                        a, b, beta, c});                                                         \
    }                                                                                            \
    API cublas##letter##gemmStridedBatched(                                                      \
        Handle* handle, int ta, int tb, int m, int n, int k, const type* alpha, const type* a,   \
        int lda, i64 sa, const type* b, int ldb, i64 sb, const type* beta, type* c, int ldc,     \
        i64 sc, int count) {                                                                     \
        return product({handle, ta, tb, m, n, k, lda, ldb, ldc, sa, sb, sc, count, sizeof(type), \
                        alpha, a, b, beta, c});                                                  \
    }
GEMM(S, float)
GEMM(D, double)
