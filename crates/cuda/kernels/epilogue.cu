// What follows a matrix product that a library computes; one warp has one row.
//
// Constants: ACTIVATION, E4M3 (results are codes, or else 16-bit floats in the place of the sums), WARPS (rows per block).

// Eight columns of a row of activation(sums · x_scale · weight_scales + bias) + residual.
DEVICE void finish(float (&values)[8], const u16* sums, float x_scale, const float* weight_scales, const float* bias,
                   const u16* residual, int column) {
    Chunk chunk = *reinterpret_cast<const Chunk*>(sums + column);
    Chunk added = chunk;
    if (residual) added = *reinterpret_cast<const Chunk*>(residual + column);
    UNROLL for (int j = 0; j < 8; j++) {
        int shift = j % 2 * 16;
        float value = widen(static_cast<u16>(chunk.word[j / 2] >> shift)) * (x_scale * weight_scales[column + j]);
        if (bias) value += bias[column + j];
        value = activate<ACTIVATION>(value);
        if (residual) value += widen(static_cast<u16>(added.word[j / 2] >> shift));
        values[j] = value;
    }
}

// sums [tokens, n], which are the results where those are no codes; x_scales [tokens]; weight_scales [n]; bias [n] or null;
// residual [tokens, n] or null; codes [tokens, n] and their scales [tokens]. n is a multiple of 8.
KERNEL(32 * WARPS)(u16* sums, const float* x_scales, const float* weight_scales, const float* bias, const u16* residual,
                   u8* codes, float* scales, const int* rows, int n) {
    let_next_start();
    wait_for_previous();
    int token = blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (token >= *rows) return;
    i64 start = static_cast<i64>(token) * n;
    u16* row = sums + start;
    const u16* added = residual ? residual + start : nullptr;
    float x_scale = x_scales[token];
    float largest = 0.0f;
    for (int column = lane * 8; column < n; column += 256) {
        float values[8];
        finish(values, row, x_scale, weight_scales, bias, added, column);
        if constexpr (E4M3) {
            UNROLL for (int j = 0; j < 8; j++) largest = fmaxf(largest, fabsf(values[j]));
        } else {
            Chunk result;
            UNROLL for (int j = 0; j < 4; j++) result.word[j] = narrow_pair(values[2 * j], values[2 * j + 1]);
            *reinterpret_cast<Chunk*>(row + column) = result;
        }
    }
#if E4M3
    largest = warp_max(largest);
    Quantiser quantised = quantiser<8>(-largest, largest);
    for (int column = lane * 8; column < n; column += 256) {
        float values[8];
        finish(values, row, x_scale, weight_scales, bias, added, column);
        u32 words[2] = {0, 0};
        UNROLL for (int j = 0; j < 8; j++) words[j / 4] |= quantised.code(values[j]) << (j % 4 * 8);
        u32* to = reinterpret_cast<u32*>(codes + start + column);
        to[0] = words[0];
        to[1] = words[1];
    }
    if (lane == 0) scales[token] = quantised.scale;
#endif
}
