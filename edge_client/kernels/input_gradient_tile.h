/* Input gradient over kept weights for one vector WIDTH; included by input_gradient.c once per width.
 *
 * With weights of +-scale a block of 4 rows adds one of 8 signed sums of the rows' gradients, times +-scale,
 * to its input. A tile computes the 8 sums once; each kept block is then one multiply-add instead of four.
 * Other weights, and row groups with too few blocks to pay for the sums, take the four.
 */
#define V HS_JOIN(vec, WIDTH)
#define LOAD HS_JOIN(load, WIDTH)
#define STORE HS_JOIN(store, WIDTH)
#define FROM HS_JOIN(from, WIDTH)
#define NAME(x) HS_JOIN(x, WIDTH)

/* T vectors: dx[offset k][t] += sum over b of w[k][b] * dy[b][t]; lanes before `first` are left out. */
HS_INLINE void NAME(input_gradient_tile_)(const hs_op *op, float *dx, const float *dy, int64_t plane, const int B,
                                          const int T, const int constant, const int first) {
    for (int64_t row = 0; row < op->rows; row++) {
        const uint32_t *code = op->code + op->row_start[row], *end = op->code + op->row_start[row + 1];
        V g[4][HS_SPREAD];
        HS_UNROLL for (int b = 0; b < B; b++, dy += plane) {
            HS_UNROLL for (int t = 0; t < T; t++) {
                g[b][t] = LOAD(dy + t * WIDTH);
                if (first) g[b][t] = FROM(g[b][t], first);
            }
            for (int ahead = T * WIDTH; ahead < 2 * T * WIDTH; ahead += HS_LINE) /* what the next tile will read */
                __builtin_prefetch(dy + ahead);
        }
        if (code == end) continue;
        if (constant && B == 4 && end - code >= HS_SUMS_FROM) {
            V sums[8][HS_SPREAD]; /* row 3 plus or minus the others, by the code's low three bits */
            HS_UNROLL for (int t = 0; t < T; t++) {
                const V plus = g[0][t] + g[1][t], minus = g[0][t] - g[1][t];
                const V high = g[3][t] + g[2][t], low = g[3][t] - g[2][t];
                sums[0][t] = low - plus, sums[1][t] = low + minus, sums[2][t] = low - minus, sums[3][t] = low + plus;
                sums[4][t] = high - plus, sums[5][t] = high + minus, sums[6][t] = high - minus, sums[7][t] = high + plus;
            }
            for (; code != end; code++) {
                float *to = dx + (*code >> 4);
                const V *sum = sums[*code & 7];
                const float w = op->table[(*code & 15) * 4 + 3];
                HS_UNROLL for (int t = 0; t < T; t++) STORE(to + t * WIDTH, LOAD(to + t * WIDTH) + sum[t] * w);
            }
            continue;
        }
        const float *weights = constant ? op->table : op->weights + (int64_t)op->row_start[row] * B;
        for (; code != end; code++) {
            float *to = dx + (*code >> 4);
            const float *w = constant ? weights + (*code & 15) * 4 : weights;
            HS_UNROLL for (int t = 0; t < T; t++) {
                V sum = LOAD(to + t * WIDTH);
                HS_UNROLL for (int b = 0; b < B; b++) sum += g[b][t] * w[b];
                STORE(to + t * WIDTH, sum);
            }
            if (!constant) weights += B;
        }
    }
}

#define TILE(T)                                                                                                    \
    static void NAME(input_gradient_tile##T##_)(const hs_op *op, float *dx, const float *dy, int64_t plane,        \
                                                int first) {                                                       \
        if (op->block == 4)                                                                                        \
            op->constant ? NAME(input_gradient_tile_)(op, dx, dy, plane, 4, T, 1, first)                           \
                         : NAME(input_gradient_tile_)(op, dx, dy, plane, 4, T, 0, first);                          \
        else                                                                                                       \
            op->constant ? NAME(input_gradient_tile_)(op, dx, dy, plane, 1, T, 1, first)                           \
                         : NAME(input_gradient_tile_)(op, dx, dy, plane, 1, T, 0, first);                          \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)

/* `runs` runs of `run` floats, a part of the operation's. */
static void NAME(input_gradient)(const hs_op *op, float *dx, const float *dy, int64_t plane, int64_t runs,
                                 int64_t run) {
    for (int64_t r = 0; r < runs; r++, dx += op->run_in, dy += op->run_out) {
        int64_t q = 0;
        for (; q + HS_SPREAD * WIDTH <= run; q += HS_SPREAD * WIDTH)
            NAME(HS_JOIN(HS_JOIN(input_gradient_tile, HS_SPREAD), _))(op, dx + q, dy + q, plane, 0);
        switch ((run - q) / WIDTH) {
        case 3: NAME(input_gradient_tile3_)(op, dx + q, dy + q, plane, 0); break;
        case 2: NAME(input_gradient_tile2_)(op, dx + q, dy + q, plane, 0); break;
        case 1: NAME(input_gradient_tile1_)(op, dx + q, dy + q, plane, 0); break;
        default: break;
        }
        /* What is left is shorter than a vector: the run's last vector, without the lanes already done. */
        const int64_t left = run % WIDTH, last = run - WIDTH;
        if (left) NAME(input_gradient_tile1_)(op, dx + last, dy + last, plane, (int)(WIDTH - left));
    }
}

#undef TILE
#undef V
#undef LOAD
#undef STORE
#undef FROM
#undef NAME
