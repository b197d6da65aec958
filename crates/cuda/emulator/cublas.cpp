// A cuBLASLt of an emulated GPU: the functions that the crate calls, for one thread. Products are given to the stream of the
// driver in driver.cpp, whose path is DRIVER, and computed when that comes to them.

#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <set>

namespace {

enum Code { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, INTERNAL_ERROR = 14, NOT_SUPPORTED = 15 };

const int F32 = 0, F16 = 2, BF16 = 14, E4M3 = 28;
const uint64_t MAGIC = 0x6c745f616c676f21;
const size_t NEEDED = 1 << 16;

struct Operation {
    int compute, scale;
    int transpose_a = 0, transpose_b = 0;
    uint32_t epilogue = 1;
    uint64_t bias = 0, a_scales = 0, b_scales = 0;
    int a_mode = 0, b_mode = 0;
};

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t leading;
};

struct Preference {
    uint64_t workspace = 0;
    uint32_t reductions = 7;
};

struct Algorithm {
    uint64_t magic, n, k, splits, least_rows, format, scaled, biased;
};

struct Candidate {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

static_assert(sizeof(Algorithm) == 64 && sizeof(Candidate) == 96);

thread_local std::set<void*> live;

template <class T>
T* keep(T* resource) {
    live.insert(resource);
    return resource;
}

template <class T>
int drop(void* resource) {
    if (!live.erase(resource)) return INVALID_VALUE;
    delete static_cast<T*>(resource);
    return SUCCESS;
}

template <class Function>
Function of_driver(const char* name) {
    static void* driver = dlopen(DRIVER, RTLD_NOW | RTLD_NOLOAD);
    return reinterpret_cast<Function>(driver ? dlsym(driver, name) : nullptr);
}

template <class T>
int put(T& to, const void* value, size_t bytes) {
    if (!value || bytes != sizeof(T)) return INVALID_VALUE;
    memcpy(&to, value, bytes);
    return SUCCESS;
}

float decoded(uint8_t code) {
    int exponent = code >> 3 & 15;
    int mantissa = code & 7;
    float size = exponent == 15 && mantissa == 7 ? NAN
                 : exponent == 0                 ? ldexpf(mantissa, -9)
                                                 : ldexpf(8 + mantissa, exponent - 10);
    return code & 128 ? -size : size;
}

float widen(uint16_t bits, bool bf16) {
    if (bf16) {
        uint32_t wide = static_cast<uint32_t>(bits) << 16;
        float x;
        memcpy(&x, &wide, 4);
        return x;
    }
    int exponent = bits >> 10 & 31;
    float fraction = static_cast<float>(bits & 1023);
    float size = exponent == 31  ? (fraction != 0 ? NAN : INFINITY)
                 : exponent == 0 ? ldexpf(fraction, -24)
                                 : ldexpf(fraction + 1024, exponent - 25);
    return bits & 0x8000 ? -size : size;
}

uint16_t narrow(float x, bool bf16) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (isnan(x)) return 0x7fff;
    if (bf16) return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    float size = fabsf(x);
    if (size >= 65520) return sign | 0x7c00;
    int exponent = 0;
    frexpf(size, &exponent);
    int step = exponent - 11 < -24 || size == 0 ? -24 : exponent - 11;
    // Steps double with each power of two: so many counts lie below this one.
    return sign | static_cast<uint16_t>((step + 24) * 1024 + lrintf(ldexpf(size, -step)));
}

bool aligned(uint64_t address) { return address != 0 && address % 16 == 0; }

