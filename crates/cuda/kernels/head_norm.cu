// The norm of each head by its root mean square (Zhang & Sennrich 2019); one warp has one row.
//
// Constants: WARPS (rows per block).

// x: the first column of head 0, rows being x_stride elements apart. gamma [head_dim]; y [rows, heads · head_dim]. rows: how many
// there are.
KERNEL(32 * WARPS)(const u16* x, int x_stride, const float* gamma, u16* y, const int* rows, int heads, int head_dim,
                   float epsilon) {
    let_next_start();
    wait_for_previous();
    int row = blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (row >= *rows) return;
    for (int head = 0; head < heads; head++) {
        const u16* from = x + static_cast<i64>(row) * x_stride + head * head_dim;
        u16* to = y + (static_cast<i64>(row) * heads + head) * head_dim;
        float squares = 0.0f;
        for (int column = lane; column < head_dim; column += 32) {
            float value = widen(from[column]);
            squares = fmaf(value, value, squares);
        }
        float inverse = 1.0f / sqrtf(warp_sum(squares) / head_dim + epsilon);
        for (int column = lane; column < head_dim; column += 32) to[column] = narrow(widen(from[column]) * inverse * gamma[column]);
    }
}
