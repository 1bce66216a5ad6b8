/* Linear layers, where a kept weight meets a single vector of lanes and the walk itself is the cost.
 *
 * Here the four rows of a block are the lanes of a vector instead, so that no sum across lanes is left.
 */
#include "network.h"
#include "vectors.h"

/* One sample: y[4 rows] = sum over kept k of w[k][4 rows] * x[offset k]. */
void hs_linear_forward(const hs_op *op, const float *x, float *y, int64_t plane) {
    for (int64_t row = 0; row < op->rows; row++, y += 4 * plane) {
        const uint32_t *code = op->code + op->row_start[row], *end = op->code + op->row_start[row + 1];
        const float *w = op->constant ? op->table : op->weights + (int64_t)op->row_start[row] * 4;
        vec4 even = {0}, odd = {0};
        if (op->constant) {
            for (; code + 2 <= end; code += 2) {
                even += load4(w + (code[0] & 15) * 4) * x[code[0] >> 4];
                odd += load4(w + (code[1] & 15) * 4) * x[code[1] >> 4];
            }
            if (code < end) even += load4(w + (*code & 15) * 4) * x[*code >> 4];
        } else {
            for (; code < end; code++, w += 4) even += load4(w) * x[*code >> 4];
        }
        even += odd;
        if (op->relu) even = positive4(even, even);
        for (int b = 0; b < 4; b++) y[b * plane] = even[b];
    }
}

HS_INLINE void weight_gradient(const hs_op *op, const float *x, const float *dy, int64_t plane, float *gradient,
                               const int LANES) {
    for (int64_t row = 0; row < op->rows; row++, dy += 4 * plane) {
        const uint32_t *code = op->code + op->row_start[row], *end = op->code + op->row_start[row + 1];
        vec4 d[8]; /* the group's output gradient, a vector of its 4 rows per lane */
        HS_UNROLL for (int l = 0; l < LANES; l++)
            d[l] = (vec4){dy[l], dy[plane + l], dy[2 * plane + l], dy[3 * plane + l]};
        for (; code < end; code++, gradient += 4) {
            const float *from = x + (*code >> 4);
            vec4 even = load4(gradient), odd = {0};
            HS_UNROLL for (int l = 0; l < LANES; l += 2) even += d[l] * from[l];
            HS_UNROLL for (int l = 1; l < LANES; l += 2) odd += d[l] * from[l];
            store4(gradient, even + odd);
        }
    }
}

/* gradient[k][4 rows] += sum over lanes of x[offset k][lane] * dy[4 rows][lane]; lanes are 1, 4 or 8. */
void hs_linear_weight_gradient(const hs_op *op, const float *x, const float *dy, int64_t plane, float *gradient) {
    if (op->run == 8)
        weight_gradient(op, x, dy, plane, gradient, 8);
    else if (op->run == 4)
        weight_gradient(op, x, dy, plane, gradient, 4);
    else
        weight_gradient(op, x, dy, plane, gradient, 1);
}
