// The machine that kernels run on; see machine.hpp.

#include "machine.hpp"

#include <sys/mman.h>

namespace emulator {

__thread Machine* running = nullptr;

void Machine::fail(const char* message) {
    if (error.empty()) error = message;
}

void Machine::fail_meeting(const char* instruction, const char* other) {
    fail((std::string("lanes of a warp meet at ") + instruction + " and " + other).c_str());
}

// What is at an address of shared memory for products of warpgroups.
const u8* Machine::published_at(u32 address) {
    static const u8 nothing[16] = {};
    if (address >= SHARED_BASE && address + 16 <= SHARED_BASE + published.size()) return &published[address - SHARED_BASE];
    fail("a matrix descriptor leads out of shared memory");
    return nothing;
}

void Machine::finish(const Copy& copy) {
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

void Machine::postpone(const Copy& copy) { fiber().groups.back().push_back(copy); }

void Machine::commit_copies() { fiber().groups.emplace_back(); }

// All pending copies but those of the last `pending` groups.
void Machine::finish_copies(size_t pending) {
    auto& groups = fiber().groups;
    // The last one is not committed yet.
    while (groups.size() > pending + 1) {
        for (const Copy& copy : groups.front()) finish(copy);
        groups.erase(groups.begin());
    }
}

void Machine::publish_copies() {
    for (const u8* place : fiber().unpublished) publish(place);
    fiber().unpublished.clear();
}

// Puts what the kernel before may still use out of reach, or gives it back.
void Machine::protect(int protection) {
    for (size_t i = 0; i < page_ranges; i++) {
        if (mprotect(pages[i].first, pages[i].bytes, protection) != 0) fail("pages can't be protected");
    }
}

void Machine::wake(int thread) {
    fibers[thread].state = State::RUNNABLE;
    warps[thread / LANES].runnable.push_back(thread);
    runnable++;
}

void Machine::wake_warp(int warp) {
    for (int lane = 0; lane < LANES; lane++) {
        int thread = warp * LANES + lane;
        if (thread != current) wake(thread);
    }
}

// Takes the thread that runs next.
void Machine::choose() {
    size_t warp = current / LANES;
    if (!greedy || warps[warp].runnable.empty()) warp = draw(warps.size());
    while (warps[warp].runnable.empty()) warp = (warp + 1) % warps.size();
    std::vector<int>& ready = warps[warp].runnable;
    std::swap(ready[draw(ready.size())], ready.back());
    current = ready.back();
    ready.pop_back();
    runnable--;
}

void Machine::wait(State state) {
    Fiber& waiting = fiber();
    waiting.state = state;
    if (_setjmp(waiting.place) == 0) _longjmp(scheduler, 1);
}

void Machine::barrier() {
    if (++at_block < static_cast<int>(fibers.size())) {
        wait(State::AT_BLOCK);
        return;
    }
    at_block = 0;
    for (int thread = 0; thread < static_cast<int>(fibers.size()); thread++) {
        if (thread != current) wake(thread);
    }
}

// All threads wait together, as if the kernel before had gone on until then.
void Machine::wait_for_previous() {
    if (++at_previous < static_cast<int>(fibers.size())) {
        wait(State::AT_PREVIOUS);
        return;
    }
    protect(PROT_READ | PROT_WRITE);
    for (int thread = 0; thread < static_cast<int>(fibers.size()); thread++) {
        if (thread != current) wake(thread);
    }
}

static thread_local void (*body)(void**) = nullptr;
static thread_local void** body_arguments = nullptr;

static void enter() {
    body(body_arguments);
    machine().fiber().state = State::DONE;
    _longjmp(machine().scheduler, 1);
}

// Runs the chosen thread until it waits or ends. Switching contexts would ask the kernel for the mask of signals each time.
void Machine::go_on() {
    if (_setjmp(scheduler) != 0) return;
    if (fiber().begun) _longjmp(fiber().place, 1);
    fiber().begun = true;
    setcontext(&fiber().context);
}

void Machine::run_block(u32 threads, size_t shared_bytes) {
    std::unique_ptr<u8[]> shared(new u8[shared_bytes + 2048]);
    memset(shared.get(), 0xff, shared_bytes + 2048);
    this->shared = reinterpret_cast<u8*>((reinterpret_cast<uintptr_t>(shared.get()) + 1023) / 1024 * 1024);
    published.assign(shared_bytes, 0xff);
    warps.assign((threads + LANES - 1) / LANES, Warp());
    runnable = 0;
    current = 0;
    at_block = 0;
    at_previous = 0;
    lets_next_start = false;
    protect(PROT_NONE);
    greedy = draw(2);
    for (u32 thread = 0; thread < threads; thread++) {
        Fiber& fiber = fibers[thread];
        fiber.thread = {thread, 0, 0};
        fiber.groups.assign(1, {});
        fiber.unpublished.clear();
        fiber.begun = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
        wake(thread);
    }
    while (runnable > 0 && error.empty()) {
        choose();
        go_on();
    }
    protect(PROT_READ | PROT_WRITE);
    for (const Fiber& fiber : fibers) {
        if (fiber.state != State::DONE) fail("some threads of a block wait for others that never come");
        for (const std::vector<Copy>& group : fiber.groups) {
            if (!group.empty()) fail("a block ends with copies that nobody has waited for");
        }
    }
    if (at_previous == 0) fail("a block doesn't wait for the kernel before");
    if (!lets_next_start) fail("a block doesn't let the next kernel start");
    for (size_t warp = 0; warp < warps.size(); warp++) {
        const Products& products = warps[warp].products;
        if (!products.sums.empty()) fail("a block ends with products that nobody has waited for");
        size_t first = warp / WARPGROUP * WARPGROUP;
        bool whole = first + WARPGROUP <= warps.size();
        if (!products.all.empty() && !(whole && products.all == warps[first].products.all)) {
            fail("warps of a warpgroup don't ask for the same products");
        }
    }
}

const char* launch(void (*kernel)(void**), u32 grid_x, u32 grid_y, u32 threads, size_t shared_bytes, void** arguments,
                   uint64_t seed, const Pages* pages, size_t page_ranges) {
    static thread_local Machine own;
    running = &own;
    own.pages = pages;
    own.page_ranges = page_ranges;
    body = kernel;
    body_arguments = arguments;
    own.random = seed * 2 + 1;
    own.error.clear();
    own.fibers = std::vector<Fiber>(threads);
    std::vector<u32> order(static_cast<size_t>(grid_x) * grid_y);
    for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<u32>(i);
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[own.draw(i)]);
    for (u32 block : order) {
        own.block = {block % grid_x, block / grid_x, 0};
        own.run_block(threads, shared_bytes);
        if (!own.error.empty()) return own.error.c_str();
    }
    return nullptr;
}

static float widened(u16 x) {
    int exponent = x >> 10 & 31;
    float fraction = static_cast<float>(x & 1023);
    float size = exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                 : exponent == 0 ? ldexpf(fraction, -24)
                                 : ldexpf(fraction + 1024.0f, exponent - 25);
    return x & 0x8000 ? -size : size;
}

float halves[65536];

static const bool filled = [] {
    for (u32 bits = 0; bits < 65536; bits++) halves[bits] = widened(static_cast<u16>(bits));
    return true;
}();

}  // namespace emulator
