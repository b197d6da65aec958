// Runs a kernel of ../kernels on a CPU: the names of primitives.cu with the meaning that NVIDIA's documents give them.
//
// Each thread of a block is a fiber; which one runs next is drawn by chance from a seed, so that a missing barrier shows: in
// half of all blocks threads take turns, in the others a warp runs on until it has to wait.
// An instruction of a whole warp waits until all its lanes have come to it. Shared memory is NaN at first. Asynchronous
// copies happen at any time between being asked for and being waited for, as chance has it. Rows of ldmatrix that meet in a
// bank of shared memory, which a GPU only does slowly, are an error here.
//
// Products of warpgroups happen between being asked for and being waited for too, each warp's rows at a time of their own, and
// accumulators are NaN meanwhile. They see copies to shared memory when the thread that copied has published them, or before, as
// chance has it.
//
// The kernel before ends when all threads of a block wait for that. Until then the buffers that it may read or write are
// out of reach, and whoever touches them ends the process.

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define DEVICE static inline
#define KERNEL(threads) static void NAME
#define SHARED(name) u8* name = emulator::machine.shared
#define UNROLL
#define UNROLL_COPIES
#define __device__

namespace emulator {

const int LANES = 32;
const int WARPGROUP = 4;
const size_t STACK = 128 << 10;
// Where shared memory begins, as instructions see it: at a multiple of what swizzled tiles are aligned to.
const u32 SHARED_BASE = 1024;

struct Index {
    u32 x, y, z;
};

// A copy that is still under way.
struct Copy {
    void* to;
    const void* from;
    bool inside;
};

// Pages that a kernel may not touch while the one before it runs.
struct Pages {
    void* first;
    size_t bytes;
};

enum class State { RUNNABLE, AT_WARP, AT_BLOCK, AT_PREVIOUS, DONE };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<u8[]> stack{new u8[STACK]};
    State state = State::RUNNABLE;
    Index thread{0, 0, 0};
    std::vector<std::vector<Copy>> groups{{}};
    // What was copied to shared memory and not published.
    std::vector<u8*> unpublished;
};

// A product of a warpgroup: the descriptors of its operands, and how many columns it has.
struct Product {
    u64 a;
    u64 b;
    u32 columns;

    bool operator==(const Product& other) const { return a == other.a && b == other.b && columns == other.columns; }
};

// The products of a warp.
struct Products {
    // Since the block began, and how many of them happened.
    std::vector<Product> all;
    size_t done = 0;
    // How many had been asked for at the end of each group.
    std::vector<size_t> groups;
    bool begun = false;
    // What the accumulators of each lane hold while products are under way, and where they are; empty at other times.
    std::vector<std::vector<u32>> sums;
    void* accumulators[LANES];
};

// What the lanes of a warp bring to the instruction that they wait at.
struct Warp {
    std::vector<int> runnable;
    int arrived = 0;
    const char* instruction = nullptr;
    void* operands[LANES];
    Products products;
};

struct Machine {
    Index block{0, 0, 0};
    u8* shared = nullptr;
    // Shared memory as products of warpgroups see it.
    std::vector<u8> published;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    size_t runnable = 0;
    bool greedy = false;
    int current = 0;
    int at_block = 0;
    // Threads that have waited for the kernel before, and whether the next one may start.
    int at_previous = 0;
    bool lets_next_start = false;
    const Pages* pages = nullptr;
    size_t page_ranges = 0;
    ucontext_t scheduler;
    uint64_t random = 1;
    std::string error;

