/* What Python calls: steps, gradients and logits of whole batches, a micro-batch of lanes at a time. */
#include <float.h>
#include <time.h>

#include "network.h"
#include "vectors.h"

/*
 * Numbers too small to be normal floats take a hundred times as long, and appear wherever training has
 * converged (Adam squares its gradients): while the kernels run they count as 0. Returns what to restore.
 */
uint64_t hs_flush_denormals(void) {
#if defined(__x86_64__)
    const uint32_t old = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(old | 0x8040); /* flush results to zero, take operands as zero */
    return old;
#elif defined(__aarch64__)
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old | 1u << 24));
    return old;
#else
    return 0; /* 32-bit NEON always does so */
#endif
}

void hs_restore_denormals(uint64_t old) {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr((uint32_t)old);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(old));
#else
    (void)old;
#endif
}

/* Adds the time since `since` to entry (operation, part) when somebody asked for it; returns now. */
static double clocked(const hs_network *net, int64_t operation, int part, double since) {
    if (!net->seconds) return 0;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    if (since > 0) net->seconds[operation * 3 + part] += seconds - since;
    return seconds;
}

static void forward(hs_network *net, const float *x, const float *weights, int64_t samples) {
    float *work = net->workspace;
    double since = clocked(net, 0, 0, 0);
    hs_pack(&net->tensor[0], work, x, weights, samples, net->lanes, net->input_relu);
    since = clocked(net, net->operations, 0, since);
    for (int64_t i = 0; i < net->operations; i++) {
        const hs_op *op = &net->ops[i];
        if (op->kind == HS_SPLIT) continue; /* a view has its tensor's values */
        const hs_tensor *in = &net->tensor[op->input], *out = &net->tensor[op->output];
        switch (op->kind) {
        case HS_SPARSE: hs_sparse_forward(op, in, out, work); break;
        case HS_PHASES: hs_phases_forward(op, in, out, work, net->lanes); break;
        case HS_ADD: hs_add_forward(op, net->tensor, work, net->lanes); break;
        case HS_CONCAT: hs_concat_forward(op, net->tensor, work, net->lanes); break;
        case HS_POINTWISE: hs_pointwise_forward(op, in, out, work, net->lanes); break;
        case HS_NORM: hs_norm_forward(op, in, out, work, net->lanes); break;
        case HS_COPY: hs_copy_forward(in, out, work, net->lanes); break;
        default: hs_pool_forward(op, in, out, work, net->lanes); break;
        }
        if (op->kind != HS_PHASES) hs_clear_padding(out, work + out->value, net->lanes);
        since = clocked(net, i, 0, since);
    }
}

static void input_gradient(hs_network *net, const hs_op *op, const hs_tensor *in, const hs_tensor *out) {
    float *work = net->workspace;
    switch (op->kind) {
    case HS_SPARSE: hs_sparse_input_gradient(op, in, out, work, net->lanes); break;
    case HS_PHASES: hs_phases_backward(op, in, out, work, net->lanes); break;
    case HS_POINTWISE: hs_pointwise_backward(op, in, out, work, net->lanes); break;
    case HS_NORM: hs_norm_backward(op, in, out, work, net->lanes); break;
    case HS_COPY: hs_copy_backward(in, out, work, net->lanes); break;
    default: hs_pool_backward(op, in, out, work, net->lanes); break;
    }
}

static void backward(hs_network *net) {
    float *work = net->workspace;
    const hs_tensor *last = &net->tensor[net->logits];
    double since = clocked(net, 0, 0, 0);
    hs_clear_padding(last, work + last->gradient, net->lanes);
    for (int64_t i = net->operations - 1; i >= 0; i--) {
        const hs_op *op = &net->ops[i];
        const hs_tensor *in = &net->tensor[op->input], *out = &net->tensor[op->output];
        if (op->kind == HS_SPARSE) hs_sparse_weight_gradient(op, in, out, work, net->gradient);
        since = clocked(net, i, 1, since);
        if (out->gradient < 0) continue; /* no weights before this operation */
        switch (op->kind) {
        case HS_ADD: hs_add_backward(op, net->tensor, work, net->lanes); break;
        case HS_CONCAT: hs_concat_backward(op, net->tensor, work, net->lanes); break;
        case HS_SPLIT: hs_split_backward(in, &net->tensor[op->second], work); break;
        default:
            if (in->gradient < 0) continue;
            input_gradient(net, op, in, out);
        }
        since = clocked(net, i, 2, since);
    }
}

