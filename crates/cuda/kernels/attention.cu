// Attention of packed sequences: softmax(q · kᵀ · scale) · v within each sequence (Dao 2023, arXiv:2307.08691).
//
// A query sees the keys of its sequence up to `window` positions away on either side, and none behind itself where `causal` is 1.
//
// Constants: HEAD_DIM (columns of a head in a tile, a multiple of 32; those that a head lacks are zeros), CONTENT (scores have terms of
// content and position), PAGED (keys and values are in the pages of a cache), WARPS (16 queries each), STAGES (1, or 2 where keys
// are copied while others are used).
//
// A block has one head and up to 16 · WARPS queries of one sequence. Keys come 64 at a time from the sequence's first one
// on, so a query's sums have one order whatever else is in the batch. Scores, weights' sum and outputs are f32; weights
// are rounded to 16 bits for the second product.

#define KEYS 64
#define THREADS (32 * WARPS)
#define ROW_CHUNKS (HEAD_DIM / 8)
#define TILE_BYTES (KEYS * HEAD_DIM * 2)
#define QUERY_BYTES (16 * WARPS * HEAD_DIM * 2)
#define PAGE 16
// Sixteenths of the queries that are in registers: all, or where the assembler runs out of registers one after the other.
#define HELD_QUERIES (HEAD_DIM > 128 || (HEAD_DIM == 96 && PAGED) ? 1 : HEAD_DIM / 16)
#define MINUS_INFINITY __int_as_float(0xff800000)

// Where a chunk of a row lies in a tile: swapped so that eight rows of one column meet no bank twice.
DEVICE u8* tile_chunk(u8* tile, int row, int chunk) {
    int swapped = chunk ^ (ROW_CHUNKS % 8 == 4 ? row >> 1 & 3 : row & 7);
    return tile + (row * ROW_CHUNKS + swapped) * 16;
}

// This lane's row of a sixteenth of the warp's queries.
DEVICE u8* query_chunk(u8* tile, int sixteenth) {
    int lane = threadIdx.x % 32;
    return tile_chunk(tile, threadIdx.x / 32 * 16 + lane % 16, sixteenth * 2 + lane / 16);
}

// Asks for rows `first..first + ROWS` of a sequence of `length` rows of `columns` elements that are `stride` elements apart; zeros
// behind its end and theirs. With THROUGH a page of rows lies where `pages` says.
template <int ROWS, bool THROUGH>
DEVICE void load_rows(u8* tile, const u16* matrix, int first, int length, int columns, i64 stride, const int* pages) {
    UNROLL_COPIES for (int i = 0; i < (ROWS * ROW_CHUNKS + THREADS - 1) / THREADS; i++) {
        int index = i * THREADS + threadIdx.x;
        int row = index / ROW_CHUNKS;
        if (ROWS * ROW_CHUNKS % THREADS != 0 && row >= ROWS) break;
        bool inside = first + row < length && index % ROW_CHUNKS * 8 < columns;
        i64 place = first + row;
        if (THROUGH && inside) place = static_cast<i64>(pages[place / PAGE]) * PAGE + place % PAGE;
        const u16* from = inside ? matrix + place * stride + index % ROW_CHUNKS * 8 : matrix;
        copy_async(tile_chunk(tile, row, index % ROW_CHUNKS), from, inside);
    }
}