// Whether an operation has a meaning for these matrices here.
int check(const Operation* operation, const Layout* a, const Layout* b, const Layout* c, const Layout* d) {
    for (const void* part : {static_cast<const void*>(operation), static_cast<const void*>(a), static_cast<const void*>(b),
                             static_cast<const void*>(c), static_cast<const void*>(d)}) {
        if (!live.count(const_cast<void*>(part))) return INVALID_VALUE;
    }
    int capability[2] = {0, 0};
    auto of_device = of_driver<void (*)(int*)>("emulated_capability");
    if (!of_device) return NOT_INITIALIZED;
    of_device(capability);
    if (capability[0] * 10 + capability[1] < 89) return NOT_SUPPORTED;
    if (operation->compute != 68 || operation->scale != F32 || operation->transpose_a != 1 || operation->transpose_b != 0) {
        return NOT_SUPPORTED;
    }
    uint64_t k = a->rows, n = a->columns, rows = b->columns;
    if (a->type != E4M3 || b->type != E4M3 || b->rows != k || d->rows != n || d->columns != rows) return INVALID_VALUE;
    if ((d->type != F16 && d->type != BF16) || c->type != d->type || c->rows != n || c->columns != rows) {
        return INVALID_VALUE;
    }
    for (const Layout* layout : {a, b, c, d}) {
        if (layout->leading != static_cast<int64_t>(layout->rows) || layout->rows % 16 != 0) return NOT_SUPPORTED;
    }
    bool scaled = operation->a_mode == 3 && operation->b_mode == 3;
    if (!scaled && (operation->a_mode != 0 || operation->b_mode != 0 || operation->a_scales || operation->b_scales)) {
        return NOT_SUPPORTED;
    }
    if (scaled && (capability[0] != 9 || !operation->a_scales || !operation->b_scales)) return NOT_SUPPORTED;
    if (operation->epilogue != 1 && (operation->epilogue != 4 || !aligned(operation->bias))) return NOT_SUPPORTED;
    return SUCCESS;
}

Algorithm algorithm_of(const Operation* operation, const Layout* a, const Layout* d) {
    return {MAGIC, a->columns, a->rows, 1, 0, static_cast<uint64_t>(d->type), operation->a_mode == 3, operation->epilogue == 4};
}

// Whether an algorithm, which has to be one that was proposed, does an operation.
int check_algorithm(void* handle, void* operation, void* a, void* b, void* c, void* d, const Algorithm* algorithm) {
    auto* of = static_cast<Operation*>(operation);
    auto *x = static_cast<Layout*>(a), *y = static_cast<Layout*>(d);
    if (!live.count(handle)) return INVALID_VALUE;
    if (int code = check(of, x, static_cast<Layout*>(b), static_cast<Layout*>(c), y)) return code;
    Algorithm expected = algorithm_of(of, x, y);
    expected.splits = algorithm->splits;
    expected.least_rows = algorithm->least_rows;
    bool fits = memcmp(&expected, algorithm, sizeof(expected)) == 0 && y->columns >= algorithm->least_rows;
    return fits ? SUCCESS : NOT_SUPPORTED;
}

}  // namespace

