// CUDA C++ for g++: what NVRTC knows by itself, and a machine that runs one block after the other.
//
// Threads of a kernel that meets no barrier run in a loop. Otherwise each is a fiber, which goes on
// until it waits at a barrier or in a shuffle; the block goes on when all that must be there are.
// What a card would answer with garbage or a hang is an error here.

#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <string>
#include <type_traits>
#include <utility>

// ---- words of the language

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __shared__ static  // one block runs at a time; Python finds out where it lies

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
enum { warpSize = 32 };

// ---- vectors, aligned as on a card

#define CUDA_VECTORS(name, type, align2, align4)                                             \
    struct __align__(align2) name##2 { type x, y; };                                         \
    struct name##3 { type x, y, z; };                                                        \
    struct __align__(align4) name##4 { type x, y, z, w; };                                   \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }                  \
    static inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }       \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
#define uint3 cuda_uint3  // is there already
CUDA_VECTORS(float, float, 8, 16)
CUDA_VECTORS(double, double, 16, 16)
CUDA_VECTORS(int, int, 8, 16)
CUDA_VECTORS(uint, unsigned, 8, 16)
CUDA_VECTORS(uchar, unsigned char, 2, 4)
CUDA_VECTORS(longlong, long long, 16, 16)
#undef uint3

// ---- numbers: overloads for float and double come with <math.h>

template <class A, class B>
using cuda_number = std::enable_if_t<
    std::is_arithmetic_v<A> && std::is_arithmetic_v<B>, std::common_type_t<A, B>>;

// Of floats the one that is no NaN, as CUDA's.
template <class A, class B>
static inline cuda_number<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return fmax((T)a, (T)b);
    else return (T)a < (T)b ? (T)b : (T)a;
}
template <class A, class B>
static inline cuda_number<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return fmin((T)a, (T)b);
    else return (T)b < (T)a ? (T)b : (T)a;
}

static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
#define __expf expf  // macros, since glibc has functions of these names
#define __logf logf
static inline float __fdividef(float x, float y) { return x / y; }

// What is never contracted to a fused multiply-add, nor is anything else here.
#define CUDA_ROUNDED(type, letter)                                                    \
    static inline type __##letter##add_rn(type x, type y) { return x + y; }           \
    static inline type __##letter##sub_rn(type x, type y) { return x - y; }           \
    static inline type __##letter##mul_rn(type x, type y) { return x * y; }           \
    static inline type __##letter##div_rn(type x, type y) { return x / y; }           \
    static inline type __##letter##sqrt_rn(type x) { return sqrt(x); }                \
    static inline type __##letter##rcp_rn(type x) { return 1 / x; }
CUDA_ROUNDED(float, f)
CUDA_ROUNDED(double, d)
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }

