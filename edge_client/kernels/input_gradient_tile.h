/* Input gradient over kept weights for one vector WIDTH; included by input_gradient.c once per width.
 *
 * With weights of +-scale a block of 4 rows adds one of 16 signed sums of the rows' gradients to its
 * input. A tile computes the 16 sums once; each kept block is then one addition instead of four
 * multiply-adds. Other weights take the four multiply-adds, their rows held in registers.
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
        V g[4][HS_TILE];
        HS_UNROLL for (int b = 0; b < B; b++, dy += plane)
            HS_UNROLL for (int t = 0; t < T; t++) {
                g[b][t] = LOAD(dy + t * WIDTH);
                if (first) g[b][t] = FROM(g[b][t], first);
            }
        if (code == end) continue;
        if (constant) {
            enum { PATTERNS = 16 };
            V signed_sum[PATTERNS][HS_TILE];
            HS_UNROLL for (int t = 0; t < T; t++) {
                if (B == 4) {
                    const V a = g[0][t] * op->scale, b = g[1][t] * op->scale;
                    const V c = g[2][t] * op->scale, d = g[3][t] * op->scale;
                    const V low[4] = {-a - b, a - b, b - a, a + b}, high[4] = {-c - d, c - d, d - c, c + d};
                    HS_UNROLL for (int p = 0; p < PATTERNS; p++) signed_sum[p][t] = low[p & 3] + high[p >> 2];
                } else {
                    signed_sum[1][t] = g[0][t] * op->scale;
                    signed_sum[0][t] = -signed_sum[1][t];
                }
            }
            for (; code != end; code++) {
                float *to = dx + (*code >> 4);
                const V *s = signed_sum[*code & 15];
                HS_UNROLL for (int t = 0; t < T; t++) STORE(to + t * WIDTH, LOAD(to + t * WIDTH) + s[t]);
            }
        } else {
            const float *w = op->weights + (int64_t)op->row_start[row] * B;
            for (; code != end; code++, w += B) {
                float *to = dx + (*code >> 4);
                V s[HS_TILE];
                HS_UNROLL for (int t = 0; t < T; t++) s[t] = LOAD(to + t * WIDTH);
                HS_UNROLL for (int b = 0; b < B; b++)
                    HS_UNROLL for (int t = 0; t < T; t++) s[t] += g[b][t] * w[b];
                HS_UNROLL for (int t = 0; t < T; t++) STORE(to + t * WIDTH, s[t]);
            }
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
#if HS_TILE > 3
TILE(4)
#endif

static void NAME(input_gradient)(const hs_op *op, float *dx, const float *dy, int64_t plane) {
    for (int64_t r = 0; r < op->runs; r++, dx += op->run_in, dy += op->run_out) {
        int64_t q = 0;
        for (; q + HS_TILE * WIDTH <= op->run; q += HS_TILE * WIDTH)
            NAME(HS_JOIN(HS_JOIN(input_gradient_tile, HS_TILE), _))(op, dx + q, dy + q, plane, 0);
        switch ((op->run - q) / WIDTH) {
        case 3: NAME(input_gradient_tile3_)(op, dx + q, dy + q, plane, 0); break;
        case 2: NAME(input_gradient_tile2_)(op, dx + q, dy + q, plane, 0); break;
        case 1: NAME(input_gradient_tile1_)(op, dx + q, dy + q, plane, 0); break;
        default: break;
        }
        /* What is left is shorter than a vector: the run's last vector, without the lanes already done. */
        const int64_t left = op->run % WIDTH, last = op->run - WIDTH;
        if (left) NAME(input_gradient_tile1_)(op, dx + last, dy + last, plane, (int)(WIDTH - left));
    }
}

#undef TILE
#undef V
#undef LOAD
#undef STORE
#undef FROM
#undef NAME
