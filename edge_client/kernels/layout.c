/* Getting samples into lanes, keeping padding zero, and taking strides apart. */
#include "network.h"
#include "vectors.h"

/* x (samples, channels, height, width) -> lanes; lanes without a sample, or with weight 0, are zeros. */
void hs_pack(const hs_tensor *t, float *work, const float *x, const float *weights, int64_t samples, int64_t lanes,
             int relu) {
    const int64_t size = t->channels * t->height * t->width;
    for (int64_t l = 0; l < lanes; l++) {
        const int empty = l >= samples || (weights && weights[l] == 0);
        const float *from = x + l * size;
        for (int64_t c = 0; c < t->channels; c++)
            for (int64_t h = 0; h < t->height; h++) {
                float *to = work + t->value + t->interior + c * t->plane + h * t->pitch + l;
                for (int64_t w = 0; w < t->width; w++, to += lanes) {
                    const float v = empty ? 0 : *from++;
                    *to = relu && !(v > 0) ? 0 : v;
                }
            }
    }
    hs_clear_padding(t, work + t->value, lanes);
}

/* Zero everything in a tensor that is not a real element. */
void hs_clear_padding(const hs_tensor *t, float *base, int64_t lanes) {
    const int64_t real = t->width * lanes;
    const int64_t end = t->interior + (t->height - 1) * t->pitch + real;
    if (real * t->height == t->plane) return;
    for (int64_t c = 0; c < t->channels; c++, base += t->plane) {
        memset(base, 0, (size_t)t->interior * sizeof(float));
        for (int64_t h = 1; h < t->height; h++)
            memset(base + t->interior + (h - 1) * t->pitch + real, 0, (size_t)(t->pitch - real) * sizeof(float));
        memset(base + end, 0, (size_t)(t->plane - end) * sizeof(float));
    }
}

/* Complete the gradient of an operation's input: 0 where a ReLU had cut it, and 0 in the padding. */
void hs_finish_gradient(const hs_tensor *t, float *work, int64_t lanes) {
    if (!t->cut) {
        hs_clear_padding(t, work + t->gradient, lanes);
        return;
    }
    const float *value = work + t->value; /* 0 in the padding, so this clears it too */
    float *gradient = work + t->gradient;
    const int64_t size = t->channels * t->plane;
    int64_t i = 0;
    for (; i + 16 <= size; i += 16) store16(gradient + i, positive16(load16(value + i), load16(gradient + i)));
    for (; i < size; i++) gradient[i] = positive1(value[i], gradient[i]);
}

/*
 * A convolution of stride s reads every s-th element. Its input is copied into s_h x s_w phases,
 * (channel, row mod s_h, column mod s_w), over which it is a convolution of stride 1.
 */
HS_INLINE int64_t phase_of(const hs_op *op, const hs_tensor *phases, int64_t c, int64_t h, int64_t w, int64_t lanes) {
    const int64_t row = h + op->padding_h, column = w + op->padding_w;
    const int64_t channel = (c * op->stride_h + row % op->stride_h) * op->stride_w + column % op->stride_w;
    return channel * phases->plane + row / op->stride_h * phases->pitch + column / op->stride_w * lanes;
}

void hs_phases_forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    memset(work + out->value, 0, (size_t)(out->channels * out->plane) * sizeof(float));
    for (int64_t c = 0; c < in->channels; c++)
        for (int64_t h = 0; h < in->height; h++) {
            const float *from = work + in->value + in->interior + c * in->plane + h * in->pitch;
            for (int64_t w = 0; w < in->width; w++, from += lanes)
                memcpy(work + out->value + phase_of(op, out, c, h, w, lanes), from, (size_t)lanes * sizeof(float));
        }
}

void hs_phases_backward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    for (int64_t c = 0; c < in->channels; c++)
        for (int64_t h = 0; h < in->height; h++) {
            float *to = work + in->gradient + in->interior + c * in->plane + h * in->pitch;
            for (int64_t w = 0; w < in->width; w++, to += lanes)
                memcpy(to, work + out->gradient + phase_of(op, out, c, h, w, lanes), (size_t)lanes * sizeof(float));
        }
    hs_finish_gradient(in, work, lanes);
}
