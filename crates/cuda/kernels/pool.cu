// One f32 row per sequence; one block has one sequence.
//
// Constants: POOLING, WARPS.

#define CLS 0
#define LAST_TOKEN 1
#define MEAN 2
#define MEAN_SQRT_LENGTH 3
#define MAX 4
#define WEIGHTED_MEAN 5
#define TOKEN 6
#define THREADS (32 * WARPS)

// One column of a sequence whose rows are `width` apart; rows from `from` on count, in their order.
DEVICE float pooled(const u16* column, int from, int length, i64 width) {
    if constexpr (POOLING == CLS) return widen(column[0]);
    if constexpr (POOLING == LAST_TOKEN) return widen(column[(length - 1) * width]);
    if constexpr (POOLING == TOKEN) return widen(column[from * width]);
    float result = POOLING == MAX ? __int_as_float(0xff800000) : 0.0f;
    float weights = 0.0f;
    for (int row = from; row < length; row++) {
        float value = widen(column[row * width]);
        if constexpr (POOLING == MAX) {
            result = fmaxf(result, value);
        } else if constexpr (POOLING == WEIGHTED_MEAN) {
            result = fmaf(value, static_cast<float>(row + 1), result);
            weights += static_cast<float>(row + 1);
        } else {
            result += value;
        }
    }
    float count = static_cast<float>(length > from ? length - from : 1);
    if constexpr (POOLING == MAX) return length > from ? result : 0.0f;
    if constexpr (POOLING == WEIGHTED_MEAN) return result / fmaxf(weights, 1.0f);
    if constexpr (POOLING == MEAN_SQRT_LENGTH) return result / sqrtf(count);
    return result / count;
}

// x [tokens, width]; offsets [sequences + 1]; pool_from [sequences]: tokens of each sequence that don't count, or with TOKEN the one
// that does; y [sequences, width]. normalise: each row is divided by its length, or by epsilon where that is more.
KERNEL(THREADS)(const u16* x, const int* offsets, const int* pool_from, float* y, const int* rows, int width,
                int normalise, float epsilon) {
    SHARED(shared);
    let_next_start();
    wait_for_previous();
    int sequence = blockIdx.x;
    if (sequence >= *rows) return;
    i64 begin = offsets[sequence];
    int length = offsets[sequence + 1] - offsets[sequence];
    int from = pool_from[sequence] < length ? pool_from[sequence] : length;
    x += begin * width;
    y += static_cast<i64>(sequence) * width;
    float squares = 0.0f;
    for (int column = threadIdx.x; column < width; column += THREADS) {
        float value = pooled(x + column, from, length, width);
        squares = fmaf(value, value, squares);
        y[column] = value;
    }
    if (normalise) {
        float* sums = reinterpret_cast<float*>(shared);
        squares = warp_sum(squares);
        if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = squares;
        block_barrier();
        float sum = 0.0f;
        UNROLL for (int warp = 0; warp < WARPS; warp++) sum += sums[warp];
        float norm = fmaxf(sqrtf(sum), epsilon);
        for (int column = threadIdx.x; column < width; column += THREADS) y[column] /= norm;
    }
}
