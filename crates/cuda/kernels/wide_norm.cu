// The norm of f32 rows, for heads; one warp has one row.
//
// Constants: WARPS (rows per block).

// The sum of a row, or that of the squares of its distances from a number.
template <bool SQUARES>
DEVICE float row_sum(const float* row, int width, float from) {
    float sum = 0.0f;
    for (int column = threadIdx.x % 32; column < width; column += 32) {
        float value = row[column] - from;
        sum = SQUARES ? fmaf(value, value, sum) : sum + value;
    }
    return warp_sum(sum);
}

// x [rows, width]; gamma [width]; beta [width], or null for a norm by the root mean square; y [rows, width]. rows: how many there
// are.
KERNEL(32 * WARPS)(const float* x, const float* gamma, const float* beta, float* y, const int* rows, int width, float epsilon) {
    let_next_start();
    wait_for_previous();
    int row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= *rows) return;
    x += static_cast<i64>(row) * width;
    y += static_cast<i64>(row) * width;
    float mean = beta ? row_sum<false>(x, width, 0.0f) / width : 0.0f;
    float inverse_deviation = 1.0f / sqrtf(row_sum<true>(x, width, mean) / width + epsilon);
    for (int column = threadIdx.x % 32; column < width; column += 32) {
        y[column] = fmaf((x[column] - mean) * inverse_deviation, gamma[column], beta ? beta[column] : 0.0f);
    }
}
