// What norm.cu computes, to the same bits, for rows of any width: one warp has one row, and sums it up anew each time that it needs
// it.
//
// Constants: BITS (of a code; 0: none), WARPS (rows per block).

// What a row is the sum of, and what is done to it.
struct Row {
    const u16* parts[5];
    const float* gamma;
    const float* beta;
    float mean;
    float inverse_deviation;

    // Eight columns of the sum, less the mean.
    __device__ void sum_up(float (&part)[8], int column) const {
        UNROLL for (int j = 0; j < 8; j++) part[j] = 0.0f;
        UNROLL for (int of = 0; of < 5; of++) {
            if (parts[of]) add_chunk(part, parts[of] + column);
        }
        UNROLL for (int j = 0; j < 8; j++) part[j] -= mean;
    }

    // Eight columns after the norm.
    __device__ void normalise(float (&part)[8], int column) const {
        sum_up(part, column);
        if (!gamma) return;
        UNROLL for (int j = 0; j < 8; j++) {
            part[j] = fmaf(part[j] * inverse_deviation, gamma[column + j], beta ? beta[column + j] : 0.0f);
        }
    }
};

// The parameters of norm.cu; HIDDEN is `width`, a multiple of 8.
KERNEL(32 * WARPS)(const u16* x, const u16* table0, const u16* table1, const u16* table2, const int* ids0, const int* ids1,
                   const int* ids2, const u16* residual, const float* gamma, const float* beta, float epsilon, u16* y,
                   const float* factor, u8* codes, float* scales, int* zero_points, const int* rows, int width) {
    int token = blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (token >= *rows) return;
    i64 first = static_cast<i64>(token) * width;
    Row row = {{x ? x + first : x, table0 ? table0 + static_cast<i64>(ids0[token]) * width : table0,
                table1 ? table1 + static_cast<i64>(ids1[token]) * width : table1,
                table2 ? table2 + static_cast<i64>(ids2[token]) * width : table2, residual ? residual + first : residual},
               gamma, beta, 0.0f, 1.0f};
    float part[8];
    if (gamma && beta) {
        float sum = 0.0f;
        for (int column = lane * 8; column < width; column += 256) {
            row.sum_up(part, column);
            UNROLL for (int j = 0; j < 8; j++) sum += part[j];
        }
        row.mean = warp_sum(sum) / width;
    }
    if (gamma) {
        float squares = 0.0f;
        for (int column = lane * 8; column < width; column += 256) {
            row.sum_up(part, column);
            UNROLL for (int j = 0; j < 8; j++) squares += part[j] * part[j];
        }
        row.inverse_deviation = 1.0f / sqrtf(warp_sum(squares) / width + epsilon);
    }
    float low = 0.0f;
    float high = 0.0f;
    for (int column = lane * 8; column < width; column += 256) {
        row.normalise(part, column);
        Chunk chunk;
        UNROLL for (int j = 0; j < 4; j++) chunk.word[j] = narrow_pair(part[2 * j], part[2 * j + 1]);
        *reinterpret_cast<Chunk*>(y + first + column) = chunk;
        if constexpr (BITS > 0) {
            UNROLL for (int j = 0; j < 8; j++) {
                low = fminf(low, part[j] * factor[column + j]);
                high = fmaxf(high, part[j] * factor[column + j]);
            }
        }
    }
    if constexpr (BITS > 0) {
        Quantiser quantised = quantiser<BITS>(warp_min(low), warp_max(high));
        for (int column = lane * 8; column < width; column += 256) {
            row.normalise(part, column);
            u32 words[2] = {0, 0};
            UNROLL for (int j = 0; j < 8; j++) words[j / 4] |= quantised.code(part[j] * factor[column + j]) << (j % 4 * 8);
            u32* to = reinterpret_cast<u32*>(codes + first + column);
            to[0] = words[0];
            to[1] = words[1];
        }
        if (lane == 0) {
            scales[token] = quantised.scale;
            zero_points[token] = static_cast<int>(quantised.zero_point);
        }
    }
}
