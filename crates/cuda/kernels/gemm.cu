// y = activation(x · weightᵀ + bias) + residual, on tensor cores.
//
// Constants: TILE_M, TILE_N (rows and columns of a block's tile), WARPS_M, WARPS_N (how the warps divide it), STAGES (tiles
// of the depth under way), CODES (x and weight are bytes), ACTIVATION, WIDE (y is f32), GROUPED (groups of columns have a weight
// each), WARPGROUPS (four warps multiply 64 rows together, out of shared memory), OVERLAPS (the kernel may begin before the one
// before it has ended).
//
// Each element of y is one accumulator that sums 32 bytes of the depth at a time, in ascending order, whatever the tile
// and the number of tokens: so a token's row has the same bits in every batch. A row of a tile in shared memory has 128
// bytes; its 16-byte chunks are swapped by the row's number, so that eight rows of one column meet no bank twice.

#define THREADS (32 * WARPS_M * WARPS_N)
#define WARP_ROWS (TILE_M / WARPS_M)
#define WARP_COLUMNS (TILE_N / WARPS_N)
#define BLOCKS_M (WARP_ROWS / 16)
#define BLOCKS_N (WARP_COLUMNS / 8)
#define DEPTH_BYTES 128
#define STAGE_BYTES ((TILE_M + TILE_N) * DEPTH_BYTES)
// How many steps before its use a tile is asked for. Products of warpgroups still read a step's tile during the next one.
#define AHEAD (WARPGROUPS ? STAGES - 2 : STAGES - 1)

#if CODES
typedef int Accumulator;
#define ELEMENT_BYTES 1
#else
typedef float Accumulator;
#define ELEMENT_BYTES 2
#endif

// Where a chunk of a row lies in a tile.
DEVICE u8* tile_chunk(u8* tile, int row, int chunk) { return tile + row * DEPTH_BYTES + ((chunk ^ (row & 7)) << 4); }

// A tile as products of warpgroups take it: its address in units of 16 bytes, as is the distance from eight rows to the next (from
// bit 32 on), and that rows of 128 bytes have their chunks swapped by bits 7 to 9 of the address (62). So tiles begin at
// multiples of 1024 bytes. What is at bit 16 isn't used.
DEVICE u64 tile_descriptor(const u8* tile) {
    return shared_address(tile) >> 4 & 0x3fff | 1ull << 16 | static_cast<u64>(8 * DEPTH_BYTES >> 4) << 32 | 1ull << 62;
}

// Asks for `depth` bytes of rows that are `stride` bytes apart; zeros where there is none.
template <int ROWS>
DEVICE void load_tile(u8* tile, const u8* matrix, int first_row, int rows, int first_byte, int depth, int stride) {
    UNROLL_COPIES for (int i = 0; i < (ROWS * 8 + THREADS - 1) / THREADS; i++) {
        int index = i * THREADS + threadIdx.x;
        int row = index / 8;
        int byte = first_byte + index % 8 * 16;
        if (ROWS * 8 % THREADS != 0 && row >= ROWS) break;
        bool inside = first_row + row < rows && byte < depth;
        const u8* from = inside ? matrix + static_cast<i64>(first_row + row) * stride + byte : matrix;
        copy_async(tile_chunk(tile, row, index % 8), from, inside);
    }
}