template <class To, class From>
static inline To cuda_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline double __longlong_as_double(long long x) { return cuda_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return cuda_bits<long long>(x); }
static inline float __int_as_float(int x) { return cuda_bits<float>(x); }
static inline int __float_as_int(float x) { return cuda_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return cuda_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return cuda_bits<unsigned>(x); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline unsigned __umulhi(unsigned x, unsigned y) {
    return (unsigned)(((unsigned long long)x * y) >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)(((unsigned __int128)x * y) >> 64);
}

// ---- memory

template <class T> static inline T __ldg(const T* p) { return *p; }
template <class T> static inline T __ldcs(const T* p) { return *p; }
template <class T> static inline T __ldcg(const T* p) { return *p; }
template <class T> static inline void __stcs(T* p, T x) { *p = x; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}

// Of integers alone: the order of atomic sums of floats, and with it their bits, is left to chance.
template <class T> using cuda_integer = std::enable_if_t<std::is_integral_v<T>, T>;
template <class T> using cuda_same = std::common_type_t<T>;  // is deduced from the other argument

#define CUDA_ATOMIC(name, result)                                             \
    template <class T>                                                        \
    static inline cuda_integer<T> name(T* p, cuda_same<T> x) {                \
        T old = *p;                                                           \
        *p = (T)(result);                                                     \
        return old;                                                           \
    }
CUDA_ATOMIC(atomicAdd, old + x)
CUDA_ATOMIC(atomicSub, old - x)
CUDA_ATOMIC(atomicMax, old < x ? x : old)
CUDA_ATOMIC(atomicMin, x < old ? x : old)
CUDA_ATOMIC(atomicExch, x)
CUDA_ATOMIC(atomicOr, old | x)
CUDA_ATOMIC(atomicAnd, old& x)
CUDA_ATOMIC(atomicXor, old ^ x)
template <class T>
static inline cuda_integer<T> atomicCAS(T* p, cuda_same<T> expected, cuda_same<T> x) {
    T old = *p;
    if (old == expected) *p = x;
    return old;
}
static inline unsigned atomicInc(unsigned* p, unsigned last) {
    unsigned old = *p;
    *p = old >= last ? 0 : old + 1;
    return old;
}

// ---- fibers

namespace cuda_on_cpu {

enum State { READY, AT_BARRIER, IN_WARP, RETURNED };

struct Fiber {
    jmp_buf at;
    bool made;  // has a stack, and is somewhere in ``run_for_ever``
    State state;
    int line;         // of the source, where it waits
    unsigned rounds;  // how often it met its warp: neighbours use one of two rows of values in turn
    uint3 index;
};

enum { MOST = 1024, WARP = 32, STACK = 1 << 16 };

static Fiber fibers[MOST];
static Fiber* running;
static jmp_buf scheduler;
static char* stacks;
alignas(16) static unsigned char values[2][MOST][16];  // what lanes hand to each other
static unsigned votes[2][MOST];
static void (*body)(void**);
static void** arguments;
static unsigned threads;
static char problem[512];  // what went wrong in this launch

static bool fail(const char* form, ...) {
    if (!problem[0]) {
        va_list rest;
        va_start(rest, form);
        vsnprintf(problem, sizeof problem, form, rest);
        va_end(rest);
    }
    return false;
}

// A fiber runs one thread after the other: its stack is made once.
static void run_for_ever() {
    for (;;) {
        body(arguments);
        running->state = RETURNED;
        if (!_setjmp(running->at)) _longjmp(scheduler, 1);
    }
}

static void __attribute__((noinline)) resume(Fiber* fiber) {
    running = fiber;
    threadIdx = fiber->index;
    if (_setjmp(scheduler)) return;
    if (fiber->made) _longjmp(fiber->at, 1);
    fiber->made = true;
    if (!stacks) {
        stacks = (char*)mmap(nullptr, (size_t)MOST * STACK, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == (char*)MAP_FAILED) abort();
    }
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks + (size_t)(fiber - fibers) * STACK;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, run_for_ever, 0);
    setcontext(&context);
}

static void __attribute__((noinline)) wait(State state, int line) {
    running->state = state;
    running->line = line;
    if (!_setjmp(running->at)) _longjmp(scheduler, 1);
}

static void barrier(int line) { wait(AT_BARRIER, line); }

// Waits for the warp; which of the two rows the lanes' values are in.
static unsigned meet(unsigned mask, int line) {
    if (mask != 0xffffffffu) fail("line %d: the mask %#x leaves lanes out", line, mask);
    unsigned row = running->rounds++ & 1;
    wait(IN_WARP, line);
    return row;
}

template <class T>
static T exchanged(unsigned mask, T value, int from, int width, int line) {
    static_assert(sizeof(T) <= 16 && std::is_trivially_copyable_v<T>);
    unsigned me = (unsigned)(running - fibers);
    if (width < 1 || width > WARP || (width & (width - 1)))
        fail("line %d: a shuffle of width %d", line, width);
    memcpy(values[running->rounds & 1][me], &value, sizeof value);
    unsigned row = meet(mask, line);
    unsigned first = me & ~(unsigned)(width - 1);
    // Beyond the width a lane gets its own value.
    unsigned other = from < 0 || from >= width ? me : first + (unsigned)from;
    T got;
    memcpy(&got, values[row][other], sizeof got);
    return got;
}

static inline int lane(int width) { return (int)((running - fibers) & (width - 1)); }

template <class T>
static T shfl_xor(int line, unsigned mask, T value, int with, int width = WARP) {
    return exchanged(mask, value, lane(width) ^ with, width, line);
}
template <class T>
static T shfl_down(int line, unsigned mask, T value, unsigned by, int width = WARP) {
    return exchanged(mask, value, lane(width) + (int)by, width, line);
}
template <class T>
static T shfl_up(int line, unsigned mask, T value, unsigned by, int width = WARP) {
    return exchanged(mask, value, lane(width) - (int)by, width, line);
}
template <class T>
static T shfl(int line, unsigned mask, T value, int from, int width = WARP) {
    return exchanged(mask, value, from & (width - 1), width, line);
}
static inline void sync_warp(int line, unsigned mask = 0xffffffffu) { meet(mask, line); }

static unsigned ballot(int line, unsigned mask, int vote) {
    unsigned me = (unsigned)(running - fibers);
    votes[running->rounds & 1][me] = vote != 0;
    unsigned row = meet(mask, line), first = me & ~31u, found = 0;
    for (unsigned i = 0; i < WARP; i++) found |= votes[row][first + i] << i;
    return found;
}

#define __syncthreads() ::cuda_on_cpu::barrier(__LINE__)
#define __syncwarp(...) ::cuda_on_cpu::sync_warp(__LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_xor_sync(...) ::cuda_on_cpu::shfl_xor(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) ::cuda_on_cpu::shfl_down(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) ::cuda_on_cpu::shfl_up(__LINE__, __VA_ARGS__)
#define __shfl_sync(...) ::cuda_on_cpu::shfl(__LINE__, __VA_ARGS__)
#define __ballot_sync(...) ::cuda_on_cpu::ballot(__LINE__, __VA_ARGS__)
#define __any_sync(...) (::cuda_on_cpu::ballot(__LINE__, __VA_ARGS__) != 0)
#define __all_sync(...) (::cuda_on_cpu::ballot(__LINE__, __VA_ARGS__) == 0xffffffffu)

// ---- a block, a launch

// Each thread of the warp goes on until it waits at the block's barrier or has returned.
static bool run_warp(Fiber* first, Fiber* end, bool backwards) {
    for (;;) {
        for (long i = 0, n = end - first; i < n; i++) {
            Fiber* fiber = backwards ? end - 1 - i : first + i;
            if (fiber->state == READY) resume(fiber);
            if (problem[0]) return false;
        }
        Fiber* meeting = nullptr;
        for (Fiber* f = first; f < end; f++)
            if (f->state == IN_WARP) meeting = f;
        if (!meeting) return true;
        if (end - first != WARP)
            return fail("line %d: a shuffle in a warp of %d threads", meeting->line,
                        (int)(end - first));
        for (Fiber* f = first; f < end; f++) {
            int me = (int)(f - fibers), other = (int)(meeting - fibers);
            if (f->state == RETURNED)
                return fail("thread %d has returned, thread %d of its warp waits for it at line %d",
                            me, other, meeting->line);
            if (f->state != IN_WARP || f->line != meeting->line)
                return fail("thread %d waits at line %d, thread %d of its warp at line %d", me,
                            f->line, other, meeting->line);
        }
        for (Fiber* f = first; f < end; f++) f->state = READY;
    }
}

static bool run_fibers(bool backwards) {
    for (unsigned i = 0; i < threads; i++) {
        fibers[i].state = READY;
        fibers[i].rounds = 0;
        fibers[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y,
                           i / (blockDim.x * blockDim.y)};
    }
    unsigned warps = (threads + WARP - 1) / WARP;
    for (;;) {
        for (unsigned i = 0; i < warps; i++) {
            unsigned at = (backwards ? warps - 1 - i : i) * WARP;
            unsigned end = at + WARP < threads ? at + WARP : threads;
            if (!run_warp(fibers + at, fibers + end, backwards)) return false;
        }
        Fiber* waiting = nullptr;
        for (unsigned i = 0; i < threads; i++) {
            if (fibers[i].state != AT_BARRIER) continue;
            if (waiting && waiting->line != fibers[i].line)
                return fail("thread %d waits at the barrier of line %d, thread %u at that of line "
                            "%d", (int)(waiting - fibers), waiting->line, i, fibers[i].line);
            waiting = &fibers[i];
        }
        if (!waiting) return true;
        for (unsigned i = 0; i < threads; i++)
            if (fibers[i].state == AT_BARRIER) fibers[i].state = READY;
    }
}

static bool run_loop(bool backwards) {
    for (unsigned i = 0; i < threads; i++) {
        unsigned t = backwards ? threads - 1 - i : i;
        threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
        body(arguments);
    }
    return true;
}

// What ``extern __shared__`` names; a file that has none is compiled without.
#ifdef CUDA_DYNAMIC
alignas(16) static char dynamic[48 * 1024];
#endif

struct Launch {
    unsigned grid[3], block[3];
    int fibered, backwards;
    int pieces;  // of shared memory
    struct { char* at; size_t size; } const* shared;
};

static void poison(const Launch& how) {
    for (int i = 0; i < how.pieces; i++) memset(how.shared[i].at, 0xff, how.shared[i].size);
#ifdef CUDA_DYNAMIC
    memset(dynamic, 0xff, sizeof dynamic);
#endif
}

// Every block of a grid; what went wrong, or null.
static const char* launch(void (*kernel)(void**), const Launch& how, void** args) {
    gridDim = {how.grid[0], how.grid[1], how.grid[2]};
    blockDim = {how.block[0], how.block[1], how.block[2]};
    bool backwards = how.backwards;
    body = kernel;
    arguments = args;
    threads = blockDim.x * blockDim.y * blockDim.z;
    problem[0] = 0;
    unsigned long long blocks = (unsigned long long)gridDim.x * gridDim.y * gridDim.z;
    for (unsigned long long i = 0; i < blocks; i++) {
        unsigned long long b = backwards ? blocks - 1 - i : i;
        blockIdx = {(unsigned)(b % gridDim.x), (unsigned)(b / gridDim.x % gridDim.y),
                    (unsigned)(b / gridDim.x / gridDim.y)};
        poison(how);  // NaN, or −1
        if (how.fibered ? run_fibers(backwards) : run_loop(backwards)) continue;
        for (Fiber& fiber : fibers) fiber.made = false;  // left where they waited
        return problem;
    }
    return nullptr;
}

// ---- a kernel's signature, and its call as cuLaunchKernel makes it

// One word for each argument: p, i, f, or s for pointer, integer, float, struct, and its size;
// a pointer is followed by the same of what it points to, where that is a number.
template <class T>
static std::string word() {
    std::string size = std::to_string(sizeof(T));
    if constexpr (std::is_pointer_v<T>) {
        using To = std::remove_cv_t<std::remove_pointer_t<T>>;
        if constexpr (std::is_arithmetic_v<To>) return "p8" + word<To>();
        else return "p8";
    } else if constexpr (std::is_floating_point_v<T>) return "f" + size;
    else if constexpr (std::is_integral_v<T>) return "i" + size;
    else return "s" + size;
}

template <class... A>
static const char* signature(void (*)(A...)) {
    static const std::string words = ((word<A>() + " ") + ... + "");
    return words.c_str();
}

template <auto kernel, class... A, size_t... i>
static void call_with(void** args, void (*)(A...), std::index_sequence<i...>) {
    (void)args;
    kernel(*(A*)args[i]...);
}
template <class... A>
static auto places(void (*)(A...)) { return std::index_sequence_for<A...>(); }

template <auto kernel>
static void call(void** args) { call_with<kernel>(args, kernel, places(kernel)); }

}  // namespace cuda_on_cpu

