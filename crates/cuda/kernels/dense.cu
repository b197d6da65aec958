// A linear layer of f32 rows, for heads: one warp has one element.
//
// Constants: WARPS (columns per block).

// x [rows, k] f32; weight [n, k] 16-bit; bias [n] or null; y [rows, n]; rows: how many there are.
// activation: by its number. k is a multiple of 8.
KERNEL(32 * WARPS)(const float* x, const u16* weight, const float* bias, float* y, const int* rows, int n, int k,
                   int activation) {
    let_next_start();
    wait_for_previous();
    int row = blockIdx.y;
    int column = blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (row >= *rows || column >= n) return;
    float sum = 0.0f;
    for (int depth = lane * 8; depth < k; depth += 256) {
        Chunk weights = *reinterpret_cast<const Chunk*>(weight + static_cast<i64>(column) * k + depth);
        i64 place = static_cast<i64>(row) * k + depth;
        UNROLL for (int j = 0; j < 8; j++) {
            sum = fmaf(x[place + j], widen(static_cast<u16>(weights.word[j / 2] >> (j % 2 * 16))), sum);
        }
    }
    sum = warp_sum(sum);
    if (lane == 0) y[static_cast<i64>(row) * n + column] = activate_by(activation, bias ? sum + bias[column] : sum);
}
