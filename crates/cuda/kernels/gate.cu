// Activation functions of whole rows, times another row where there is one (Shazeer 2020, arXiv:2002.05202); one warp has one row.
//
// Constants: WARPS (rows per block).

// a, b: the first column of matrices whose rows are *_stride elements apart; b may be null. y [rows, width] is activation(a) · b.
// rows: how many there are. activation: by its number. width and strides are multiples of 8.
KERNEL(32 * WARPS)(const u16* a, int a_stride, const u16* b, int b_stride, u16* y, const int* rows, int width, int activation) {
    let_next_start();
    wait_for_previous();
    int row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= *rows) return;
    for (int column = threadIdx.x % 32 * 8; column < width; column += 256) {
        Chunk left = *reinterpret_cast<const Chunk*>(a + static_cast<i64>(row) * a_stride + column);
        Chunk right = left;
        if (b) right = *reinterpret_cast<const Chunk*>(b + static_cast<i64>(row) * b_stride + column);
        Chunk result;
        UNROLL for (int j = 0; j < 4; j++) {
            float low = activate_by(activation, widen(static_cast<u16>(left.word[j])));
            float high = activate_by(activation, widen(static_cast<u16>(left.word[j] >> 16)));
            if (b) {
                low *= widen(static_cast<u16>(right.word[j]));
                high *= widen(static_cast<u16>(right.word[j] >> 16));
            }
            result.word[j] = narrow_pair(low, high);
        }
        *reinterpret_cast<Chunk*>(y + static_cast<i64>(row) * width + column) = result;
    }
}
