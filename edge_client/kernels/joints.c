/* Where branches meet and part: sums, concatenated channels, copies to other sides, views of one tensor. */
#include "network.h"
#include "vectors.h"

void hs_add_forward(const hs_op *op, const hs_tensor *tensor, float *work, int64_t lanes) {
    const hs_tensor *a = &tensor[op->input], *b = &tensor[op->second], *out = &tensor[op->output];
    const int64_t run = out->width * lanes;
    for (int64_t c = 0; c < out->channels; c++)
        for (int64_t h = 0; h < out->height; h++) {
            const float *x = work + a->value + hs_row(a, c, h), *z = work + b->value + hs_row(b, c, h);
            float *y = work + out->value + hs_row(out, c, h);
            if (op->relu)
                for (int64_t i = 0; i < run; i++) y[i] = positive1(x[i] + z[i], x[i] + z[i]);
            else
                for (int64_t i = 0; i < run; i++) y[i] = x[i] + z[i];
        }
}

/* Gradient of one operand whose channels are those of the output from `first` on. */
static void take_gradient(const hs_tensor *t, const hs_tensor *out, int64_t first, float *work, int64_t lanes) {
    if (t->gradient < 0) return;
    for (int64_t c = 0; c < t->channels; c++)
        for (int64_t h = 0; h < t->height; h++)
            memcpy(work + t->gradient + hs_row(t, c, h), work + out->gradient + hs_row(out, first + c, h),
                   (size_t)(t->width * lanes) * sizeof(float));
    hs_finish_gradient(t, work, lanes);
}

void hs_add_backward(const hs_op *op, const hs_tensor *tensor, float *work, int64_t lanes) {
    take_gradient(&tensor[op->input], &tensor[op->output], 0, work, lanes);
    take_gradient(&tensor[op->second], &tensor[op->output], 0, work, lanes);
}

void hs_concat_forward(const hs_op *op, const hs_tensor *tensor, float *work, int64_t lanes) {
    const hs_tensor *out = &tensor[op->output], *parts[2] = {&tensor[op->input], &tensor[op->second]};
    for (int p = 0; p < 2; p++) {
        const int64_t first = p ? parts[0]->channels : 0;
        for (int64_t c = 0; c < parts[p]->channels; c++)
            for (int64_t h = 0; h < out->height; h++)
                memcpy(work + out->value + hs_row(out, first + c, h), work + parts[p]->value + hs_row(parts[p], c, h),
                       (size_t)(out->width * lanes) * sizeof(float));
    }
}

void hs_concat_backward(const hs_op *op, const hs_tensor *tensor, float *work, int64_t lanes) {
    const hs_tensor *out = &tensor[op->output];
    take_gradient(&tensor[op->input], out, 0, work, lanes);
    take_gradient(&tensor[op->second], out, tensor[op->input].channels, work, lanes);
}

/* Elements in row-major order: a flattened tensor that something else than a linear layer reads. */
void hs_copy_forward(const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    int64_t e = 0;
    for (int64_t c = 0; c < in->channels; c++)
        for (int64_t h = 0; h < in->height; h++)
            for (int64_t w = 0; w < in->width; w++, e++)
                memcpy(work + out->value + hs_row(out, e, 0), work + in->value + hs_row(in, c, h) + w * lanes,
                       (size_t)lanes * sizeof(float));
}

void hs_copy_backward(const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    int64_t e = 0;
    for (int64_t c = 0; c < in->channels; c++)
        for (int64_t h = 0; h < in->height; h++)
            for (int64_t w = 0; w < in->width; w++, e++)
                memcpy(work + in->gradient + hs_row(in, c, h) + w * lanes, work + out->gradient + hs_row(out, e, 0),
                       (size_t)lanes * sizeof(float));
    hs_finish_gradient(in, work, lanes);
}

/* A view's reader has left its gradient apart from that of the tensor's own reader. */
void hs_split_backward(const hs_tensor *whole, const hs_tensor *view, float *work) {
    float *restrict to = work + whole->gradient;
    const float *restrict from = work + view->gradient;
    for (int64_t i = 0; i < whole->channels * whole->plane; i++) to[i] += from[i];
}
