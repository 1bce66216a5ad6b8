/* Weight gradient over kept weights for one vector WIDTH; included by weight_gradient.c once per width.
 *
 * A chunk of the output gradient of one row group stays in the first-level cache while the group's
 * kept blocks pass over it, G at a time: each gradient vector loaded feeds G blocks, each input vector
 * all rows of its block.
 */
#define V HS_JOIN(vec, WIDTH)
#define LOAD HS_JOIN(load, WIDTH)
#define FROM HS_JOIN(from, WIDTH)
#define SUM HS_JOIN(sum, WIDTH)
#define SUMS HS_JOIN(sums, WIDTH)
#define NAME(x) HS_JOIN(x, WIDTH)

/* gradient[g][b] += sum over `runs` runs of `run` floats of x[offset g] * dy[b], for G codes. */
HS_INLINE void NAME(weight_gradient_group_)(const hs_op *op, const uint32_t *code, const float *x, const float *dy,
                                            int64_t plane, int64_t runs, int64_t run, float *gradient, const int B,
                                            const int G) {
    V sum[HS_TILE + 1][4];
    const float *from[HS_TILE + 1];
    HS_UNROLL for (int g = 0; g < G; g++) {
        from[g] = x + (code[g] >> 4);
        HS_UNROLL for (int b = 0; b < B; b++) sum[g][b] = (V){0};
    }
    const int64_t whole = run - run % WIDTH;
    for (int64_t r = 0; r < runs; r++) {
        for (int64_t q = 0; q < whole; q += WIDTH) {
            V d[4];
            HS_UNROLL for (int b = 0; b < B; b++) d[b] = LOAD(dy + b * plane + q);
            HS_UNROLL for (int g = 0; g < G; g++) {
                const V v = LOAD(from[g] + q);
                HS_UNROLL for (int b = 0; b < B; b++) sum[g][b] += v * d[b];
            }
        }
        if (whole != run) { /* the run's last vector, without the lanes already done */
            const int64_t q = run - WIDTH;
            HS_UNROLL for (int b = 0; b < B; b++) {
                const V d = FROM(LOAD(dy + b * plane + q), (int32_t)(whole - q));
                HS_UNROLL for (int g = 0; g < G; g++) sum[g][b] += LOAD(from[g] + q) * d;
            }
        }
        dy += op->run_out;
        HS_UNROLL for (int g = 0; g < G; g++) from[g] += op->run_in;
    }
    HS_UNROLL for (int g = 0; g < G; g++) {
        if (B == 4)
            store4(gradient + g * 4, load4(gradient + g * 4) + SUMS(sum[g][0], sum[g][1], sum[g][2], sum[g][3]));
        else
            gradient[g] += SUM(sum[g][0]);
    }
}

/* All row groups over one chunk. */
HS_INLINE void NAME(weight_gradient_chunk_)(const hs_op *op, const float *x, const float *dy, int64_t plane,
                                            int64_t runs, int64_t run, float *gradient, const int B, const int G) {
    for (int64_t row = 0; row < op->rows; row++, dy += B * plane) {
        const uint32_t *code = op->code + op->row_start[row], *end = op->code + op->row_start[row + 1];
        for (; code + G <= end; code += G, gradient += G * B)
            NAME(weight_gradient_group_)(op, code, x, dy, plane, runs, run, gradient, B, G);
        for (; code < end; code++, gradient += B)
            NAME(weight_gradient_group_)(op, code, x, dy, plane, runs, run, gradient, B, 1);
    }
}

static void NAME(weight_gradient)(const hs_op *op, const float *x, const float *dy, int64_t plane, float *gradient) {
    /* Long runs are cut into chunks; short runs are taken several at a time, up to the same size. */
    const int64_t cut = op->run_chunk < op->run ? op->run_chunk - op->run_chunk % WIDTH : op->run;
    const int64_t together = cut < op->run ? 1 : op->run_chunk / op->run;
    for (int64_t r = 0; r < op->runs; r += together) {
        const int64_t runs = op->runs - r < together ? op->runs - r : together;
        for (int64_t q = 0; q < op->run;) {
            int64_t run = op->run - q < cut + WIDTH ? op->run - q : cut; /* never a rest shorter than a vector */
            const float *from = x + r * op->run_in + q, *g = dy + r * op->run_out + q;
            if (op->block == 4)
                NAME(weight_gradient_chunk_)(op, from, g, plane, runs, run, gradient, 4, HS_TILE);
            else
                NAME(weight_gradient_chunk_)(op, from, g, plane, runs, run, gradient, 1, HS_TILE + 1);
            q += run;
        }
    }
}

#undef V
#undef LOAD
#undef FROM
#undef SUM
#undef SUMS
#undef NAME
