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

// How one row is quantised: to unsigned codes, the meaning of `Op::QuantizedLinear`, which has the range include 0; or, where E4M3
// says so, to floats of which the largest of the row is 448.
struct Quantiser {
    float scale;
    float zero_point;
    float inverse;
    float limit;

    // The code of a value.
    __device__ u32 code(float x) const {
#if E4M3
        return narrow_e4m3(x * inverse);
#else
        return static_cast<u32>(fminf(fmaxf(round_even(x * inverse) + zero_point, 0.0f), limit));
#endif
    }
};

// The quantiser of a row whose values lie within `low` and `high`.
template <int CODE_BITS>
DEVICE Quantiser quantiser(float low, float high) {
    Quantiser found;
#if E4M3
    found.limit = 448.0f;
    float scale = fmaxf(-low, high) / found.limit;
    // Below, the inverse is infinite.
    bool usable = scale >= 1.17549435e-38f && scale <= 3.402823466e38f;
#else
    found.limit = static_cast<float>((1 << CODE_BITS) - 1);
    low = fminf(low, 0.0f);
    high = fmaxf(high, 0.0f);
    float scale = (high - low) / found.limit;
    bool usable = scale > 0.0f && scale <= 3.402823466e38f;
#endif
    found.scale = usable ? scale : 0.0f;
    found.inverse = usable ? 1.0f / scale : 0.0f;
#if E4M3
    found.zero_point = 0.0f;
#else
    found.zero_point = round_even(-low * found.inverse);
#endif
    return found;
}
