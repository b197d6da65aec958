// Writes new keys and values to their places in the pages of a cache; one warp has one token.
//
// Constants: WARPS (rows per block).

// k, v: the first column of matrices whose rows are *_stride elements apart. places [rows]: the row of each token in keys and values
// [places, width]. rows: how many tokens there are. width and strides are multiples of 8.
KERNEL(32 * WARPS)(const u16* k, int k_stride, const u16* v, int v_stride, const int* places, u16* keys, u16* values,
                   const int* rows, int width) {
    let_next_start();
    wait_for_previous();
    int row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= *rows) return;
    i64 place = static_cast<i64>(places[row]) * width;
    for (int column = threadIdx.x % 32 * 8; column < width; column += 256) {
        Chunk key = *reinterpret_cast<const Chunk*>(k + static_cast<i64>(row) * k_stride + column);
        Chunk value = *reinterpret_cast<const Chunk*>(v + static_cast<i64>(row) * v_stride + column);
        *reinterpret_cast<Chunk*>(keys + place + column) = key;
        *reinterpret_cast<Chunk*>(values + place + column) = value;
    }
}
