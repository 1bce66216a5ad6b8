/* Group normalisation without affine weights: every sample by itself, so micro-batches add up to the batch exactly.
 *
 * Sums run over a row in float and over rows in double. What backward needs of the forward pass, every group's means
 * and inverse deviations, lies in the operation's `extra`: [group][mean, inverse deviation][lane].
 */
#include <math.h>

#include "network.h"
#include "vectors.h"

#define HS_NORM_EPSILON 1e-5

HS_INLINE void forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, const int LANES) {
    const int64_t channels = in->channels / op->groups;
    const double share = 1.0 / (double)(channels * in->height * in->width);
    float *moments = (float *)((uint8_t *)work + op->extra);
    for (int64_t g = 0; g < op->groups; g++, moments += 2 * LANES) {
        float *mean = moments, *inverse = moments + LANES;
        double sum[8] = {0}, squares[8] = {0};
        for (int64_t c = g * channels; c < (g + 1) * channels; c++)
            for (int64_t h = 0; h < in->height; h++) {
                const float *x = work + in->value + hs_row(in, c, h);
                float part[8] = {0};
                for (int64_t w = 0; w < in->width; w++, x += LANES)
                    HS_UNROLL for (int l = 0; l < LANES; l++) part[l] += x[l];
                HS_UNROLL for (int l = 0; l < LANES; l++) sum[l] += part[l];
            }
        HS_UNROLL for (int l = 0; l < LANES; l++) mean[l] = (float)(sum[l] * share);
        for (int64_t c = g * channels; c < (g + 1) * channels; c++)
            for (int64_t h = 0; h < in->height; h++) {
                const float *x = work + in->value + hs_row(in, c, h);
                float part[8] = {0};
                for (int64_t w = 0; w < in->width; w++, x += LANES)
                    HS_UNROLL for (int l = 0; l < LANES; l++) part[l] += (x[l] - mean[l]) * (x[l] - mean[l]);
                HS_UNROLL for (int l = 0; l < LANES; l++) squares[l] += part[l];
            }
        HS_UNROLL for (int l = 0; l < LANES; l++) inverse[l] = (float)(1 / sqrt(squares[l] * share + HS_NORM_EPSILON));
        for (int64_t c = g * channels; c < (g + 1) * channels; c++)
            for (int64_t h = 0; h < in->height; h++) {
                const float *x = work + in->value + hs_row(in, c, h);
                float *y = work + out->value + hs_row(out, c, h);
                for (int64_t w = 0; w < in->width; w++, x += LANES, y += LANES)
                    HS_UNROLL for (int l = 0; l < LANES; l++) {
                        const float v = (x[l] - mean[l]) * inverse[l];
                        y[l] = op->relu ? positive1(v, v) : v;
                    }
            }
    }
}

/* dx = (dy - mean(dy) - n mean(dy n)) / deviation, n the normalised value (Ioffe and Szegedy 2015, section 3). */
HS_INLINE void backward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, const int LANES) {
    const int64_t channels = in->channels / op->groups;
    const double share = 1.0 / (double)(channels * in->height * in->width);
    const float *moments = (const float *)((const uint8_t *)work + op->extra);
    for (int64_t g = 0; g < op->groups; g++, moments += 2 * LANES) {
        const float *mean = moments, *inverse = moments + LANES;
        double sum[8] = {0}, product[8] = {0};
        for (int64_t c = g * channels; c < (g + 1) * channels; c++)
            for (int64_t h = 0; h < in->height; h++) {
                const float *x = work + in->value + hs_row(in, c, h), *dy = work + out->gradient + hs_row(out, c, h);
                float s[8] = {0}, p[8] = {0};
                for (int64_t w = 0; w < in->width; w++, x += LANES, dy += LANES)
                    HS_UNROLL for (int l = 0; l < LANES; l++) {
                        s[l] += dy[l];
                        p[l] += dy[l] * (x[l] - mean[l]);
                    }
                HS_UNROLL for (int l = 0; l < LANES; l++) {
                    sum[l] += s[l];
                    product[l] += p[l];
                }
            }
        float centre[8], slope[8];
        HS_UNROLL for (int l = 0; l < LANES; l++) {
            centre[l] = (float)(sum[l] * share);
            slope[l] = (float)(product[l] * share * inverse[l] * inverse[l]);
        }
        for (int64_t c = g * channels; c < (g + 1) * channels; c++)
            for (int64_t h = 0; h < in->height; h++) {
                const float *x = work + in->value + hs_row(in, c, h), *dy = work + out->gradient + hs_row(out, c, h);
                float *dx = work + in->gradient + hs_row(in, c, h);
                for (int64_t w = 0; w < in->width; w++, x += LANES, dy += LANES, dx += LANES)
                    HS_UNROLL for (int l = 0; l < LANES; l++)
                        dx[l] = (dy[l] - centre[l] - (x[l] - mean[l]) * slope[l]) * inverse[l];
            }
    }
    hs_finish_gradient(in, work, LANES);
}

void hs_norm_forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    if (lanes == 8)
        forward(op, in, out, work, 8);
    else if (lanes == 4)
        forward(op, in, out, work, 4);
    else
        forward(op, in, out, work, 1);
}

void hs_norm_backward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    if (lanes == 8)
        backward(op, in, out, work, 8);
    else if (lanes == 4)
        backward(op, in, out, work, 4);
    else
        backward(op, in, out, work, 1);
}