/*
 * Loss and dloss/dw of micro-batches first, first + step, ... of a batch. Micro-batches add up to exactly
 * the batch's gradient, since each is weighted by its share of the batch's sample weights.
 */
void hs_accumulate(hs_network *net, const float *x, const int64_t *y, const float *weights, int64_t n,
                   double weight_sum, int64_t first, int64_t step, hs_result *result) {
    const hs_tensor *t = &net->tensor[0];
    const int64_t size = t->channels * t->height * t->width;
    result->loss = result->correct = 0;
    memset(net->gradient, 0, (size_t)net->kept * sizeof(float));
    for (int64_t i = first * net->lanes; i < n; i += step * net->lanes) {
        const int64_t samples = n - i < net->lanes ? n - i : net->lanes;
        forward(net, x + i * size, weights + i, samples);
        const double since = clocked(net, 0, 0, 0);
        hs_loss(net, y + i, weights + i, weight_sum, samples, result);
        clocked(net, net->operations, 1, since);
        backward(net);
    }
}

static void whole_batch(hs_network *net, const float *x, const int64_t *y, const float *weights, int64_t n,
                        hs_result *result) {
    double weight_sum = 0;
    for (int64_t i = 0; i < n; i++) weight_sum += weights[i];
    if (net->team && n > net->lanes)
        hs_team_accumulate(net->team, x, y, weights, n, weight_sum, result);
    else
        hs_accumulate(net, x, y, weights, n, weight_sum, 0, 1, result);
}

/* 0; or 1 if a label is no class, 2 if a sample weight is negative or not finite, or all are 0. */
static int64_t batch_fault(const hs_network *net, const int64_t *y, const float *weights, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (y[i] < 0 || y[i] >= net->classes) return 1;
        if (!(weights[i] >= 0 && weights[i] <= FLT_MAX)) return 2;
        sum += weights[i];
    }
    return sum > 0 ? 0 : 2;
}

int64_t hs_step(hs_network *net, const float *x, const int64_t *y, const float *weights, int64_t n, hs_result *result) {
    const int64_t fault = batch_fault(net, y, weights, n);
    if (fault) return fault;
    const uint64_t mode = hs_flush_denormals();
    whole_batch(net, x, y, weights, n, result);
    const double since = clocked(net, 0, 0, 0);
    hs_optimise(net);
    hs_binarise(net);
    clocked(net, net->operations, 2, since);
    hs_restore_denormals(mode);
    return 0;
}

int64_t hs_gradient(hs_network *net, const float *x, const int64_t *y, const float *weights, int64_t n,
                    hs_result *result, float *gradient) {
    const int64_t fault = batch_fault(net, y, weights, n);
    if (fault) return fault;
    const uint64_t mode = hs_flush_denormals();
    whole_batch(net, x, y, weights, n, result);
    hs_score_gradient(net, gradient);
    hs_restore_denormals(mode);
    return 0;
}

void hs_logits(hs_network *net, const float *x, int64_t n, float *logits) {
    const hs_tensor *first = &net->tensor[0], *last = &net->tensor[net->logits];
    const int64_t size = first->channels * first->height * first->width;
    const uint64_t mode = hs_flush_denormals();
    for (int64_t i = 0; i < n; i += net->lanes) {
        const int64_t samples = n - i < net->lanes ? n - i : net->lanes;
        forward(net, x + i * size, NULL, samples);
        const float *z = net->workspace + last->value + last->interior;
        for (int64_t l = 0; l < samples; l++)
            for (int64_t k = 0; k < net->classes; k++) *logits++ = z[net->class_offset[k] + l];
    }
    hs_restore_denormals(mode);
}

/* New scores are in place: forget the optimiser's state and take their signs. */
void hs_load_scores(hs_network *net) {
    net->steps = 0;
    memset(net->first, 0, (size_t)net->kept * sizeof(float));
    if (net->second) memset(net->second, 0, (size_t)net->kept * sizeof(float));
    hs_binarise(net);
}