    // xorshift64 (Marsaglia 2003).
    uint64_t draw(uint64_t below) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return (random >> 11) % below;
    }

    Fiber& fiber() { return fibers[current]; }

    void fail(const std::string& message) {
        if (error.empty()) error = message;
    }

    // What is at an address of shared memory for products of warpgroups.
    const u8* published_at(u32 address) {
        static const u8 nothing[16] = {};
        if (address >= SHARED_BASE && address + 16 <= SHARED_BASE + published.size()) return &published[address - SHARED_BASE];
        fail("a matrix descriptor leads out of shared memory");
        return nothing;
    }

    void publish(const u8* place) { memcpy(&published[place - shared], place, 16); }

    void finish(const Copy& copy) {
        if (copy.inside) {
            memcpy(copy.to, copy.from, 16);
        } else {
            memset(copy.to, 0, 16);
        }
        if (draw(2)) {
            publish(static_cast<u8*>(copy.to));
        } else {
            fiber().unpublished.push_back(static_cast<u8*>(copy.to));
        }
    }

    // Puts what the kernel before may still use out of reach, or gives it back.
    void protect(int protection) {
        for (size_t i = 0; i < page_ranges; i++) {
            if (mprotect(pages[i].first, pages[i].bytes, protection) != 0) fail("pages can't be protected");
        }
    }

    void wake(int thread) {
        fibers[thread].state = State::RUNNABLE;
        warps[thread / LANES].runnable.push_back(thread);
        runnable++;
    }

    // Takes the thread that runs next.
    void choose() {
        size_t warp = current / LANES;
        if (!greedy || warps[warp].runnable.empty()) warp = draw(warps.size());
        while (warps[warp].runnable.empty()) warp = (warp + 1) % warps.size();
        std::vector<int>& ready = warps[warp].runnable;
        std::swap(ready[draw(ready.size())], ready.back());
        current = ready.back();
        ready.pop_back();
        runnable--;
    }

    void wait(State state) {
        Fiber& waiting = fiber();
        waiting.state = state;
        swapcontext(&waiting.context, &scheduler);
    }
};

static thread_local Machine machine;

// The instruction `run` of all lanes of the warp, once each has brought its operands.
template <class Run>
static void together(const char* instruction, void* operands, Run run) {
    int warp = machine.current / LANES;
    Warp& mine = machine.warps[warp];
    if (mine.arrived > 0 && mine.instruction != instruction) {
        machine.fail(std::string("lanes of a warp meet at ") + instruction + " and " + mine.instruction);
    }
    mine.instruction = instruction;
    mine.operands[machine.current % LANES] = operands;
    if (++mine.arrived < LANES) {
        machine.wait(State::AT_WARP);
        return;
    }
    run(mine.operands);
    mine.arrived = 0;
    for (int lane = 0; lane < LANES; lane++) {
        int thread = warp * LANES + lane;
        if (thread != machine.current) machine.wake(thread);
    }
}

static void barrier() {
    if (++machine.at_block < static_cast<int>(machine.fibers.size())) {
        machine.wait(State::AT_BLOCK);
        return;
    }
    machine.at_block = 0;
    for (int thread = 0; thread < static_cast<int>(machine.fibers.size()); thread++) {
        if (thread != machine.current) machine.wake(thread);
    }
}

// All threads wait together, as if the kernel before had gone on until then.
static void previous() {
    if (++machine.at_previous < static_cast<int>(machine.fibers.size())) {
        machine.wait(State::AT_PREVIOUS);
        return;
    }
    machine.protect(PROT_READ | PROT_WRITE);
    for (int thread = 0; thread < static_cast<int>(machine.fibers.size()); thread++) {
        if (thread != machine.current) machine.wake(thread);
    }
}

// All pending copies but those of the last `pending` groups.
static void finish_copies(size_t pending) {
    auto& groups = machine.fiber().groups;
    // The last one is not committed yet.
    while (groups.size() > pending + 1) {
        for (const Copy& copy : groups.front()) machine.finish(copy);
        groups.erase(groups.begin());
    }
}

static thread_local void (*body)(void**) = nullptr;
static thread_local void** body_arguments = nullptr;

static void enter() {
    body(body_arguments);
    machine.fiber().state = State::DONE;
    swapcontext(&machine.fiber().context, &machine.scheduler);
}

