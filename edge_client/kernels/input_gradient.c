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

void hs_sparse_input_gradient(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work) {
    float *dx = work + in->gradient;
    const float *dy = work + out->gradient + out->interior;
    memset(dx, 0, (size_t)(in->channels * in->plane) * sizeof(float));
#if HS_WIDTH >= 16
    if (op->run >= 16) {
        input_gradient16(op, dx, dy, out->plane);
        return;
    }
#endif
#if HS_WIDTH >= 8
    if (op->run >= 8) {
        input_gradient8(op, dx, dy, out->plane);
        return;
    }
#endif
    if (op->run >= 4)
        input_gradient4(op, dx, dy, out->plane);
    else
        input_gradient1(op, dx, dy, out->plane);
}