// q, k, v: the first column of head 0; rows are *_stride elements apart, and each head has `columns` columns, a multiple of 8. Query
// head h reads key head h / group. y [tokens, heads · columns]. rows: how many blocks there are. offsets [sequences + 1]: each
// sequence's first row. blocks [rows]: pairs of sequence and first query within it. scale: of the scores, times log2(e).
// Strides are multiples of 8. cap: scores s become cap · tanh(s / cap), times log2(e); 0 for none. window: -1 for none.
// distances [heads, 2 · farthest + 1], or null: what the distance from key to query adds to a score, times log2(e); from `farthest`
// on, that of `farthest`. With CONTENT: by_query, by_key [tokens, heads · buckets], or null: what the product of query and key is
// increased by, in the column bucket_of [2 · farthest + 1] that belongs to the distance. With PAGED: k, v are those of page 0; pasts
// [sequences]: tokens that came before those of the batch; pages: of each sequence from its number in first_pages [sequences] on.
KERNEL(THREADS)(const u16* q, const u16* k, const u16* v, u16* y, int q_stride, int k_stride, int v_stride, int y_stride,
                int columns, int group, const int* rows, const int* offsets, const int* blocks, float scale, float cap,
                int causal, int window, const float* distances, int farthest, const u16* by_query, const u16* by_key,
                int content_stride, int buckets, const int* bucket_of, const int* pasts, const int* first_pages,
                const int* pages) {
    SHARED(shared);
    let_next_start();
    wait_for_previous();
    if (static_cast<int>(blockIdx.x) >= *rows) return;
    int sequence = blocks[blockIdx.x * 2];
    int first_query = blocks[blockIdx.x * 2 + 1];
    i64 begin = offsets[sequence];
    int tokens = offsets[sequence + 1] - offsets[sequence];
    int past = PAGED ? pasts[sequence] : 0;
    int length = past + tokens;
    if constexpr (PAGED) pages += first_pages[sequence];
    int head = blockIdx.y;
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    q += begin * q_stride + head * columns;
    k += (PAGED ? 0 : begin * k_stride) + head / group * columns;
    v += (PAGED ? 0 : begin * v_stride) + head / group * columns;
    y += begin * y_stride + head * columns;
    u8* key_tiles = shared + QUERY_BYTES;
    // Keys that any query of the block sees. Steps begin at multiples of KEYS in any case, so that what a query sums up comes in
    // the same steps whatever block it is in.
    int begin_key = window >= 0 && past + first_query > window ? (past + first_query - window) / KEYS * KEYS : 0;
    int last_query = past + first_query + 16 * WARPS - 1;
    int end_key = causal ? last_query + 1 : window >= 0 ? last_query + window + 1 : length;
    if (end_key > length) end_key = length;
    if (distances) distances += static_cast<i64>(head) * (2 * farthest + 1) + farthest;
    if constexpr (CONTENT) {
        if (by_query) by_query += begin * content_stride + head * buckets;
        if (by_key) by_key += begin * content_stride + head * buckets;
        bucket_of += farthest;
    }

    load_rows<16 * WARPS, false>(shared, q, first_query, tokens, columns, q_stride, pages);
    if constexpr (STAGES == 2) {
        load_rows<KEYS, PAGED>(key_tiles, k, begin_key, length, columns, k_stride, pages);
        load_rows<KEYS, PAGED>(key_tiles + TILE_BYTES, v, begin_key, length, columns, v_stride, pages);
    }
    copies_commit();

    u32 queries[HELD_QUERIES][4];
    float outputs[HEAD_DIM / 8][4];
    UNROLL for (int i = 0; i < HEAD_DIM / 8; i++) {
        UNROLL for (int e = 0; e < 4; e++) outputs[i][e] = 0.0f;
    }
    float largest[2] = {MINUS_INFINITY, MINUS_INFINITY};
    float total[2] = {0.0f, 0.0f};

    for (int first_key = begin_key; first_key < end_key; first_key += KEYS) {
        int stage = STAGES == 2 ? (first_key - begin_key) / KEYS % 2 : 0;
        u8* key_tile = key_tiles + stage * 2 * TILE_BYTES;
        u8* value_tile = key_tile + TILE_BYTES;
        if constexpr (STAGES == 2) {
            u8* next = key_tiles + (1 - stage) * 2 * TILE_BYTES;
            if (first_key + KEYS < end_key) {
                load_rows<KEYS, PAGED>(next, k, first_key + KEYS, length, columns, k_stride, pages);
                load_rows<KEYS, PAGED>(next + TILE_BYTES, v, first_key + KEYS, length, columns, v_stride, pages);
            }
            copies_commit();
            copies_wait<1>();
        } else {
            load_rows<KEYS, PAGED>(key_tile, k, first_key, length, columns, k_stride, pages);
            load_rows<KEYS, PAGED>(value_tile, v, first_key, length, columns, v_stride, pages);
            copies_commit();
            copies_wait<0>();
        }
        block_barrier();
        if (HELD_QUERIES == HEAD_DIM / 16 && first_key == begin_key) {
            UNROLL for (int i = 0; i < HELD_QUERIES; i++) load_matrices(queries[i], query_chunk(shared, i));
        }

        float scores[KEYS / 8][4];
        UNROLL for (int j = 0; j < KEYS / 8; j++) {
            UNROLL for (int e = 0; e < 4; e++) scores[j][e] = 0.0f;
        }
        UNROLL for (int i = 0; i < HEAD_DIM / 16; i++) {
            if constexpr (HELD_QUERIES == 1) load_matrices(queries[0], query_chunk(shared, i));
            UNROLL for (int j = 0; j < KEYS / 16; j++) {
                // What is behind the end weighs nothing; a warp agrees on where that is.
                if (first_key + j * 16 >= end_key) continue;
                u32 keys[4];
                load_matrices(keys, tile_chunk(key_tile, j * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
                multiply(scores[2 * j], queries[i % HELD_QUERIES], keys[0], keys[1]);
                multiply(scores[2 * j + 1], queries[i % HELD_QUERIES], keys[2], keys[3]);
            }
        }

        UNROLL for (int half = 0; half < 2; half++) {
            int query = past + first_query + warp * 16 + half * 8 + lane / 4;
            int low = window >= 0 ? query - window : 0;
            int high = causal ? query + 1 : window >= 0 ? query + window + 1 : length;
            if (high > length) high = length;
            float block_largest = MINUS_INFINITY;
            UNROLL for (int j = 0; j < KEYS / 8; j++) {
                UNROLL for (int e = 0; e < 2; e++) {
                    float& score = scores[j][half * 2 + e];
                    int key = first_key + j * 8 + lane % 4 * 2 + e;
                    int distance = query - key;
                    distance = distance > farthest ? farthest : distance < -farthest ? -farthest : distance;
                    if constexpr (CONTENT) {
                        // What is behind an end is the last row; nothing comes of it.
                        int bucket = bucket_of[distance];
                        int query_row = query < length ? query : length - 1;
                        int key_row = key < length ? key : length - 1;
                        if (by_query) score += widen(by_query[query_row * content_stride + bucket]);
                        if (by_key) score += widen(by_key[key_row * content_stride + bucket]);
                    }
                    score *= scale;
                    // tanh(x) by 2^(2x log2(e)), which takes fewer registers than tanhf.
                    if (cap > 0.0f) score = cap - 2.0f * cap / (1.0f + exp2_fast(score / cap * 2.8853900817779268f));
                    if (distances) score += distances[distance];
                    if (key < low || key >= high) score = MINUS_INFINITY;
                    block_largest = fmaxf(block_largest, score);
                }
            }
            block_largest = fmaxf(block_largest, exchange(block_largest, 1));
            block_largest = fmaxf(block_largest, exchange(block_largest, 2));
            float next_largest = fmaxf(largest[half], block_largest);
            // Where the query has seen no key yet, all of its weights are 0.
            float base = next_largest == MINUS_INFINITY ? 0.0f : next_largest;
            float correction = exp2_fast(largest[half] - base);
            largest[half] = next_largest;
            total[half] *= correction;
            UNROLL for (int j = 0; j < KEYS / 8; j++) {
                UNROLL for (int e = 0; e < 2; e++) {
                    float& score = scores[j][half * 2 + e];
                    score = exp2_fast(score - base);
                    total[half] += score;
                }
            }
            UNROLL for (int i = 0; i < HEAD_DIM / 8; i++) {
                UNROLL for (int e = 0; e < 2; e++) outputs[i][half * 2 + e] *= correction;
            }
        }

        UNROLL for (int j = 0; j < KEYS / 16; j++) {
            if (first_key + j * 16 >= end_key) continue;
            u32 weights[4] = {
                narrow_pair(scores[2 * j][0], scores[2 * j][1]),
                narrow_pair(scores[2 * j][2], scores[2 * j][3]),
                narrow_pair(scores[2 * j + 1][0], scores[2 * j + 1][1]),
                narrow_pair(scores[2 * j + 1][2], scores[2 * j + 1][3]),
            };
            UNROLL for (int i = 0; i < HEAD_DIM / 16; i++) {
                u32 values[4];
                load_matrices_transposed(values, tile_chunk(value_tile, j * 16 + lane % 16, i * 2 + lane / 16));
                multiply(outputs[2 * i], weights, values[0], values[1]);
                multiply(outputs[2 * i + 1], weights, values[2], values[3]);
            }
        }
        block_barrier();
    }

    UNROLL for (int half = 0; half < 2; half++) {
        total[half] += exchange(total[half], 1);
        total[half] += exchange(total[half], 2);
        int query = first_query + warp * 16 + half * 8 + lane / 4;
        if (query >= tokens) continue;
        float inverse = 1.0f / total[half];
        UNROLL for (int i = 0; i < HEAD_DIM / 8; i++) {
            if (i * 8 >= columns) continue;
            u32* to = reinterpret_cast<u32*>(y + static_cast<i64>(query) * y_stride + i * 8 + lane % 4 * 2);
            *to = narrow_pair(outputs[i][half * 2] * inverse, outputs[i][half * 2 + 1] * inverse);
        }
    }
}