static void run_block(u32 threads, size_t shared_bytes) {
    std::unique_ptr<u8[]> shared(new u8[shared_bytes + 2048]);
    memset(shared.get(), 0xff, shared_bytes + 2048);
    machine.shared = reinterpret_cast<u8*>((reinterpret_cast<uintptr_t>(shared.get()) + 1023) / 1024 * 1024);
    machine.published.assign(shared_bytes, 0xff);
    machine.warps.assign((threads + LANES - 1) / LANES, Warp());
    machine.runnable = 0;
    machine.current = 0;
    machine.at_block = 0;
    machine.at_previous = 0;
    machine.lets_next_start = false;
    machine.protect(PROT_NONE);
    machine.greedy = machine.draw(2);
    for (u32 thread = 0; thread < threads; thread++) {
        Fiber& fiber = machine.fibers[thread];
        fiber.thread = {thread, 0, 0};
        fiber.groups.assign(1, {});
        fiber.unpublished.clear();
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
        machine.wake(thread);
    }
    while (machine.runnable > 0 && machine.error.empty()) {
        machine.choose();
        swapcontext(&machine.scheduler, &machine.fiber().context);
    }
    machine.protect(PROT_READ | PROT_WRITE);
    for (const Fiber& fiber : machine.fibers) {
        if (fiber.state != State::DONE) machine.fail("some threads of a block wait for others that never come");
        for (const std::vector<Copy>& group : fiber.groups) {
            if (!group.empty()) machine.fail("a block ends with copies that nobody has waited for");
        }
    }
    if (machine.at_previous == 0) machine.fail("a block doesn't wait for the kernel before");
    if (!machine.lets_next_start) machine.fail("a block doesn't let the next kernel start");
    for (size_t warp = 0; warp < machine.warps.size(); warp++) {
        const Products& products = machine.warps[warp].products;
        if (!products.sums.empty()) machine.fail("a block ends with products that nobody has waited for");
        size_t first = warp / WARPGROUP * WARPGROUP;
        bool whole = first + WARPGROUP <= machine.warps.size();
        if (!products.all.empty() && !(whole && products.all == machine.warps[first].products.all)) {
            machine.fail("warps of a warpgroup don't ask for the same products");
        }
    }
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

// Runs a grid; what went wrong, or null.
static const char* launch(void (*kernel)(void**), u32 grid_x, u32 grid_y, u32 threads, size_t shared_bytes,
                          void** arguments, uint64_t seed, const Pages* pages, size_t page_ranges) {
    machine.pages = pages;
    machine.page_ranges = page_ranges;
    body = kernel;
    body_arguments = arguments;
    machine.random = seed * 2 + 1;
    machine.error.clear();
    machine.fibers = std::vector<Fiber>(threads);
    std::vector<u32> order(static_cast<size_t>(grid_x) * grid_y);
    for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<u32>(i);
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[machine.draw(i)]);
    for (u32 block : order) {
        machine.block = {block % grid_x, block / grid_x, 0};
        run_block(threads, shared_bytes);
        if (!machine.error.empty()) return machine.error.c_str();
    }
    return nullptr;
}

}  // namespace emulator

#define threadIdx (emulator::machine.fiber().thread)
#define blockIdx (emulator::machine.block)

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
static float widened(u16 x) {
    int exponent = x >> 10 & 31;
    float fraction = static_cast<float>(x & 1023);
    float size = exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                 : exponent == 0 ? ldexpf(fraction, -24)
                                 : ldexpf(fraction + 1024.0f, exponent - 25);
    return x & 0x8000 ? -size : size;
}

DEVICE float widen(u16 x) {
    static const std::vector<float> table = [] {
        std::vector<float> all;
        for (u32 bits = 0; bits < 65536; bits++) all.push_back(widened(static_cast<u16>(bits)));
        return all;
    }();
    return table[x];
}

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
        emulator::machine.fail("an asynchronous copy doesn't begin at 16 bytes");
    }
    emulator::Copy copy{to, from, inside};
    if (emulator::machine.draw(2)) {
        emulator::machine.finish(copy);
    } else {
        emulator::machine.fiber().groups.back().push_back(copy);
    }
}

DEVICE void copies_commit() { emulator::machine.fiber().groups.emplace_back(); }

