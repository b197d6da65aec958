// Some rows of a matrix, behind each other; one warp has one row.
//
// Constants: WARPS (rows per block).

// x [tokens, width]; places [rows]: the rows of x; y [rows, width]. rows: how many there are. width is a multiple of 8.
KERNEL(32 * WARPS)(const u16* x, const int* places, u16* y, const int* rows, int width) {
    let_next_start();
    wait_for_previous();
    int row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= *rows) return;
    const Chunk* from = reinterpret_cast<const Chunk*>(x + static_cast<i64>(places[row]) * width);
    Chunk* to = reinterpret_cast<Chunk*>(y + static_cast<i64>(row) * width);
    for (int chunk = threadIdx.x % 32; chunk < width / 8; chunk += 32) to[chunk] = from[chunk];
}