extern "C" {

// Resources that were not given back.
int emulated_live() { return static_cast<int>(live.size()); }

int cublasLtCreate(void** handle) {
    auto ready = of_driver<int (*)()>("emulated_ready");
    if (!ready || ready() != 0) return NOT_INITIALIZED;
    *handle = keep(new char);
    return SUCCESS;
}
int cublasLtDestroy(void* handle) { return drop<char>(handle); }
const char* cublasLtGetStatusName(int status) {
    return status == NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_OF_THE_EMULATOR";
}
int cublasLtMatmulDescCreate(void** made, int compute, int scale) {
    *made = keep(new Operation{compute, scale});
    return SUCCESS;
}
int cublasLtMatmulDescDestroy(void* operation) { return drop<Operation>(operation); }
int cublasLtMatmulDescSetAttribute(void* operation, int attribute, const void* value, size_t bytes) {
    if (!live.count(operation)) return INVALID_VALUE;
    Operation* to = static_cast<Operation*>(operation);
    switch (attribute) {
        case 3: return put(to->transpose_a, value, bytes);
        case 4: return put(to->transpose_b, value, bytes);
        case 7: return put(to->epilogue, value, bytes);
        case 8: return put(to->bias, value, bytes);
        case 17: return put(to->a_scales, value, bytes);
        case 18: return put(to->b_scales, value, bytes);
        case 31: return put(to->a_mode, value, bytes);
        case 32: return put(to->b_mode, value, bytes);
        default: return INVALID_VALUE;
    }
}
int cublasLtMatrixLayoutCreate(void** made, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    *made = keep(new Layout{type, rows, columns, leading});
    return SUCCESS;
}
int cublasLtMatrixLayoutDestroy(void* layout) { return drop<Layout>(layout); }
int cublasLtMatmulPreferenceCreate(void** made) {
    *made = keep(new Preference());
    return SUCCESS;
}
int cublasLtMatmulPreferenceDestroy(void* preference) { return drop<Preference>(preference); }
int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t bytes) {
    if (!live.count(preference)) return INVALID_VALUE;
    Preference* to = static_cast<Preference*>(preference);
    return attribute == 1 ? put(to->workspace, value, bytes) : attribute == 3 ? put(to->reductions, value, bytes) : INVALID_VALUE;
}
// Proposes, before one that will do: one that divides the depth, one that failed, one for many rows only.
int cublasLtMatmulAlgoGetHeuristic(void* handle, void* operation, void* a, void* b, void* c, void* d, void* preference,
                                   int wanted, Candidate* found, int* count) {
    auto* of = static_cast<Operation*>(operation);
    auto *x = static_cast<Layout*>(a), *y = static_cast<Layout*>(d);
    if (!live.count(handle) || !live.count(preference) || wanted < 4) return INVALID_VALUE;
    if (int code = check(of, x, static_cast<Layout*>(b), static_cast<Layout*>(c), y)) return code;
    auto* limits = static_cast<Preference*>(preference);
    if (limits->reductions != 0 || limits->workspace < NEEDED) return NOT_SUPPORTED;
    for (int place = 0; place < 4; place++) {
        found[place] = {algorithm_of(of, x, y), NEEDED, SUCCESS, 1.0f, {0, 0, 0, 0}};
    }
    found[0].algorithm.splits = 2;
    found[1].state = NOT_SUPPORTED;
    found[1].algorithm.magic = 0;
    found[2].algorithm.least_rows = 8;
    *count = 4;
    return SUCCESS;
}
int cublasLtMatmulAlgoCheck(void* handle, void* operation, void* a, void* b, void* c, void* d, const Algorithm* algorithm,
                            Candidate* found) {
    if (int code = check_algorithm(handle, operation, a, b, c, d, algorithm)) return code;
    *found = {*algorithm, NEEDED, SUCCESS, 1.0f, {0, 0, 0, 0}};
    return SUCCESS;
}
int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm, int attribute, void* value, size_t bytes,
                                         size_t* written) {
    if (algorithm->magic != MAGIC || attribute != 2 || bytes != 4) return INVALID_VALUE;
    int32_t splits = static_cast<int32_t>(algorithm->splits);
    memcpy(value, &splits, 4);
    *written = 4;
    return SUCCESS;
}
int cublasLtMatmul(void* handle, void* operation, const float* alpha, const void* a, void* a_layout, const void* b,
                   void* b_layout, const float* beta, const void* c, void* c_layout, void* d, void* d_layout,
                   const Algorithm* algorithm, void* workspace, size_t workspace_bytes, void* stream) {
    if (int code = check_algorithm(handle, operation, a_layout, b_layout, c_layout, d_layout, algorithm)) {
        return code;
    }
    for (const void* place : {a, b, c, static_cast<const void*>(d), static_cast<const void*>(workspace)}) {
        if (!aligned(reinterpret_cast<uint64_t>(place))) return INVALID_VALUE;
    }
    if (algorithm->splits != 1 || workspace_bytes < NEEDED || *beta != 0 || c != d) return NOT_SUPPORTED;
    Operation of = *static_cast<Operation*>(operation);
    Layout layout = *static_cast<Layout*>(d_layout);
    uint64_t n = layout.rows, rows = layout.columns, k = algorithm->k;
    bool bf16 = layout.type == BF16;
    float factor = *alpha;
    auto multiply = [=] {
        memset(workspace, 0xff, NEEDED);
        const uint8_t* weight = static_cast<const uint8_t*>(a);
        const uint8_t* x = static_cast<const uint8_t*>(b);
        const float* weight_scales = reinterpret_cast<const float*>(of.a_scales);
        const float* x_scales = reinterpret_cast<const float*>(of.b_scales);
        const uint16_t* bias = reinterpret_cast<const uint16_t*>(of.epilogue == 4 ? of.bias : 0);
        float values[256];
        for (int code = 0; code < 256; code++) values[code] = decoded(static_cast<uint8_t>(code));
        for (uint64_t row = 0; row < rows; row++) {
            for (uint64_t column = 0; column < n; column++) {
                float sum = 0;
                for (uint64_t i = 0; i < k; i++) sum += values[x[row * k + i]] * values[weight[column * k + i]];
                sum *= factor;
                if (weight_scales) sum *= x_scales[row] * weight_scales[column];
                if (bias) sum += widen(bias[column], bf16);
                static_cast<uint16_t*>(d)[row * n + column] = narrow(sum, bf16);
            }
        }
    };
    auto give = of_driver<int (*)(void*, const std::function<void()>&)>("emulated_give");
    return give && give(stream, multiply) == 0 ? SUCCESS : INTERNAL_ERROR;
}
}