#define CUDA_ENTRY __attribute__((visibility("default")))

// The entries of a kernel that Python looks up.
#define CUDA_KERNEL(name)                                                                       \
    extern "C" CUDA_ENTRY const char* launch_##name(const ::cuda_on_cpu::Launch* how,           \
                                                    void** args) {                              \
        return ::cuda_on_cpu::launch(::cuda_on_cpu::call<&name>, *how, args);                   \
    }                                                                                           \
    extern "C" CUDA_ENTRY const char* signature_##name() {                                      \
        return ::cuda_on_cpu::signature(&name);                                                 \
    }

// ---- what NVRTC does not know, since it reads no headers

#undef INFINITY
#undef NAN
#undef HUGE_VAL
#undef M_PI
#undef M_E
#undef M_SQRT2
#undef M_SQRT1_2
#undef M_2_SQRTPI
#undef INT_MAX
#undef INT_MIN
#undef LLONG_MAX
#undef FLT_MAX
#undef FLT_MIN
#undef DBL_MAX
#undef DBL_MIN
#undef assert
#define std NVRTC_has_no_std
#define int8_t NVRTC_has_no_int8_t
#define int16_t NVRTC_has_no_int16_t
#define int32_t NVRTC_has_no_int32_t
#define int64_t NVRTC_has_no_int64_t
#define uint8_t NVRTC_has_no_uint8_t
#define uint16_t NVRTC_has_no_uint16_t
#define uint32_t NVRTC_has_no_uint32_t
#define uint64_t NVRTC_has_no_uint64_t
#define uintptr_t NVRTC_has_no_uintptr_t
