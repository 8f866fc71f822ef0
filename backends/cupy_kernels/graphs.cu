// What comes before a CUDA graph: the numbers that its kernels' host computes anew.

enum { CARRIED = 30 };  // kernels' numbers in one launch, whose arguments are at most 4096 bytes

struct Carried {
    Numbers of[CARRIED];
};

// Each of ``count`` kernels' numbers to where the graph reads them.
extern "C" __global__ void carry(double* to, Carried carried, i64 count) {
    i64 i = element();
    if (i < count * 16) to[i] = carried.of[i / 16].at[i % 16];
}
