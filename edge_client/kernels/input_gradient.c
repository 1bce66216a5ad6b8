/* Input gradient over kept weights, scattered: the same walk as the forward pass, writing where it reads. */
#include "network.h"
#include "vectors.h"

#define WIDTH 1
#include "input_gradient_tile.h"
#undef WIDTH
#define WIDTH 4
#include "input_gradient_tile.h"
#undef WIDTH
#if HS_WIDTH >= 8
#define WIDTH 8
#include "input_gradient_tile.h"
#undef WIDTH
#endif
#if HS_WIDTH >= 16
#define WIDTH 16
#include "input_gradient_tile.h"
#undef WIDTH
#endif

static void scatter(const hs_op *op, float *dx, const float *dy, int64_t plane, int64_t runs, int64_t run) {
#if HS_WIDTH >= 16
    if (run >= 16) {
        input_gradient16(op, dx, dy, plane, runs, run);
        return;
    }
#endif
#if HS_WIDTH >= 8
    if (run >= 8) {
        input_gradient8(op, dx, dy, plane, runs, run);
        return;
    }
#endif
    if (run >= 4)
        input_gradient4(op, dx, dy, plane, runs, run);
    else
        input_gradient1(op, dx, dy, plane, runs, run);
}

/* Zero [from, to) of every channel, and in [done, ready) keep the gradient only where a ReLU let the value pass. */
static void zero_and_mask(const hs_tensor *t, const float *value, float *dx, int64_t from, int64_t to, int64_t done,
                          int64_t ready, int mask) {
    for (int64_t c = 0; c < t->channels; c++, value += t->plane, dx += t->plane) {
        if (to > from) memset(dx + from, 0, (size_t)(to - from) * sizeof(float));
        if (!mask) continue;
        int64_t i = done;
        for (; i + HS_WIDTH <= ready; i += HS_WIDTH)
            HS_JOIN(store, HS_WIDTH)(dx + i, HS_JOIN(positive, HS_WIDTH)(HS_JOIN(load, HS_WIDTH)(value + i),
                                                                         HS_JOIN(load, HS_WIDTH)(dx + i)));
        for (; i < ready; i++) dx[i] = positive1(value[i], dx[i]);
    }
}

/*
 * In bands of rows: what a band will write is zeroed just before, and what no later band can reach is
 * masked just after, so that all three happen in the second-level cache and not in three passes over memory.
 */
void hs_sparse_input_gradient(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    enum { BAND = 256 }; /* floats of one channel */
    const float *value = work + in->value, *dy = work + out->gradient + out->interior;
    float *dx = work + in->gradient;
    const int64_t reach = in->plane - (op->runs - 1) * op->run_in - op->run; /* the farthest offset within a plane */
    const int64_t together = op->run_in > 0 && op->run_in < BAND ? BAND / op->run_in : 1;
    const int64_t cut = op->runs == 1 ? BAND : op->run;
    int64_t zeroed = 0, done = 0;
    if (op->runs <= together && op->run < cut + HS_WIDTH) { /* one band, as in a linear layer */
        memset(dx, 0, (size_t)(in->channels * in->plane) * sizeof(float));
        scatter(op, dx, dy, out->plane, op->runs, op->run);
        hs_finish_gradient(in, work, lanes);
        return;
    }
    for (int64_t r = 0; r < op->runs; r += together) {
        const int64_t runs = op->runs - r < together ? op->runs - r : together;
        for (int64_t q = 0; q < op->run;) {
            const int64_t run = op->run - q < cut + HS_WIDTH ? op->run - q : cut; /* no rest shorter than a vector */
            const int64_t start = r * op->run_in + q, end = start + (runs - 1) * op->run_in + run + reach;
            zero_and_mask(in, value, dx, zeroed, end, done, start, (int)in->cut);
            scatter(op, dx + start, dy + r * op->run_out + q, out->plane, runs, run);
            zeroed = end;
            done = start;
            q += run;
        }
    }
    zero_and_mask(in, value, dx, zeroed, in->plane, done, in->plane, (int)in->cut);
    if (!(int)in->cut) hs_clear_padding(in, dx, lanes);
}