template <int PENDING>
DEVICE void copies_wait() {
    emulator::finish_copies(PENDING);
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
                if (address % 16 != 0) emulator::machine.fail("a row of ldmatrix doesn't begin at 16 bytes");
                banks |= 1u << address / 16 % 8;
            }
            if (banks != 255) emulator::machine.fail("rows of ldmatrix meet in a bank");
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
    return emulator::SHARED_BASE + static_cast<u32>(static_cast<const u8*>(place) - emulator::machine.shared);
}

DEVICE void copies_publish() {
    std::vector<u8*>& places = emulator::machine.fiber().unpublished;
    for (const u8* place : places) emulator::machine.publish(place);
    places.clear();
}

// 32 bytes of a row of a tile that a descriptor tells: rows of 128 bytes with the 128-byte swizzle, groups of eight rows as far apart
// as it says.
DEVICE void read_row(u8 (&to)[32], u64 descriptor, u32 row) {
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) emulator::machine.fail("a matrix descriptor of another swizzle");
    u32 start = static_cast<u32>(descriptor & 0x3fff) << 4;
    u32 stride = static_cast<u32>(descriptor >> 32 & 0x3fff) << 4;
    for (u32 chunk = 0; chunk < 2; chunk++) {
        u32 address = start + row / 8 * stride + row % 8 * 128 + chunk * 16;
        memcpy(to + chunk * 16, emulator::machine.published_at(address ^ (address >> 7 & 7) << 4), 16);
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
    emulator::Products& products = emulator::machine.warps[warp].products;
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
        emulator::machine.warps[emulator::machine.current / emulator::LANES].products.begun = true;
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
        int warp = emulator::machine.current / emulator::LANES;
        emulator::Products& products = emulator::machine.warps[warp].products;
        auto lane_of = [&](int lane) { return static_cast<ProductOperands*>(operands[lane]); };
        bool first = products.sums.empty();
        if (first && !products.begun) emulator::machine.fail("a product whose accumulators are not fenced");
        if (first) products.sums.resize(emulator::LANES);
        for (int lane = 0; lane < emulator::LANES; lane++) {
            if (!(lane_of(lane)->product == lane_of(0)->product)) emulator::machine.fail("lanes differ in their product");
            void* accumulators = lane_of(lane)->accumulators;
            if (!first && products.accumulators[lane] != accumulators) emulator::machine.fail("products into two places");
            if (!first) continue;
            products.accumulators[lane] = accumulators;
            products.sums[lane].resize(BLOCKS * 4);
            memcpy(products.sums[lane].data(), accumulators, sizeof(d));
            memset(accumulators, 0xff, sizeof(d));
        }
        products.all.push_back(lane_of(0)->product);
        if (emulator::machine.draw(2)) finish_products<Sum>(warp, products.all.size());
    });
}

DEVICE void products_commit() {
    emulator::together("wgmma.commit_group", nullptr, [](void**) {
        emulator::Products& products = emulator::machine.warps[emulator::machine.current / emulator::LANES].products;
        products.groups.push_back(products.all.size());
    });
}

template <int PENDING, class Sum, int BLOCKS>
DEVICE void products_wait(Sum (&)[BLOCKS][4]) {
    emulator::together("wgmma.wait_group", nullptr, [](void**) {
        int warp = emulator::machine.current / emulator::LANES;
        emulator::Products& products = emulator::machine.warps[warp].products;
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

DEVICE void block_barrier() { emulator::barrier(); }

DEVICE void let_next_start() { emulator::machine.lets_next_start = true; }

DEVICE void wait_for_previous() { emulator::previous(); }

static void NAME_arguments(void** arguments);

// The kernel of this translation unit. Grid and block are those of a launch on a device; the pages are what it may not touch
// before the kernel before it has ended. The text is valid until the next call.
extern "C" const char* emulate(u32 grid_x, u32 grid_y, u32 threads, size_t shared_bytes, void** arguments,
                               uint64_t seed, const emulator::Pages* pages, size_t page_ranges) {
    return emulator::launch(NAME_arguments, grid_x, grid_y, threads, shared_bytes, arguments, seed, pages, page_ranges);
}
