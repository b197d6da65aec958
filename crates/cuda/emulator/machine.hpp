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
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

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
    // Where it begins, and where it goes on.
    ucontext_t context;
    jmp_buf place;
    bool begun = false;
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

// What runs blocks, one for each thread of the host. What kernels call often is here, all else in machine.cpp.
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
    jmp_buf scheduler;
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

    void fail(const char* message);
    void fail_meeting(const char* instruction, const char* other);

    void wait(State state);
    void wake(int thread);
    void wake_warp(int warp);
    void barrier();
    void wait_for_previous();

    const u8* published_at(u32 address);
    void publish(const u8* place) { memcpy(&published[place - shared], place, 16); }
    void publish_copies();
    void finish(const Copy& copy);
    void postpone(const Copy& copy);
    void commit_copies();
    void finish_copies(size_t pending);

    void choose();
    void go_on();
    void protect(int protection);
    void run_block(u32 threads, size_t shared_bytes);
};

// The machine of this thread, once it has run a kernel.
extern __thread Machine* running __attribute__((tls_model("initial-exec")));

static inline Machine& machine() { return *running; }

// The numbers that 16-bit floats are.
extern float halves[65536];

// Runs a grid; what went wrong, or null.
const char* launch(void (*kernel)(void**), u32 grid_x, u32 grid_y, u32 threads, size_t shared_bytes, void** arguments,
                   uint64_t seed, const Pages* pages, size_t page_ranges);

}  // namespace emulator
