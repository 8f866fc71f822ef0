// The random stream (splitmix64: Steele, Lea, Flood 2014): two elements from each of its numbers, the
// low half first. The key travels as the bits of a double.

__device__ inline u64 splitmix64(u64 key, i64 i) {
    u64 z = (u64)i * 0x9E3779B97F4A7C15ULL + key;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

// Number element() + 1 of the stream that ``numbers`` begin with.
__device__ inline u64 drawn(const Numbers& numbers, const double* fresh) {
    return splitmix64((u64)__double_as_longlong(number(numbers, fresh, 0)), element() + 1);
}

extern "C" __global__ void uniform(real* out, i64 size, Numbers numbers, const double* fresh) {
    const i64 i = 2 * element();
    if (i >= size) return;
    const u64 z = drawn(numbers, fresh);
    const real unit = (real)5.9604644775390625e-8;  // 2⁻²⁴
    out[i] = (real)((u32)z >> 8) * unit;
    if (i + 1 < size) out[i + 1] = (real)((u32)(z >> 32) >> 8) * unit;
}

// numbers: the stream, what is dropped of 2³², what is kept becomes
extern "C" __global__ void dropout_mask(
    real* mask, i64 size, Numbers numbers, const double* fresh
) {
    const i64 i = 2 * element();
    if (i >= size) return;
    const u64 z = drawn(numbers, fresh);
    const u32 dropped = (u32)number(numbers, fresh, 1);
    const real kept = (real)number(numbers, fresh, 2);
    mask[i] = (u32)z >= dropped ? kept : (real)0;
    if (i + 1 < size) mask[i + 1] = (u32)(z >> 32) >= dropped ? kept : (real)0;
}
