/* Forward over kept weights: every width of vector, the widest that a run fills is used. */
#include "network.h"
#include "vectors.h"

#define WIDTH 1
#include "forward_tile.h"
#undef WIDTH
#define WIDTH 4
#include "forward_tile.h"
#undef WIDTH
#if HS_WIDTH >= 8
#define WIDTH 8
#include "forward_tile.h"
#undef WIDTH
#endif
#if HS_WIDTH >= 16
#define WIDTH 16
#include "forward_tile.h"
#undef WIDTH
#endif

void hs_sparse_forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work) {
    const float *x = work + in->value;
    float *y = work + out->value + out->interior;
    if (op->block == 4 && op->runs == 1 && op->run == 1) {
        hs_linear_forward(op, x, y, out->plane);
        return;
    }
#if HS_WIDTH >= 16
    if (op->run >= 16) {
        forward16(op, x, y, out->plane);
        return;
    }
#endif
#if HS_WIDTH >= 8
    if (op->run >= 8) {
        forward8(op, x, y, out->plane);
        return;
    }
#endif
    if (op->run >= 4)
        forward4(op, x, y, out->plane);
    else
        forward1(op, x, y, out->plane);
}
