// A linear layer with f32 results, for heads: one warp has one element.
//
// Constants: WIDE (x is f32), WARPS (columns per block).

// x [rows, k] f32 or 16-bit; weight [n, k] 16-bit; bias [n] or null; y [rows, n]; the number of rows is header[rows_at].
// activation: by its number. k is a multiple of 8.
KERNEL(32 * WARPS)(const void* x, const u16* weight, const float* bias, float* y, const int* header, int rows_at, int n,
                   int k, int activation) {
    int row = blockIdx.y;
    int column = blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (row >= header[rows_at] || column >= n) return;
    float sum = 0.0f;
    for (int depth = lane * 8; depth < k; depth += 256) {
        Chunk weights = *reinterpret_cast<const Chunk*>(weight + static_cast<i64>(column) * k + depth);
        i64 place = static_cast<i64>(row) * k + depth;
        float values[8];
        if constexpr (WIDE) {
            UNROLL for (int j = 0; j < 8; j++) values[j] = static_cast<const float*>(x)[place + j];
        } else {
            Chunk chunk = *reinterpret_cast<const Chunk*>(static_cast<const u16*>(x) + place);
            UNROLL for (int j = 0; j < 8; j++) values[j] = widen(static_cast<u16>(chunk.word[j / 2] >> (j % 2 * 16)));
        }
        UNROLL for (int j = 0; j < 8; j++) {
            sum = fmaf(values[j], widen(static_cast<u16>(weights.word[j / 2] >> (j % 2 * 16))), sum);
        }
    }
    sum = warp_sum(sum);
    if (lane == 0) y[static_cast<i64>(row) * n + column] = activate_by(activation, bias ? sum + bias[column] : sum);
}
