// Arithmetic that several kernels share. Products are fused where `fmaf` says so and nowhere else (--fmad=false).
//
// A captured graph is replayed for batches of different sizes: each kernel reads at `rows` how many rows there are, and what its
// grid has beyond them does nothing.

// The same value in every lane: the sum over a warp, in the order of a butterfly.
DEVICE float warp_sum(float x) {
    UNROLL for (int mask = 16; mask > 0; mask >>= 1) x += exchange(x, mask);
    return x;
}

DEVICE float warp_max(float x) {
    UNROLL for (int mask = 16; mask > 0; mask >>= 1) x = fmaxf(x, exchange(x, mask));
    return x;
}

DEVICE float warp_min(float x) {
    UNROLL for (int mask = 16; mask > 0; mask >>= 1) x = fminf(x, exchange(x, mask));
    return x;
}

// Adds eight 16-bit floats.
DEVICE void add_chunk(float (&row)[8], const u16* from) {
    Chunk chunk = *reinterpret_cast<const Chunk*>(from);
    UNROLL for (int j = 0; j < 4; j++) {
        row[2 * j] += widen(static_cast<u16>(chunk.word[j]));
        row[2 * j + 1] += widen(static_cast<u16>(chunk.word[j] >> 16));
    }
}

// Activation functions by number, as `Activation` in src/specialisation.rs counts them.
#define IDENTITY 0
#define GELU 1
#define GELU_TANH 2
#define RELU 3
#define TANH 4
#define SIGMOID 5
#define SILU 6
#define QUICK_GELU 7

template <int FUNCTION>
DEVICE float activate(float x) {
    if constexpr (FUNCTION == GELU) {
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    } else if constexpr (FUNCTION == GELU_TANH) {
        return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * fmaf(0.044715f * x * x, x, x)));
    } else if constexpr (FUNCTION == RELU) {
        return fmaxf(x, 0.0f);
    } else if constexpr (FUNCTION == TANH) {
        return tanhf(x);
    } else if constexpr (FUNCTION == SIGMOID) {
        return 1.0f / (1.0f + expf(-x));
    } else if constexpr (FUNCTION == SILU) {
        return x / (1.0f + expf(-x));
    } else if constexpr (FUNCTION == QUICK_GELU) {
        return x / (1.0f + expf(-1.702f * x));
    } else {
        return x;
    }
}

// The activation function of a number that is known at run time only.
DEVICE float activate_by(int function, float x) {
    switch (function) {
        case GELU: return activate<GELU>(x);
        case GELU_TANH: return activate<GELU_TANH>(x);
        case RELU: return activate<RELU>(x);
        case TANH: return activate<TANH>(x);
        case SIGMOID: return activate<SIGMOID>(x);
        case SILU: return activate<SILU>(x);
        case QUICK_GELU: return activate<QUICK_GELU>(x);
        default: return x;
    }
}

// How one row is quantised to unsigned codes: the meaning of `Op::QuantizedLinear`, which has the range include 0.
struct Quantiser {
    float scale;
    float zero_point;
    float inverse;
    float limit;

    // The code of a value.
    __device__ u32 code(float x) const {
        return static_cast<u32>(fminf(fmaxf(round_even(x * inverse) + zero_point, 0.0f), limit));
    }
};

// The quantiser of a row whose values lie within `low` and `high`.
template <int CODE_BITS>
DEVICE Quantiser quantiser(float low, float high) {
    Quantiser found;
    found.limit = static_cast<float>((1 << CODE_BITS) - 1);
    low = fminf(low, 0.0f);
    high = fmaxf(high, 0.0f);
    float scale = (high - low) / found.limit;
    bool usable = scale > 0.0f && scale <= 3.402823466e38f;
    found.scale = usable ? scale : 0.0f;
    found.inverse = usable ? 1.0f / scale : 0.0f;
    found.zero_point = round_even(-low * found.inverse);
    return found;
}
