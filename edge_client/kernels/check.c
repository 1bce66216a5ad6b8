/* Every index and distance is checked once, at load, so that the kernels need not. */
#include "network.h"
#include "vectors.h"

static int fits(const hs_tensor *t, int64_t at, int64_t floats) {
    const int64_t end = t->interior + (t->height - 1) * t->pitch + t->width;
    return at >= 0 && t->channels > 0 && t->height > 0 && t->width > 0 && t->interior >= 0 && end <= t->plane &&
           at + t->channels * t->plane <= floats;
}

static int sparse_fits(const hs_network *net, const hs_op *op) {
    const hs_tensor *in = &net->tensor[op->input], *out = &net->tensor[op->output];
    const int64_t size = in->channels * in->plane;
    const int64_t reach = (op->runs - 1) * op->run_in + op->run; /* floats one kept weight walks over */
    if (op->block != 1 && op->block != 4) return 0;
    if (op->rows * op->block != out->channels || op->start < 0 || op->start + op->kept > net->kept) return 0;
    if (op->run < 1 || op->runs < 1 || op->run_in < 0 || op->run_out < 0 || op->run_chunk < 32) return 0;
    if (out->interior + (op->runs - 1) * op->run_out + op->run > out->plane) return 0;
    if (op->row_start[0] != 0 || (int64_t)op->row_start[op->rows] * op->block != op->kept) return 0;
    for (int64_t r = 0; r < op->rows; r++)
        if (op->row_start[r] > op->row_start[r + 1]) return 0;
    for (int64_t k = 0; k < op->kept / op->block; k++) {
        if ((int64_t)(op->code[k] >> 4) + reach > size) return 0;
        if (op->initial[k] >> op->block) return 0;
    }
    return 1;
}

static int extra_fits(const hs_network *net, const hs_op *op, int64_t bytes) {
    return op->extra >= 0 && op->extra % 4 == 0 && op->extra + bytes <= net->workspace_floats * 4;
}

static int pool_fits(const hs_network *net, const hs_op *op) {
    const hs_tensor *in = &net->tensor[op->input], *out = &net->tensor[op->output];
    const int64_t window = (int64_t)op->kernel_h * op->kernel_w;
    if (op->kernel_h < 1 || op->kernel_w < 1 || op->stride_h < 1 || op->stride_w < 1) return 0;
    if (in->channels != out->channels) return 0;
    if ((out->height - 1) * op->stride_h + op->kernel_h > in->height) return 0;
    if ((out->width - 1) * op->stride_w + op->kernel_w > in->width) return 0;
    if (op->kind == HS_AVERAGE_POOL) return 1;
    if (op->place_size != 1 && op->place_size != 2 && op->place_size != 4) return 0;
    if (op->place_size < 4 && window > (int64_t)1 << (8 * op->place_size)) return 0;
    return extra_fits(net, op, out->channels * out->height * out->width * net->lanes * op->place_size);
}

static int phases_fit(const hs_network *net, const hs_op *op) {
    const hs_tensor *in = &net->tensor[op->input], *out = &net->tensor[op->output];
    if (op->stride_h < 1 || op->stride_w < 1 || op->padding_h < 0 || op->padding_w < 0) return 0;
    return out->channels == in->channels * op->stride_h * op->stride_w &&
           (in->height - 1 + op->padding_h) / op->stride_h < out->height &&
           (in->width - 1 + op->padding_w) / op->stride_w < out->width && out->interior == 0;
}

static int same_sides(const hs_tensor *a, const hs_tensor *b) { return a->height == b->height && a->width == b->width; }

/* Operations that walk over elements. */
static int elements_fit(const hs_network *net, const hs_op *op) {
    const hs_tensor *in = &net->tensor[op->input], *out = &net->tensor[op->output];
    const hs_tensor *second = &net->tensor[op->second < 0 ? op->input : op->second];
    switch (op->kind) {
    case HS_ADD:
        return op->second >= 0 && in->channels == out->channels && second->channels == out->channels &&
               same_sides(in, out) && same_sides(second, out);
    case HS_CONCAT:
        return op->second >= 0 && in->channels + second->channels == out->channels && same_sides(in, out) &&
               same_sides(second, out);
    case HS_POINTWISE: return in->channels == out->channels && same_sides(in, out);
    case HS_NORM:
        return in->channels == out->channels && same_sides(in, out) && op->groups > 0 &&
               in->channels % op->groups == 0 &&
               extra_fits(net, op, 2 * op->groups * net->lanes * (int64_t)sizeof(float));
    case HS_COPY: return out->channels == in->channels * in->height * in->width && out->height == 1 && out->width == 1;
    case HS_SPLIT:
        return op->second >= 0 && op->output == op->input && in->gradient >= 0 && second->gradient >= 0 &&
               second->value == in->value && second->channels == in->channels && second->plane == in->plane;
    default: return 0;
    }
}

static int operation_fits(const hs_network *net, const hs_op *op) {
    if (op->input < 0 || op->input >= net->tensors || op->output < 0 || op->output >= net->tensors) return 0;
    if (op->second < -1 || op->second >= net->tensors) return 0;
    switch (op->kind) {
    case HS_SPARSE: return sparse_fits(net, op);
    case HS_PHASES: return phases_fit(net, op);
    case HS_MAX_POOL:
    case HS_AVERAGE_POOL: return pool_fits(net, op);
    default: return elements_fit(net, op);
    }
}

/* 0 when every access of every operation lies inside its tensor; else 1 + the number of what does not fit. */
int64_t hs_check(const hs_network *net) {
    if (net->logits < 0 || net->logits >= net->tensors || net->tensor[net->logits].gradient < 0) return 1000;
    for (int64_t i = 0; i < net->tensors; i++) {
        const hs_tensor *t = &net->tensor[i];
        if (!fits(t, t->value, net->workspace_floats)) return 1 + i;
        if (t->gradient != -1 && !fits(t, t->gradient, net->workspace_floats)) return 1 + i;
        if (t->pitch < t->width * net->lanes || t->interior + (t->height - 1) * t->pitch + t->width * net->lanes > t->plane)
            return 1 + i;
    }
    for (int64_t i = 0; i < net->operations; i++) {
        if (!operation_fits(net, &net->ops[i])) return 1000 + i;
    }
    return 0;
}

int64_t hs_vector_width(void) { return HS_WIDTH; }

/* Which build this processor can run: 1 baseline, 3 AVX2 and FMA, 4 AVX-512. Asked of the baseline build. */
int64_t hs_cpu_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2")) return 1;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 4;
    return 3;
#else
    return 1;
#endif
}

/* Sizes of the structs, so that the binding can see that it mirrors them. */
int64_t hs_struct_bytes(int64_t which) {
    const int64_t bytes[] = {sizeof(hs_tensor), sizeof(hs_op), sizeof(hs_network), sizeof(hs_result)};
    return which >= 0 && which < 4 ? bytes[which] : -1;
}
