// Rotates pairs of columns of each head by the angles of a row's position (Su et al. 2021, arXiv:2104.09864); one warp has one row.
//
// Constants: INTERLEAVED (a pair is the columns 2t and 2t + 1; else t and t + rotated / 2), WARPS (rows per block).

// A pair of columns after the rotation.
DEVICE void rotate(float& first, float& second, float cosine, float sine) {
    float turned = fmaf(first, cosine, -(second * sine));
    second = fmaf(second, cosine, first * sine);
    first = turned;
}

DEVICE void widen_pair(float (&to)[2], u32 pair) {
    to[0] = widen(static_cast<u16>(pair));
    to[1] = widen(static_cast<u16>(pair >> 16));
}

// x: the first column of head 0, rows being x_stride elements apart. positions [rows]; table [positions, rotated] f32: rotated / 2
// cosines, then as many sines. y [rows, heads · head_dim]. rows: how many there are. Columns from `rotated` on stay as they are;
// rotated, head_dim and x_stride are multiples of 4.
KERNEL(32 * WARPS)(const u16* x, int x_stride, const int* positions, const float* table, int rotated, u16* y, const int* rows,
                   int heads, int head_dim) {
    let_next_start();
    wait_for_previous();
    int row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= *rows) return;
    const float* angles = table + static_cast<i64>(positions[row]) * rotated;
    int half = rotated / 2;
    int units = head_dim / 4;
    for (int unit = threadIdx.x % 32; unit < heads * units; unit += 32) {
        int head = unit / units;
        int place = unit % units;
        // Two words of two columns each.
        int first = place * 4;
        int second = first + 2;
        bool turned = first < rotated;
        if (turned && !INTERLEAVED) {
            first = place * 2;
            second = first + half;
        }
        const u16* from = x + static_cast<i64>(row) * x_stride + head * head_dim;
        u16* to = y + (static_cast<i64>(row) * heads + head) * head_dim;
        float a[2], b[2];
        widen_pair(a, *reinterpret_cast<const u32*>(from + first));
        widen_pair(b, *reinterpret_cast<const u32*>(from + second));
        if (turned) {
            if constexpr (INTERLEAVED) {
                rotate(a[0], a[1], angles[place * 2], angles[half + place * 2]);
                rotate(b[0], b[1], angles[place * 2 + 1], angles[half + place * 2 + 1]);
            } else {
                rotate(a[0], b[0], angles[first], angles[second]);
                rotate(a[1], b[1], angles[first + 1], angles[second + 1]);
            }
        }
        *reinterpret_cast<u32*>(to + first) = narrow_pair(a[0], a[1]);
        *reinterpret_cast<u32*>(to + second) = narrow_pair(b[0], b[1]);
    }
}
