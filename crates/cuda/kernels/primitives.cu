// What the kernels need of the machine: storage types, conversions, asynchronous copies, matrix instructions. No header is
// included, so that NVRTC needs no folder. The emulator of the tests (emulator/emulator.hpp) gives the same names a
// meaning on a CPU; nothing else in this folder knows which of the two it is compiled with.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define DEVICE static __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads) NAME
#define SHARED(name) extern __shared__ __align__(1024) u8 name[]
#define UNROLL _Pragma("unroll")

#define HAS_AMPERE (__CUDA_ARCH__ >= 800)
#define HAS_FP8 (__CUDA_ARCH__ >= 890)
#define HAS_HOPPER (__CUDA_ARCH__ >= 900)

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

// From Hopper on a kernel may begin when every block of the one before it has called `let_next_start`, or has ended.
DEVICE void let_next_start() {
#if HAS_HOPPER
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits until the kernel before has ended and all that it wrote can be seen. Before that a kernel reads weights only, not even how
// many rows a batch has, and writes nothing. Each thread waits, also where there is no work: if a kernel could end before the one
// before it, its end wouldn't tell the next one that both have ended.
DEVICE void wait_for_previous() {
#if HAS_HOPPER
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
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

#if WARPGROUPS

// Lets `multiply_async` see what this thread has copied to shared memory. Copies have to be done, and a barrier has to follow.
DEVICE void copies_publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Before the first `multiply_async` with accumulators that the thread has written to.
DEVICE void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Ends a group of products.
DEVICE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Keeps what is done with an accumulator from being moved to before this place.
DEVICE void hold_back(float& x) { asm volatile("" : "+f"(x)::"memory"); }
DEVICE void hold_back(int& x) { asm volatile("" : "+r"(x)::"memory"); }

// Waits until at most `PENDING` of this warp's groups are still under way. Until there is none, nobody may touch the accumulators.
template <int PENDING, class Sum, int BLOCKS>
DEVICE void products_wait(Sum (&d)[BLOCKS][4]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
    if constexpr (PENDING == 0) {
        UNROLL for (int j = 0; j < BLOCKS; j++) {
            UNROLL for (int e = 0; e < 4; e++) hold_back(d[j][e]);
        }
    }
}

// The accumulators of so many blocks of eight columns, and their numbers in an instruction.
#define ACCUMULATORS_1(type, j) type(d[j][0]), type(d[j][1]), type(d[j][2]), type(d[j][3])
#define ACCUMULATORS_2(type, j) ACCUMULATORS_1(type, j), ACCUMULATORS_1(type, j + 1)
#define ACCUMULATORS_4(type, j) ACCUMULATORS_2(type, j), ACCUMULATORS_2(type, j + 2)
#define ACCUMULATORS_8(type, j) ACCUMULATORS_4(type, j), ACCUMULATORS_4(type, j + 4)
#define ACCUMULATORS_16(type, j) ACCUMULATORS_8(type, j), ACCUMULATORS_8(type, j + 8)
#define ACCUMULATORS_32(type, j) ACCUMULATORS_16(type, j), ACCUMULATORS_16(type, j + 16)
#define NUMBERS_2 "%0, %1, %2, %3, %4, %5, %6, %7"
#define NUMBERS_4 NUMBERS_2 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define NUMBERS_8 NUMBERS_4 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NUMBERS_16                                                                                                  \
    NUMBERS_8 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51" \
              ", %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NUMBERS_32                                                                                                   \
    NUMBERS_16 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83" \
               ", %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102"   \
               ", %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118"     \
               ", %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define MULTIPLY_ASYNC(instruction, type, blocks, last)                                       \
    asm volatile("wgmma.mma_async.sync.aligned." instruction " {" NUMBERS_##blocks "}, " last \
                 : ACCUMULATORS_##blocks(type, 0)                                             \
                 : "l"(a), "l"(b)                                                             \
                 : "memory")

#if BF16
#define FLOATS "k16.f32.bf16.bf16"
#else
#define FLOATS "k16.f32.f16.f16"
#endif

// d += a · bᵀ of 64 rows and 8 · BLOCKS columns, 32 bytes of the depth each, of tiles that descriptors tell: 16-bit floats, summed in
// f32. The four warps of a warpgroup have 16 rows each, in the layout that `multiply` has. What is read is read until the wait.
template <int BLOCKS>
DEVICE void multiply_async(float (&d)[BLOCKS][4], u64 a, u64 b) {
    // Behind the descriptors: d is added to, no sign changes, nothing is transposed.
    if constexpr (BLOCKS == 2) MULTIPLY_ASYNC("m64n16" FLOATS, "+f", 2, "%8, %9, 1, 1, 1, 0, 0;");
    if constexpr (BLOCKS == 4) MULTIPLY_ASYNC("m64n32" FLOATS, "+f", 4, "%16, %17, 1, 1, 1, 0, 0;");
    if constexpr (BLOCKS == 8) MULTIPLY_ASYNC("m64n64" FLOATS, "+f", 8, "%32, %33, 1, 1, 1, 0, 0;");
    if constexpr (BLOCKS == 16) MULTIPLY_ASYNC("m64n128" FLOATS, "+f", 16, "%64, %65, 1, 1, 1, 0, 0;");
    if constexpr (BLOCKS == 32) MULTIPLY_ASYNC("m64n256" FLOATS, "+f", 32, "%128, %129, 1, 1, 1, 0, 0;");
}

// The same of unsigned and signed bytes, exact.
template <int BLOCKS>
DEVICE void multiply_async(int (&d)[BLOCKS][4], u64 a, u64 b) {
    if constexpr (BLOCKS == 2) MULTIPLY_ASYNC("m64n16k32.s32.u8.s8", "+r", 2, "%8, %9, 1;");
    if constexpr (BLOCKS == 4) MULTIPLY_ASYNC("m64n32k32.s32.u8.s8", "+r", 4, "%16, %17, 1;");
    if constexpr (BLOCKS == 8) MULTIPLY_ASYNC("m64n64k32.s32.u8.s8", "+r", 8, "%32, %33, 1;");
    if constexpr (BLOCKS == 16) MULTIPLY_ASYNC("m64n128k32.s32.u8.s8", "+r", 16, "%64, %65, 1;");
    if constexpr (BLOCKS == 32) MULTIPLY_ASYNC("m64n256k32.s32.u8.s8", "+r", 32, "%128, %129, 1;");
}

#endif

// The value of the lane whose number differs in the bits of `mask`.
DEVICE float exchange(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }

// Waits for all threads of the block.
DEVICE void block_barrier() { __syncthreads(); }
