// The names of primitives.cu for the machine of machine.hpp, which comes before this.

#define DEVICE static inline
#define KERNEL(threads) static void NAME
#define SHARED(name) u8* name = emulator::machine().shared
#define UNROLL
#define UNROLL_COPIES
#define __device__

namespace emulator {

// The instruction `run` of all lanes of the warp, once each has brought its operands.
template <class Run>
static void together(const char* instruction, void* operands, Run run) {
    int warp = machine().current / LANES;
    Warp& mine = machine().warps[warp];
    if (mine.arrived > 0 && mine.instruction != instruction) machine().fail_meeting(instruction, mine.instruction);
    mine.instruction = instruction;
    mine.operands[machine().current % LANES] = operands;
    if (++mine.arrived < LANES) {
        machine().wait(State::AT_WARP);
        return;
    }
    run(mine.operands);
    mine.arrived = 0;
    machine().wake_warp(warp);
}

template <class... Arguments, size_t... Numbers>
static void apply(void (*kernel)(Arguments...), void** arguments, std::index_sequence<Numbers...>) {
    kernel(*static_cast<Arguments*>(arguments[Numbers])...);
}

template <class... Arguments>
static void call(void (*kernel)(Arguments...), void** arguments) {
    apply(kernel, arguments, std::index_sequence_for<Arguments...>());
}

template <class... Arguments>
static size_t parameter_sizes(void (*)(Arguments...), size_t* sizes) {
    size_t all[] = {sizeof(Arguments)...};
    memcpy(sizes, all, sizeof(all));
    return sizeof...(Arguments);
}

}  // namespace emulator

#define threadIdx (emulator::machine().fiber().thread)
#define blockIdx (emulator::machine().block)

struct alignas(16) Chunk {
    u32 word[4];
};

