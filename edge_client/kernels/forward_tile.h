/* Forward over kept weights for one vector WIDTH; included by forward.c once per width.
 *
 * A tile is T vectors of a run. For one tile the input it needs, from all channels, is small enough
 * for the first-level cache, so the tile is the outer loop and all output rows pass over it.
 */
#define V HS_JOIN(vec, WIDTH)
#define LOAD HS_JOIN(load, WIDTH)
#define STORE HS_JOIN(store, WIDTH)
#define POSITIVE HS_JOIN(positive, WIDTH)
#define NAME(x) HS_JOIN(x, WIDTH)

/* T vectors of B output rows: y[b][t] = sum over kept k of w[k][b] * x[offset k][t]. B and T are literals. */
HS_INLINE void NAME(forward_tile_)(const hs_op *op, const float *x, float *y, int64_t plane, const int B,
                                   const int T, const int constant) {
    for (int64_t row = 0; row < op->rows; row++) {
        V sum[4][HS_TILE];
        HS_UNROLL for (int b = 0; b < B; b++)
            HS_UNROLL for (int t = 0; t < T; t++) sum[b][t] = (V){0};
        const uint32_t *code = op->code + op->row_start[row], *end = op->code + op->row_start[row + 1];
        const float *weights = constant ? op->table : op->weights + (int64_t)op->row_start[row] * B;
        for (; code != end; code++) {
            const float *from = x + (*code >> 4);
            const float *w = constant ? weights + (*code & 15) * 4 : weights;
            V v[HS_TILE];
            HS_UNROLL for (int t = 0; t < T; t++) v[t] = LOAD(from + t * WIDTH);
            HS_UNROLL for (int b = 0; b < B; b++)
                HS_UNROLL for (int t = 0; t < T; t++) sum[b][t] += v[t] * w[b];
            if (!constant) weights += B;
        }
        if (op->relu)
            HS_UNROLL for (int b = 0; b < B; b++)
                HS_UNROLL for (int t = 0; t < T; t++) sum[b][t] = POSITIVE(sum[b][t], sum[b][t]);
        HS_UNROLL for (int b = 0; b < B; b++) /* where the next tile will write */
            for (int ahead = T * WIDTH; ahead < 2 * T * WIDTH; ahead += HS_LINE)
                __builtin_prefetch(y + b * plane + ahead, 1);
        HS_UNROLL for (int b = 0; b < B; b++, y += plane)
            HS_UNROLL for (int t = 0; t < T; t++) STORE(y + t * WIDTH, sum[b][t]);
    }
}

#define TILE(T)                                                                                       \
    static void NAME(forward_tile##T##_)(const hs_op *op, const float *x, float *y, int64_t plane) {  \
        if (op->block == 4)                                                                           \
            op->constant ? NAME(forward_tile_)(op, x, y, plane, 4, T, 1)                              \
                         : NAME(forward_tile_)(op, x, y, plane, 4, T, 0);                             \
        else                                                                                          \
            op->constant ? NAME(forward_tile_)(op, x, y, plane, 1, T, 1)                              \
                         : NAME(forward_tile_)(op, x, y, plane, 1, T, 0);                             \
    }
TILE(1)
TILE(2)
#if HS_TILE > 2
TILE(3)
#endif
#if HS_TILE > 3
TILE(4)
#endif

static void NAME(forward)(const hs_op *op, const float *x, float *y, int64_t plane) {
    for (int64_t r = 0; r < op->runs; r++, x += op->run_in, y += op->run_out) {
        int64_t q = 0;
        for (; q + HS_TILE * WIDTH <= op->run; q += HS_TILE * WIDTH)
            NAME(HS_JOIN(HS_JOIN(forward_tile, HS_TILE), _))(op, x + q, y + q, plane);
        switch ((op->run - q) / WIDTH) {
#if HS_TILE > 2
        case 3: NAME(forward_tile3_)(op, x + q, y + q, plane); break;
#endif
        case 2: NAME(forward_tile2_)(op, x + q, y + q, plane); break;
        case 1: NAME(forward_tile1_)(op, x + q, y + q, plane); break;
        default: break;
        }
        /* What is left is shorter than a vector: the run's last vector again, its first lanes a second time. */
        if (op->run % WIDTH) NAME(forward_tile1_)(op, x + op->run - WIDTH, y + op->run - WIDTH, plane);
    }
}

#undef TILE
#undef V
#undef LOAD
#undef STORE
#undef POSITIVE
#undef NAME
