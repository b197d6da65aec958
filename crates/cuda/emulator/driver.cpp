// A driver of emulated GPUs: the functions of libcuda that the crate calls, for threads that have one GPU each. What is given to a stream
// happens when somebody waits for it and not before. A module's image is the path of a kernel's emulated library. MAJOR and MINOR are
// the GPU's compute capability.

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

typedef const char* (*Emulate)(uint32_t, uint32_t, uint32_t, size_t, void**, uint64_t, const void*, size_t);

// As cuda.h has them.
const int PROGRAMMATIC_STREAM_SERIALIZATION = 6;

struct LaunchAttribute {
    int id;
    char padding[4];
    union {
        char bytes[64];
        uint64_t words[8];
        int allowed;
    } value;
};

struct LaunchConfig {
    unsigned grid_x, grid_y, grid_z;
    unsigned block_x, block_y, block_z;
    unsigned shared;
    void* stream;
    const LaunchAttribute* attributes;
    unsigned attribute_count;
};

namespace {

enum Code { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NOT_FOUND = 500, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900 };

struct Module {
    void* library;
    Emulate emulate;
    std::string name;
    std::vector<size_t> sizes;
    size_t allowed = 48 << 10;
};

typedef std::function<void()> Task;

struct Graph {
    std::vector<Task> tasks;
};

struct State {
    bool initialised = false;
    int contexts = 0;
    void* current = nullptr;
    bool capturing = false;
    Graph captured;
    std::vector<Task> queue;
    std::set<void*> live;
    bool failed = false;
    int in_turn = 0;
};

thread_local State state;
// Of all threads.
int capability[2] = {7, 5};
int devices = 1;
// What stands for the context of each device.
char contexts[8];
// The first device as the driver's functions name it.
const int FIRST = 40;

bool is_device(int device) { return device >= FIRST && device < FIRST + devices; }

int ready() {
    if (!state.initialised) return NOT_INITIALIZED;
    return state.current ? SUCCESS : INVALID_CONTEXT;
}

template <class T>
T* keep(T* resource) {
    state.live.insert(resource);
    return resource;
}

// Gives a resource back, which has to be there.
template <class T>
int drop(void* resource) {
    if (int code = ready()) return code;
    if (!state.live.erase(resource)) return INVALID_VALUE;
    delete static_cast<T*>(resource);
    return SUCCESS;
}

int give(Task task) {
    if (int code = ready()) return code;
    if (state.capturing) return CAPTURE_UNSUPPORTED;
    state.queue.push_back(task);
    return SUCCESS;
}

int finish() {
    if (int code = ready()) return code;
    if (state.capturing) return CAPTURE_UNSUPPORTED;
    std::vector<Task> queue;
    queue.swap(state.queue);
    for (const Task& task : queue) task();
    return state.failed ? LAUNCH_FAILED : SUCCESS;
}

int allocate(void** place, size_t bytes) {
    if (int code = ready()) return code;
    if (bytes == 0) return INVALID_VALUE;
    *place = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!*place) return OUT_OF_MEMORY;
    memset(*place, 0xff, bytes);
    keep(*place);
    return SUCCESS;
}

int release(void* place) {
    if (int code = ready()) return code;
    if (!state.live.erase(place)) return INVALID_VALUE;
    free(place);
    return SUCCESS;
}

}  // namespace

