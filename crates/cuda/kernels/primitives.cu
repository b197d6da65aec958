// What the kernels need of the machine: storage types, conversions, asynchronous copies, matrix instructions. No header is
// included, so that NVRTC needs no folder. The emulator of the tests (emulator/emulator.hpp) gives the same names a
// meaning on a CPU; nothing else in this folder knows which of the two it is compiled with.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;

#define DEVICE static __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads) NAME
#define SHARED(name) extern __shared__ __align__(128) u8 name[]
#define UNROLL _Pragma("unroll")

#define HAS_AMPERE (__CUDA_ARCH__ >= 800)
#define HAS_FP8 (__CUDA_ARCH__ >= 890)

// Of loops that copy: addresses, and without asynchronous copies what is under way, are in registers.
#if HAS_AMPERE
#define UNROLL_COPIES _Pragma("unroll 8")
#else
#define UNROLL_COPIES _Pragma("unroll 4")
#endif

// 16 bytes that one thread moves at once.
struct __align__(16) Chunk {
    u32 word[4];
};

// The address of a place in shared memory, as the instructions below take it.
DEVICE u32 shared_address(const void* place) {
    return static_cast<u32>(__cvta_generic_to_shared(place));
}

// A 16-bit float as f32.
DEVICE float widen(u16 x) {
#if BF16
    return __uint_as_float(static_cast<u32>(x) << 16);
#else
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x));
    return wide;
#endif
}

// The nearest 16-bit float, halves to even.
DEVICE u16 narrow(float x) {
    u16 narrowed;
#if BF16
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrowed) : "f"(x));
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrowed) : "f"(x));
#endif
    return narrowed;
}

// Two 16-bit floats in one word, the first one in its low half.
DEVICE u32 narrow_pair(float low, float high) {
#if HAS_AMPERE
    u32 pair;
#if BF16
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
    return pair;
#else
    return narrow(low) | static_cast<u32>(narrow(high)) << 16;
#endif
}

#if HAS_FP8
// The nearest e4m3 float, halves to even; at most 448 in size, NaN for NaN.
DEVICE u32 narrow_e4m3(float x) {
    u16 pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(x));
    return pair;
}
#endif

// 2^x, with an error of about 2 ulp; 0 for -infinity.
DEVICE float exp2_fast(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// The nearest whole number, halves to even.
DEVICE float round_even(float x) { return rintf(x); }

// Copies 16 bytes from global to shared memory, or zeros where `inside` is false. Done after `copies_wait`.
DEVICE void copy_async(void* to, const void* from, bool inside) {
#if HAS_AMPERE
    u32 bytes = inside ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
#else
    Chunk chunk = {{0, 0, 0, 0}};
    if (inside) chunk = *static_cast<const Chunk*>(from);
    *static_cast<Chunk*>(to) = chunk;
#endif
}

// Ends a group of copies.
DEVICE void copies_commit() {
#if HAS_AMPERE
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `PENDING` of this thread's groups are still under way.
template <int PENDING>
DEVICE void copies_wait() {
#if HAS_AMPERE
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit elements: lanes 8i..8i+7 give the addresses of the rows of matrix i. Lane l gets of each
// the elements 2(l % 4) and 2(l % 4) + 1 of row l / 4.
DEVICE void load_matrices(u32 (&to)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same of the transposed matrices.
DEVICE void load_matrices_transposed(u32 (&to)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d += a · b of 16x16 and 16x8 16-bit floats, summed in f32.
DEVICE void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if HAS_AMPERE
#if BF16
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#endif
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

#if !HAS_AMPERE
// Half of what follows: two rows of lanes, 8x16 and 16x8 bytes.
DEVICE void multiply_quarter(int& d0, int& d1, u32 a, u32 b) {
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+r"(d0), "+r"(d1)
                 : "r"(a), "r"(b));
}
#endif

// d += a · b of 16x32 unsigned and 32x8 signed bytes, exact.
DEVICE void multiply(int (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if HAS_AMPERE
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    multiply_quarter(d[0], d[1], a[0], b0);
    multiply_quarter(d[0], d[1], a[2], b1);
    multiply_quarter(d[2], d[3], a[1], b0);
    multiply_quarter(d[2], d[3], a[3], b1);
#endif
}

// The value of the lane whose number differs in the bits of `mask`.
DEVICE float exchange(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }

// Waits for all threads of the block.
DEVICE void block_barrier() { __syncthreads(); }