static inline float __int_as_float(int bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

DEVICE u32 bits_of(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}

#if BF16
DEVICE float widen(u16 x) { return __int_as_float(static_cast<int>(static_cast<u32>(x) << 16)); }

DEVICE u16 narrow(float x) {
    u32 bits = bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#else
DEVICE float widen(u16 x) { return emulator::halves[x]; }

DEVICE u16 narrow(float x) {
    u32 bits = bits_of(x);
    u16 sign = static_cast<u16>(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return 0x7fff;
    if (bits >= 0x477ff000) return sign | 0x7c00;
    if (bits < 0x38800000) return sign | static_cast<u16>(lrintf(ldexpf(fabsf(x), 24)));
    return sign | static_cast<u16>((bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13);
}
#endif

DEVICE u32 narrow_pair(float low, float high) { return narrow(low) | static_cast<u32>(narrow(high)) << 16; }

// A code counts steps of 2^-9, which double with each power of two from 2^-5 on.
DEVICE u32 narrow_e4m3(float x) {
    if (isnan(x)) return 0x7f;
    float size = fminf(fabsf(x), 448.0f);
    int exponent = 0;
    frexpf(size, &exponent);
    int step = size == 0.0f || exponent < -5 ? -9 : exponent - 4;
    u32 count = static_cast<u32>(lrintf(ldexpf(size, -step)));
    return (signbit(x) ? 0x80 : 0) | (static_cast<u32>(step + 9) * 8 + count);
}

DEVICE float exp2_fast(float x) {
    float result = exp2f(x);
    return result < 1.17549435e-38f ? 0.0f : result;
}

DEVICE float round_even(float x) { return nearbyintf(x); }

DEVICE void copy_async(void* to, const void* from, bool inside) {
    if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || (inside && reinterpret_cast<uintptr_t>(from) % 16 != 0)) {
        emulator::machine().fail("an asynchronous copy doesn't begin at 16 bytes");
    }
    emulator::Copy copy{to, from, inside};
    if (emulator::machine().draw(2)) {
        emulator::machine().finish(copy);
    } else {
        emulator::machine().postpone(copy);
    }
}

DEVICE void copies_commit() { emulator::machine().commit_copies(); }

template <int PENDING>
DEVICE void copies_wait() {
    emulator::machine().finish_copies(PENDING);
}

struct MatricesOperands {
    u32* to;
    const u8* row;
};

template <bool TRANSPOSED>
DEVICE void load_four_matrices(u32 (&to)[4], const void* row, const char* name) {
    MatricesOperands mine{to, static_cast<const u8*>(row)};
    emulator::together(name, &mine, [](void** operands) {
        auto lane_of = [&](int lane) { return static_cast<MatricesOperands*>(operands[lane]); };
        for (int matrix = 0; matrix < 4; matrix++) {
            // Eight rows are read at once where they lie in different banks.
            u32 banks = 0;
            for (int row = 0; row < 8; row++) {
                uintptr_t address = reinterpret_cast<uintptr_t>(lane_of(matrix * 8 + row)->row);
                if (address % 16 != 0) emulator::machine().fail("a row of ldmatrix doesn't begin at 16 bytes");
                banks |= 1u << address / 16 % 8;
            }
            if (banks != 255) emulator::machine().fail("rows of ldmatrix meet in a bank");
            for (int lane = 0; lane < emulator::LANES; lane++) {
                u32 word = 0;
                for (int e = 0; e < 2; e++) {
                    int major = lane / 4;
                    int minor = lane % 4 * 2 + e;
                    int matrix_row = TRANSPOSED ? minor : major;
                    int column = TRANSPOSED ? major : minor;
                    u16 element;
                    memcpy(&element, lane_of(matrix * 8 + matrix_row)->row + column * 2, 2);
                    word |= static_cast<u32>(element) << (16 * e);
                }
                lane_of(lane)->to[matrix] = word;
            }
        }
    });
}

DEVICE void load_matrices(u32 (&to)[4], const void* row) { load_four_matrices<false>(to, row, "ldmatrix"); }

DEVICE void load_matrices_transposed(u32 (&to)[4], const void* row) {
    load_four_matrices<true>(to, row, "ldmatrix.trans");
}

template <class Sum>
struct MultiplyOperands {
    Sum* d;
    const u32* a;
    u32 b[2];
};

// d += a · b, where a lane has words of a: row lane / 4 (words 0 and 2) and that + 8 (words 1 and 3), at 4 bytes of the first
// (words 0 and 1) or the second 16 of the depth; of b: column lane / 4, the same bytes; of d: those rows, columns
// 2(lane % 4) and the next.
template <class Sum, class Product>
DEVICE void multiply_matrices(Sum (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, Product product) {
    MultiplyOperands<Sum> mine{d, a, {b0, b1}};
    emulator::together("mma", &mine, [&](void** operands) {
        auto lane_of = [&](int lane) { return static_cast<MultiplyOperands<Sum>*>(operands[lane]); };
        for (int lane = 0; lane < emulator::LANES; lane++) {
            for (int e = 0; e < 4; e++) {
                int row_lane = lane / 4 * 4;
                int column_lane = (lane % 4 * 2 + e % 2) * 4;
                Sum& sum = lane_of(lane)->d[e];
                for (int half = 0; half < 2; half++) {
                    for (int word = 0; word < 4; word++) {
                        product(sum, lane_of(row_lane + word)->a[e / 2 + half * 2], lane_of(column_lane + word)->b[half]);
                    }
                }
            }
        }
    });
}

DEVICE void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_matrices(d, a, b0, b1, [](float& sum, u32 x, u32 y) {
        // Products of 16-bit floats are exact.
        sum += widen(static_cast<u16>(x)) * widen(static_cast<u16>(y));
        sum += widen(static_cast<u16>(x >> 16)) * widen(static_cast<u16>(y >> 16));
    });
}

DEVICE void multiply(int (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_matrices(d, a, b0, b1, [](int& sum, u32 x, u32 y) {
        for (int byte = 0; byte < 4; byte++) {
            sum += static_cast<int>(x >> (8 * byte) & 255) * static_cast<signed char>(y >> (8 * byte) & 255);
        }
    });
}

DEVICE u32 shared_address(const void* place) {
    return emulator::SHARED_BASE + static_cast<u32>(static_cast<const u8*>(place) - emulator::machine().shared);
}

DEVICE void copies_publish() { emulator::machine().publish_copies(); }

// 32 bytes of a row of a tile that a descriptor tells: rows of 128 bytes with the 128-byte swizzle, groups of eight rows as far apart
// as it says.
DEVICE void read_row(u8 (&to)[32], u64 descriptor, u32 row) {
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) emulator::machine().fail("a matrix descriptor of another swizzle");
    u32 start = static_cast<u32>(descriptor & 0x3fff) << 4;
    u32 stride = static_cast<u32>(descriptor >> 32 & 0x3fff) << 4;
    for (u32 chunk = 0; chunk < 2; chunk++) {
        u32 address = start + row / 8 * stride + row % 8 * 128 + chunk * 16;
        memcpy(to + chunk * 16, emulator::machine().published_at(address ^ (address >> 7 & 7) << 4), 16);
    }
}

DEVICE void add_products(float& sum, const u8 (&a)[32], const u8 (&b)[32]) {
    for (int byte = 0; byte < 32; byte += 2) {
        // Products of 16-bit floats are exact.
        sum += widen(static_cast<u16>(a[byte] | a[byte + 1] << 8)) * widen(static_cast<u16>(b[byte] | b[byte + 1] << 8));
    }
}

DEVICE void add_products(int& sum, const u8 (&a)[32], const u8 (&b)[32]) {
    for (int byte = 0; byte < 32; byte++) sum += static_cast<int>(a[byte]) * static_cast<signed char>(b[byte]);
}

// Lets the first `count` products of a warp happen, as far as they haven't.
template <class Sum>
DEVICE void finish_products(int warp, size_t count) {
    emulator::Products& products = emulator::machine().warps[warp].products;
    for (; products.done < count; products.done++) {
        const emulator::Product& product = products.all[products.done];
        u8 rows[16][32];
        for (u32 row = 0; row < 16; row++) read_row(rows[row], product.a, warp % emulator::WARPGROUP * 16 + row);
        for (u32 column = 0; column < product.columns; column++) {
            u8 other[32];
            read_row(other, product.b, column);
            for (u32 row = 0; row < 16; row++) {
                u32& held = products.sums[row % 8 * 4 + column % 8 / 2][column / 8 * 4 + row / 8 * 2 + column % 2];
                Sum sum;
                memcpy(&sum, &held, 4);
                add_products(sum, rows[row], other);
                memcpy(&held, &sum, 4);
            }
        }
    }
}

DEVICE void products_begin() {
    emulator::together("wgmma.fence", nullptr, [](void**) {
        emulator::machine().warps[emulator::machine().current / emulator::LANES].products.begun = true;
    });
}

struct ProductOperands {
    void* accumulators;
    emulator::Product product;
};

template <class Sum, int BLOCKS>
DEVICE void multiply_async(Sum (&d)[BLOCKS][4], u64 a, u64 b) {
    ProductOperands mine{d, {a, b, BLOCKS * 8}};
    emulator::together("wgmma", &mine, [](void** operands) {
        int warp = emulator::machine().current / emulator::LANES;
        emulator::Products& products = emulator::machine().warps[warp].products;
        auto lane_of = [&](int lane) { return static_cast<ProductOperands*>(operands[lane]); };
        bool first = products.sums.empty();
        if (first && !products.begun) emulator::machine().fail("a product whose accumulators are not fenced");
        if (first) products.sums.resize(emulator::LANES);
        for (int lane = 0; lane < emulator::LANES; lane++) {
            if (!(lane_of(lane)->product == lane_of(0)->product)) emulator::machine().fail("lanes differ in their product");
            void* accumulators = lane_of(lane)->accumulators;
            if (!first && products.accumulators[lane] != accumulators) emulator::machine().fail("products into two places");
            if (!first) continue;
            products.accumulators[lane] = accumulators;
            products.sums[lane].resize(BLOCKS * 4);
            memcpy(products.sums[lane].data(), accumulators, sizeof(d));
            memset(accumulators, 0xff, sizeof(d));
        }
        products.all.push_back(lane_of(0)->product);
        if (emulator::machine().draw(2)) finish_products<Sum>(warp, products.all.size());
    });
}

DEVICE void products_commit() {
    emulator::together("wgmma.commit_group", nullptr, [](void**) {
        emulator::Products& products = emulator::machine().warps[emulator::machine().current / emulator::LANES].products;
        products.groups.push_back(products.all.size());
    });
}

template <int PENDING, class Sum, int BLOCKS>
DEVICE void products_wait(Sum (&)[BLOCKS][4]) {
    emulator::together("wgmma.wait_group", nullptr, [](void**) {
        int warp = emulator::machine().current / emulator::LANES;
        emulator::Products& products = emulator::machine().warps[warp].products;
        size_t waited = products.groups.size() > PENDING ? products.groups[products.groups.size() - 1 - PENDING] : 0;
        finish_products<Sum>(warp, waited);
        if (waited < products.all.size()) return;
        for (int lane = 0; lane < static_cast<int>(products.sums.size()); lane++) {
            memcpy(products.accumulators[lane], products.sums[lane].data(), products.sums[lane].size() * 4);
        }
        products.sums.clear();
        products.begun = false;
    });
}

struct ExchangeOperands {
    float in;
    int mask;
    float out;
};

DEVICE float exchange(float x, int mask) {
    ExchangeOperands mine{x, mask, 0.0f};
    emulator::together("shfl", &mine, [](void** operands) {
        auto lane_of = [&](int lane) { return static_cast<ExchangeOperands*>(operands[lane]); };
        for (int lane = 0; lane < emulator::LANES; lane++) {
            lane_of(lane)->out = lane_of(lane ^ lane_of(lane)->mask)->in;
        }
    });
    return mine.out;
}

DEVICE void block_barrier() { emulator::machine().barrier(); }

DEVICE void let_next_start() { emulator::machine().lets_next_start = true; }

DEVICE void wait_for_previous() { emulator::machine().wait_for_previous(); }

static void NAME_arguments(void** arguments);

// The kernel of this translation unit. Grid and block are those of a launch on a device; the pages are what it may not touch
// before the kernel before it has ended. The text is valid until the next call.
extern "C" const char* emulate(u32 grid_x, u32 grid_y, u32 threads, size_t shared_bytes, void** arguments,
                               uint64_t seed, const emulator::Pages* pages, size_t page_ranges) {
    return emulator::launch(NAME_arguments, grid_x, grid_y, threads, shared_bytes, arguments, seed, pages, page_ranges);
}