extern "C" {

// Resources that were not given back, contexts among them.
int emulated_live() { return static_cast<int>(state.live.size()) + state.contexts; }

// Captured kernels that begin when the one before them has ended, by now.
int emulated_in_turn() { return state.in_turn; }
// Whether this thread has a context; 0 where it has.
int emulated_ready() { return ready(); }

// Makes the GPU one of that compute capability.
void emulated_become(int major, int minor) {
    capability[0] = major;
    capability[1] = minor;
}

// Makes it so many GPUs, each of which belongs to another thread; 8 at most.
void emulated_have(int count) { devices = count; }

void emulated_capability(int* numbers) { memcpy(numbers, capability, sizeof(capability)); }

// Gives a library's work to a stream, or to what is captured of it.
int emulated_give(void* stream, const Task& task) {
    if (int code = ready()) return code;
    if (!state.live.count(stream)) return INVALID_VALUE;
    if (!state.capturing) return give(task);
    state.captured.tasks.push_back(task);
    return SUCCESS;
}

int cuInit(unsigned) {
    state.initialised = true;
    return SUCCESS;
}
int cuDriverGetVersion(int* version) {
    *version = 13010;
    return SUCCESS;
}
int cuDeviceGetCount(int* count) {
    *count = devices;
    return state.initialised ? SUCCESS : NOT_INITIALIZED;
}
int cuDeviceGet(int* device, int number) {
    *device = FIRST + number;
    return is_device(*device) ? SUCCESS : INVALID_VALUE;
}
int cuDeviceGetName(char* name, int length, int device) {
    if (!is_device(device)) return INVALID_VALUE;
    strncpy(name, "Emulated GPU", length);
    return SUCCESS;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (!is_device(device)) return INVALID_VALUE;
    *value = attribute == 16 ? 6 : attribute == 75 || attribute == 76 ? capability[attribute - 75] : -1;
    return SUCCESS;
}
int cuMemGetInfo_v2(size_t* free, size_t* total) {
    if (int code = ready()) return code;
    *total = 1 << 30;
    *free = *total - (state.live.size() << 20);
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) {
    *bytes = 1 << 30;
    return is_device(device) ? SUCCESS : INVALID_VALUE;
}
int cuDevicePrimaryCtxRetain(void** made, int device) {
    if (!is_device(device)) return INVALID_VALUE;
    state.contexts++;
    *made = &contexts[device - FIRST];
    return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    if (!is_device(device) || state.contexts == 0) return INVALID_VALUE;
    state.contexts--;
    return SUCCESS;
}
int cuCtxSetCurrent(void* wanted) {
    if (wanted < static_cast<void*>(contexts) || wanted >= static_cast<void*>(contexts + devices)) return INVALID_VALUE;
    state.current = wanted;
    return SUCCESS;
}
int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    void* place = nullptr;
    int code = allocate(&place, bytes);
    *address = reinterpret_cast<uint64_t>(place);
    return code;
}
int cuMemFree_v2(uint64_t address) { return release(reinterpret_cast<void*>(address)); }
int cuMemAllocHost_v2(void** place, size_t bytes) { return allocate(place, bytes); }
int cuMemFreeHost(void* place) { return release(place); }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
    return give([=] { memcpy(reinterpret_cast<void*>(to), from, bytes); });
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
    return give([=] { memcpy(to, reinterpret_cast<const void*>(from), bytes); });
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
    return give([=] { memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes); });
}
int cuStreamCreate(void** stream, unsigned) {
    *stream = keep(new char);
    return ready();
}
int cuStreamDestroy_v2(void* stream) { return drop<char>(stream); }
int cuStreamSynchronize(void* stream) { return state.live.count(stream) ? finish() : INVALID_VALUE; }
int cuStreamBeginCapture_v2(void*, int) {
    if (state.capturing || !state.queue.empty()) return CAPTURE_UNSUPPORTED;
    state.capturing = true;
    state.captured = Graph();
    return SUCCESS;
}
int cuStreamEndCapture(void*, void** graph) {
    if (!state.capturing) return INVALID_VALUE;
    state.capturing = false;
    *graph = keep(new Graph(state.captured));
    return SUCCESS;
}
int cuGraphInstantiateWithFlags(void** made, void* graph, unsigned long long flags) {
    if (flags != 0 || !state.live.count(graph)) return INVALID_VALUE;
    *made = keep(new Graph(*static_cast<Graph*>(graph)));
    return SUCCESS;
}
int cuGraphLaunch(void* graph, void* stream) {
    if (!state.live.count(graph) || !state.live.count(stream)) return INVALID_VALUE;
    for (const Task& task : static_cast<Graph*>(graph)->tasks) {
        if (int code = give(task)) return code;
    }
    return SUCCESS;
}
int cuGraphDestroy(void* graph) { return drop<Graph>(graph); }
int cuGraphExecDestroy(void* graph) { return drop<Graph>(graph); }
int cuModuleLoadData(void** module, const void* image) {
    if (int code = ready()) return code;
    void* library = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
    if (!library) return INVALID_IMAGE;
    auto name = reinterpret_cast<const char* (*)()>(dlsym(library, "kernel_name"));
    auto parameters = reinterpret_cast<size_t (*)(size_t*)>(dlsym(library, "parameters"));
    auto emulate = reinterpret_cast<Emulate>(dlsym(library, "emulate"));
    if (!name || !parameters || !emulate) return INVALID_IMAGE;
    size_t sizes[64];
    size_t count = parameters(sizes);
    *module = keep(new Module{library, emulate, name(), std::vector<size_t>(sizes, sizes + count)});
    return SUCCESS;
}
int cuModuleUnload(void* module) { return drop<Module>(module); }
int cuModuleGetFunction(void** function, void* module, const char* name) {
    if (!state.live.count(module) || static_cast<Module*>(module)->name != name) return NOT_FOUND;
    *function = module;
    return SUCCESS;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    int most = capability[0] == 9 ? 227 << 10 : capability[0] == 8 ? 99 << 10 : 64 << 10;
    if (attribute != 8 || !state.live.count(function) || value < 0 || value > most) return INVALID_VALUE;
    static_cast<Module*>(function)->allowed = value;
    return SUCCESS;
}
int cuLaunchKernelEx(const LaunchConfig* config, void* function, void** arguments, void** extra) {
    if (int code = ready()) return code;
    uint32_t grid_x = config->grid_x, grid_y = config->grid_y, block_x = config->block_x;
    size_t shared = config->shared;
    if (!state.live.count(function) || !state.live.count(config->stream) || extra || config->grid_z != 1 ||
        config->block_y != 1 || config->block_z != 1 || grid_x == 0 || grid_y == 0 || grid_y > 65535 || block_x > 1024) {
        return INVALID_VALUE;
    }
    // From 9.0 on kernels may overlap, all but the first one of a graph.
    bool behind_kernel = state.capturing && !state.captured.tasks.empty();
    if (config->attribute_count > (capability[0] >= 9 && behind_kernel)) return INVALID_VALUE;
    if (config->attribute_count == 0) {
        state.in_turn += behind_kernel;
    } else if (config->attributes->id != PROGRAMMATIC_STREAM_SERIALIZATION || config->attributes->value.allowed != 1) {
        return INVALID_VALUE;
    }
    Module* module = static_cast<Module*>(function);
    if (shared > module->allowed) return INVALID_VALUE;
    std::vector<std::vector<char>> values;
    for (size_t i = 0; i < module->sizes.size(); i++) {
        const char* from = static_cast<const char*>(arguments[i]);
        values.emplace_back(from, from + module->sizes[i]);
    }
    Task task = [=]() mutable {
        std::vector<void*> places;
        for (auto& value : values) places.push_back(value.data());
        if (module->emulate(grid_x, grid_y, block_x, shared, places.data(), 17, nullptr, 0)) state.failed = true;
    };
    if (!state.capturing) return give(task);
    state.captured.tasks.push_back(task);
    return SUCCESS;
}
int cuEventCreate(void** event, unsigned) {
    *event = keep(new char);
    return ready();
}
int cuEventDestroy_v2(void* event) { return drop<char>(event); }
int cuEventRecord(void* event, void* stream) {
    return state.live.count(event) && state.live.count(stream) ? ready() : INVALID_VALUE;
}
int cuEventSynchronize(void* event) { return state.live.count(event) ? finish() : INVALID_VALUE; }
int cuEventElapsedTime(float* milliseconds, void*, void*) {
    *milliseconds = 0.25f;
    return ready();
}
int cuGetErrorName(int code, const char** name) {
    *name = code == INVALID_IMAGE ? "CUDA_ERROR_INVALID_IMAGE" : "CUDA_ERROR_OF_THE_EMULATOR";
    return SUCCESS;
}
}
