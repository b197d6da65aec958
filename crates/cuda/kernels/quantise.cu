// Quantises rows that no norm yields; one warp reads its row, twice where it has a range of its own.
//
// Constants: BITS, E4M3 (codes are floats), WARPS (rows per block).

// The values of eight columns.
DEVICE void load_values(float (&values)[8], const u16* row, const float* factor, int column) {
    Chunk chunk = *reinterpret_cast<const Chunk*>(row + column);
    UNROLL for (int j = 0; j < 8; j++) {
        values[j] = widen(static_cast<u16>(chunk.word[j / 2] >> (j % 2 * 16)));
        if (!E4M3) values[j] *= factor[column + j];
    }
}

// x [tokens, width], width a multiple of 8; codes [tokens, width]; scales [tokens]; of integers also factor [width] and
// zero_points [tokens], and low < high where all rows have this range.
KERNEL(32 * WARPS)(const u16* x, const float* factor, float low, float high, u8* codes, float* scales, int* zero_points,
                   const int* rows, int width) {
    let_next_start();
    wait_for_previous();
    int token = blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (token >= *rows) return;
    const u16* row = x + static_cast<i64>(token) * width;
    if (!(low < high)) {
        for (int column = lane * 8; column < width; column += 256) {
            float values[8];
            load_values(values, row, factor, column);
            UNROLL for (int j = 0; j < 8; j++) {
                low = fminf(low, values[j]);
                high = fmaxf(high, values[j]);
            }
        }
        low = warp_min(low);
        high = warp_max(high);
    }
    Quantiser quantised = quantiser<BITS>(low, high);
    for (int column = lane * 8; column < width; column += 256) {
        float values[8];
        load_values(values, row, factor, column);
        u32 words[2] = {0, 0};
        UNROLL for (int j = 0; j < 8; j++) words[j / 4] |= quantised.code(values[j]) << (j % 4 * 8);
        u32* to = reinterpret_cast<u32*>(codes + static_cast<i64>(token) * width + column);
        to[0] = words[0];
        to[1] = words[1];
    }
    if (lane == 0) {
        scales[token] = quantised.scale;
        if (!E4M3) zero_points[token] = static_cast<int>(quantised.zero_point);
    }
}
