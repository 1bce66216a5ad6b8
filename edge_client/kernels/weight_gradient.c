/* Weight gradient over kept weights: one dot product of an input run and an output run per kept weight. */
#include "network.h"
#include "vectors.h"

#define WIDTH 1
#include "weight_gradient_tile.h"
#undef WIDTH
#define WIDTH 4
#include "weight_gradient_tile.h"
#undef WIDTH
#if HS_WIDTH >= 8
#define WIDTH 8
#include "weight_gradient_tile.h"
#undef WIDTH
#endif
#if HS_WIDTH >= 16
#define WIDTH 16
#include "weight_gradient_tile.h"
#undef WIDTH
#endif

void hs_sparse_weight_gradient(const hs_op *op, const hs_tensor *in, const hs_tensor *out, const float *work,
                               float *gradient) {
    const float *x = work + in->value;
    const float *dy = work + out->gradient + out->interior;
    gradient += op->start;
    if (op->block == 4 && op->runs == 1 && (op->run == 8 || op->run == 4 || op->run == 1)) {
        hs_linear_weight_gradient(op, x, dy, out->plane, gradient);
        return;
    }
#if HS_WIDTH >= 16
    if (op->run >= 16) {
        weight_gradient16(op, x, dy, out->plane, gradient);
        return;
    }
#endif
#if HS_WIDTH >= 8
    if (op->run >= 8) {
        weight_gradient8(op, x, dy, out->plane, gradient);
        return;
    }
#endif
    if (op->run >= 4)
        weight_gradient4(op, x, dy, out->plane, gradient);
    else
        weight_gradient1(op, x, dy, out->plane, gradient);
}
