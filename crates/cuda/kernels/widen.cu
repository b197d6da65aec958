// Rows of 16-bit floats as f32: outputs with one row per token.
//
// Constants: WARPS (rows per block).

// x, y [tokens, width].
KERNEL(32 * WARPS)(const u16* x, float* y, const int* rows, int width) {
    let_next_start();
    wait_for_previous();
    int token = blockIdx.x * WARPS + threadIdx.x / 32;
    if (token >= *rows) return;
    i64 row = static_cast<i64>(token) * width;
    for (int column = threadIdx.x % 32; column < width; column += 32) y[row + column] = widen(x[row + column]);
}