// x [tokens, k] and weight [n, k]: 16-bit floats, or codes, unsigned of x and signed of the weight. bias [n] or null;
// residual [tokens, n] or null; y [tokens, n]. Of codes: x_scales, x_zero_points [tokens]; weight_scales, weight_sums [n], the
// sums of each row's codes. k is a multiple of 16 bytes, n one of 8 where y is not f32. With GROUPED: weight [groups, n, k],
// and each k columns of x give n of y by a matrix of their own; rows of x are x_stride elements apart, those of y y_stride.
KERNEL(THREADS)(const u8* x, const u8* weight, const float* bias, const u16* residual, void* y, const float* x_scales,
                const int* x_zero_points, const float* weight_scales, const int* weight_sums, const int* rows, int n,
                int k, int x_stride, int y_stride) {
    SHARED(shared);
    let_next_start();
    int first_row = blockIdx.y * TILE_M;
    int first_column = blockIdx.x * TILE_N;
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    int warp_row = warp / WARPS_N * WARP_ROWS;
    int warp_column = warp % WARPS_N * WARP_COLUMNS;
    int depth = k * ELEMENT_BYTES;
    int steps = (depth + DEPTH_BYTES - 1) / DEPTH_BYTES;
    int x_bytes = depth;
    int y_columns = n;
    if constexpr (GROUPED) {
        int tiles = (n + TILE_N - 1) / TILE_N;
        int group = blockIdx.x / tiles;
        first_column -= group * tiles * TILE_N;
        x += group * depth;
        weight += static_cast<i64>(group) * n * depth;
        y = static_cast<u16*>(y) + group * n;
        x_bytes = x_stride * ELEMENT_BYTES;
        y_columns = y_stride;
    }

#if !OVERLAPS
    wait_for_previous();
    int tokens = *rows;
    if (first_row >= tokens) return;
#endif
    UNROLL for (int stage = 0; stage < AHEAD; stage++) {
        u8* tile = shared + stage * STAGE_BYTES + TILE_M * DEPTH_BYTES;
        if (stage < steps) load_tile<TILE_N>(tile, weight, first_column, n, stage * DEPTH_BYTES, depth, depth);
    }
#if OVERLAPS
    wait_for_previous();
    int tokens = *rows;
    if (first_row >= tokens) {
        copies_commit();
        copies_wait<0>();
        return;
    }
#endif

    Accumulator sums[BLOCKS_M][BLOCKS_N][4];
    UNROLL for (int i = 0; i < BLOCKS_M; i++) {
        UNROLL for (int j = 0; j < BLOCKS_N; j++) {
            UNROLL for (int e = 0; e < 4; e++) sums[i][j][e] = 0;
        }
    }

    UNROLL for (int stage = 0; stage < AHEAD; stage++) {
        u8* tile = shared + stage * STAGE_BYTES;
        if (stage < steps) load_tile<TILE_M>(tile, x, first_row, tokens, stage * DEPTH_BYTES, depth, x_bytes);
        copies_commit();
    }
    int write_stage = AHEAD;
    int read_stage = 0;
    for (int step = 0; step < steps; step++) {
        copies_wait<AHEAD - 1>();
#if WARPGROUPS
        copies_publish();
#endif
        block_barrier();
        int ahead = step + AHEAD;
        if (ahead < steps) {
            u8* tile = shared + write_stage * STAGE_BYTES;
            load_tile<TILE_M>(tile, x, first_row, tokens, ahead * DEPTH_BYTES, depth, x_bytes);
            load_tile<TILE_N>(tile + TILE_M * DEPTH_BYTES, weight, first_column, n, ahead * DEPTH_BYTES, depth, depth);
        }
        copies_commit();
        write_stage = write_stage + 1 == STAGES ? 0 : write_stage + 1;
        u8* x_tile = shared + read_stage * STAGE_BYTES;
        u8* weight_tile = x_tile + TILE_M * DEPTH_BYTES;
        read_stage = read_stage + 1 == STAGES ? 0 : read_stage + 1;
#if WARPGROUPS
        u64 x_part = tile_descriptor(x_tile + warp / 4 * 64 * DEPTH_BYTES);
        u64 weight_part = tile_descriptor(weight_tile);
        products_begin();
        UNROLL for (int part = 0; part < DEPTH_BYTES / 32; part++) {
            multiply_async(sums[0], x_part + part * 2, weight_part + part * 2);
        }
        products_commit();
        products_wait<1>(sums[0]);
#else
        UNROLL for (int part = 0; part < DEPTH_BYTES / 32; part++) {
            u32 a[BLOCKS_M][4];
            u32 b[BLOCKS_N / 2][4];
            UNROLL for (int i = 0; i < BLOCKS_M; i++) {
                int row = warp_row + i * 16 + lane % 16;
                load_matrices(a[i], tile_chunk(x_tile, row, part * 2 + lane / 16));
            }
            UNROLL for (int j = 0; j < BLOCKS_N / 2; j++) {
                int row = warp_column + j * 16 + lane / 16 * 8 + lane % 8;
                load_matrices(b[j], tile_chunk(weight_tile, row, part * 2 + lane / 8 % 2));
            }
            UNROLL for (int i = 0; i < BLOCKS_M; i++) {
                UNROLL for (int j = 0; j < BLOCKS_N; j++) {
                    multiply(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
                }
            }
        }
#endif
    }
#if WARPGROUPS
    products_wait<0>(sums[0]);
#endif

    UNROLL for (int i = 0; i < BLOCKS_M; i++) {
        UNROLL for (int half = 0; half < 2; half++) {
            int row = first_row + warp_row + i * 16 + half * 8 + lane / 4;
            if (row >= tokens) continue;
#if CODES
            float x_scale = x_scales[row];
            int zero_point = x_zero_points[row];
#endif
            UNROLL for (int j = 0; j < BLOCKS_N; j++) {
                int column = first_column + warp_column + j * 8 + lane % 4 * 2;
                if (column >= n) continue;
                i64 place = static_cast<i64>(row) * y_columns + column;
                float values[2];
                UNROLL for (int e = 0; e < 2; e++) {
                    // Elsewhere columns come in pairs.
                    if (WIDE && column + e >= n) break;
#if CODES
                    int sum = sums[i][j][half * 2 + e] - zero_point * weight_sums[column + e];
                    values[e] = static_cast<float>(sum) * (x_scale * weight_scales[column + e]);
#else
                    values[e] = sums[i][j][half * 2 + e];
#endif
                    if (bias) values[e] += bias[column + e];
                    values[e] = activate<ACTIVATION>(values[e]);
                    if constexpr (WIDE) static_cast<float*>(y)[place + e] = values[e];
                }
                if constexpr (WIDE) continue;
                if (residual) {
                    u32 pair = *reinterpret_cast<const u32*>(residual + place);
                    values[0] += widen(static_cast<u16>(pair));
                    values[1] += widen(static_cast<u16>(pair >> 16));
                }
                *reinterpret_cast<u32*>(static_cast<u16*>(y) + place) = narrow_pair(values[0], values[1]);
            }
        }
    }
}
