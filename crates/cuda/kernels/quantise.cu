// Quantises rows that no norm yields; one warp reads its row twice.
//
// Constants: BITS, WARPS (rows per block).

// x [tokens, width], width a multiple of 8; factor [width]; codes [tokens, width]; scales, zero_points [tokens].
KERNEL(32 * WARPS)(const u16* x, const float* factor, u8* codes, float* scales, int* zero_points, const int* rows,
                   int width) {
    let_next_start();
    wait_for_previous();
    int token = blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (token >= *rows) return;
    const u16* row = x + static_cast<i64>(token) * width;
    float low = 0.0f;
    float high = 0.0f;
    for (int column = lane * 8; column < width; column += 256) {
        Chunk chunk = *reinterpret_cast<const Chunk*>(row + column);
        UNROLL for (int j = 0; j < 8; j++) {
            float value = widen(static_cast<u16>(chunk.word[j / 2] >> (j % 2 * 16))) * factor[column + j];
            low = fminf(low, value);
            high = fmaxf(high, value);
        }
    }
    Quantiser quantised = quantiser<BITS>(warp_min(low), warp_max(high));
    for (int column = lane * 8; column < width; column += 256) {
        Chunk chunk = *reinterpret_cast<const Chunk*>(row + column);
        u32 words[2] = {0, 0};
        UNROLL for (int j = 0; j < 8; j++) {
            float value = widen(static_cast<u16>(chunk.word[j / 2] >> (j % 2 * 16))) * factor[column + j];
            words[j / 4] |= quantised.code(value) << (j % 4 * 8);
        }
        u32* to = reinterpret_cast<u32*>(codes + static_cast<i64>(token) * width + column);
        to[0] = words[0];
        to[1] = words[1];
    }
    if (lane == 0) {
        scales[token] = quantised.scale;
        zero_points[token] = static_cast<int>(quantised.zero_point);
    }
}
