// Embedding, residual sum, layer norm and quantisation of rows; one warp has one row in its registers.
//
// Constants: ROOM (the most elements of a row, a multiple of 256), BITS (of a code; 0: none), E4M3 (codes are floats), WARPS (rows per
// block).

#define CHUNKS_PER_LANE (ROOM / 256)

// The sum of all elements of a row, in one order for every kernel here.
DEVICE float row_sum(const float (&row)[CHUNKS_PER_LANE][8]) {
    float sum = 0.0f;
    UNROLL for (int i = 0; i < CHUNKS_PER_LANE; i++) {
        UNROLL for (int j = 0; j < 8; j++) sum += row[i][j];
    }
    return warp_sum(sum);
}

DEVICE void add_chunk(float (&row)[8], const u16* from) {
    Chunk chunk = *reinterpret_cast<const Chunk*>(from);
    UNROLL for (int j = 0; j < 4; j++) {
        row[2 * j] += widen(static_cast<u16>(chunk.word[j]));
        row[2 * j + 1] += widen(static_cast<u16>(chunk.word[j] >> 16));
    }
}

// A row is the sum of those that are not null of: x [tokens, hidden]; the rows ids0..2 [tokens] of table0..2 [rows,
// hidden]; residual [tokens, hidden]; times scale. It is normalised where gamma [hidden] is not null: by mean and deviation where beta [hidden]
// isn't either (Ba et al. 2016), else by its root mean square (Zhang & Sennrich 2019). y [tokens, hidden]; codes [tokens, hidden]; scales
// [tokens]; of integers also factor [hidden] and zero_points [tokens], and range_low < range_high where all rows have this range. The number
// of columns, hidden, is a multiple of 8 and at most ROOM.
KERNEL(32 * WARPS)(const u16* x, const u16* table0, const u16* table1, const u16* table2, const int* ids0, const int* ids1,
                   const int* ids2, const u16* residual, const float* gamma, const float* beta, float epsilon, float scale, u16* y,
                   const float* factor, float range_low, float range_high, u8* codes, float* scales, int* zero_points,
                   const int* rows, int hidden) {
    let_next_start();
    wait_for_previous();
    int token = blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (token >= *rows) return;
    float row[CHUNKS_PER_LANE][8];
    UNROLL for (int i = 0; i < CHUNKS_PER_LANE; i++) {
        UNROLL for (int j = 0; j < 8; j++) row[i][j] = 0.0f;
        int column = (i * 32 + lane) * 8;
        if (column >= hidden) continue;
        if (x) add_chunk(row[i], x + static_cast<i64>(token) * hidden + column);
        if (table0) add_chunk(row[i], table0 + static_cast<i64>(ids0[token]) * hidden + column);
        if (table1) add_chunk(row[i], table1 + static_cast<i64>(ids1[token]) * hidden + column);
        if (table2) add_chunk(row[i], table2 + static_cast<i64>(ids2[token]) * hidden + column);
        if (residual) add_chunk(row[i], residual + static_cast<i64>(token) * hidden + column);
        UNROLL for (int j = 0; j < 8; j++) row[i][j] *= scale;
    }
    float inverse_deviation = 1.0f;
    if (gamma) {
        float mean = beta ? row_sum(row) / static_cast<float>(hidden) : 0.0f;
        float squares[CHUNKS_PER_LANE][8];
        UNROLL for (int i = 0; i < CHUNKS_PER_LANE; i++) {
            bool inside = (i * 32 + lane) * 8 < hidden;
            UNROLL for (int j = 0; j < 8; j++) {
                row[i][j] = inside ? row[i][j] - mean : 0.0f;
                squares[i][j] = row[i][j] * row[i][j];
            }
        }
        inverse_deviation = 1.0f / sqrtf(row_sum(squares) / static_cast<float>(hidden) + epsilon);
    }
    float low = 0.0f;
    float high = 0.0f;
    UNROLL for (int i = 0; i < CHUNKS_PER_LANE; i++) {
        int column = (i * 32 + lane) * 8;
        if (column >= hidden) continue;
        if (gamma) {
            UNROLL for (int j = 0; j < 8; j++) {
                row[i][j] = fmaf(row[i][j] * inverse_deviation, gamma[column + j], beta ? beta[column + j] : 0.0f);
            }
        }
        Chunk chunk;
        UNROLL for (int j = 0; j < 4; j++) chunk.word[j] = narrow_pair(row[i][2 * j], row[i][2 * j + 1]);
        *reinterpret_cast<Chunk*>(y + static_cast<i64>(token) * hidden + column) = chunk;
        if constexpr (BITS > 0) {
            UNROLL for (int j = 0; j < 8; j++) {
                if (!E4M3) row[i][j] *= factor[column + j];
                low = fminf(low, row[i][j]);
                high = fmaxf(high, row[i][j]);
            }
        }
    }
    if constexpr (BITS > 0) {
        bool given = range_low < range_high;
        Quantiser quantised = quantiser<BITS>(given ? range_low : warp_min(low), given ? range_high : warp_max(high));
        UNROLL for (int i = 0; i < CHUNKS_PER_LANE; i++) {
            int column = (i * 32 + lane) * 8;
            if (column >= hidden) continue;
            u32 words[2] = {0, 0};
            UNROLL for (int j = 0; j < 8; j++) words[j / 4] |= quantised.code(row[i][j]) << (j % 4 * 8);
            u32* to = reinterpret_cast<u32*>(codes + static_cast<i64>(token) * hidden + column);
            to[0] = words[0];
            to[1] = words[1];
        }
        if (lane == 0) {
            scales[token] = quantised.scale;
            if (!E4M3) zero_points[token] = static_cast<int>(quantised.zero_point);
        }
    }
}
