/* Activations that are not part of the operation before them. Their derivatives need their input. */
#include <math.h>

#include "network.h"
#include "vectors.h"

#define HS_SQRT_HALF 0.70710678118654752f
#define HS_NORMAL_AT_0 0.39894228040143268f /* 1 / sqrt(2 pi) */

HS_INLINE float value_of(float x, const int function) {
    switch (function) {
    case HS_RELU6: return x > 0 ? (x < 6 ? x : 6) : 0;
    case HS_HARDSWISH: {
        const float gate = x + 3;
        return x * (gate > 0 ? (gate < 6 ? gate : 6) : 0) * (1.0f / 6);
    }
    case HS_GELU: return 0.5f * x * (1 + erff(x * HS_SQRT_HALF));
    default: return x > 0 ? x : 0;
    }
}

HS_INLINE float slope_of(float x, const int function) {
    switch (function) {
    case HS_RELU6: return x > 0 && x < 6;
    case HS_HARDSWISH: return x <= -3 ? 0 : x < 3 ? x * (1.0f / 3) + 0.5f : 1;
    case HS_GELU: return 0.5f * (1 + erff(x * HS_SQRT_HALF)) + x * HS_NORMAL_AT_0 * expf(-0.5f * x * x);
    default: return x > 0;
    }
}

HS_INLINE void values(const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes, const int function) {
    for (int64_t c = 0; c < in->channels; c++)
        for (int64_t h = 0; h < in->height; h++) {
            const float *x = work + in->value + hs_row(in, c, h);
            float *y = work + out->value + hs_row(out, c, h);
            for (int64_t i = 0; i < in->width * lanes; i++) y[i] = value_of(x[i], function);
        }
}

HS_INLINE void slopes(const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes, const int function) {
    for (int64_t c = 0; c < in->channels; c++)
        for (int64_t h = 0; h < in->height; h++) {
            const float *x = work + in->value + hs_row(in, c, h);
            const float *dy = work + out->gradient + hs_row(out, c, h);
            float *dx = work + in->gradient + hs_row(in, c, h);
            for (int64_t i = 0; i < in->width * lanes; i++) dx[i] = dy[i] * slope_of(x[i], function);
        }
}

void hs_pointwise_forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    switch (op->function) {
    case HS_RELU6: values(in, out, work, lanes, HS_RELU6); break;
    case HS_HARDSWISH: values(in, out, work, lanes, HS_HARDSWISH); break;
    case HS_GELU: values(in, out, work, lanes, HS_GELU); break;
    default: values(in, out, work, lanes, HS_RELU); break;
    }
}

void hs_pointwise_backward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    switch (op->function) {
    case HS_RELU6: slopes(in, out, work, lanes, HS_RELU6); break;
    case HS_HARDSWISH: slopes(in, out, work, lanes, HS_HARDSWISH); break;
    case HS_GELU: slopes(in, out, work, lanes, HS_GELU); break;
    default: slopes(in, out, work, lanes, HS_RELU); break;
    }
    hs_finish_gradient(in, work, lanes);
}
