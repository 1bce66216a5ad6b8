/* Score optimisers with torch.optim's arithmetic, and the step from scores back to signs. */
#include <math.h>

#include "network.h"
#include "vectors.h"

/* Sign bits of 4 rows as the kernels want them: row 3's sign, and whether each other row's is the same. */
HS_INLINE uint32_t relative(uint32_t bits) { return bits & 8 ? bits : bits ^ 7; }

/* gradient holds dloss/dw; a score's gradient is that times the initial weight (straight-through). */
HS_INLINE float initial_weight(const hs_op *op, int64_t block, int32_t b) {
    const float size = op->constant ? op->scale : op->magnitudes[block * op->block + b];
    return op->initial[block] >> b & 1 ? size : -size;
}

void hs_score_gradient(const hs_network *net, float *out) {
    for (int64_t i = 0; i < net->operations; i++) {
        const hs_op *op = &net->ops[i];
        if (op->kind != HS_SPARSE) continue;
        const float *gradient = net->gradient + op->start;
        float *to = out + op->start;
        if (op->block == 4 && op->constant)
            for (int64_t k = 0; k < op->kept / 4; k++)
                store4(to + k * 4, load4(gradient + k * 4) * load4(op->table + relative(op->initial[k]) * 4));
        else
            for (int64_t k = 0; k < op->kept / op->block; k++)
                for (int32_t b = 0; b < op->block; b++, to++, gradient++) *to = *gradient * initial_weight(op, k, b);
    }
}

HS_INLINE float clamp(float v, float limit) { return v > limit ? limit : v < -limit ? -limit : v; }

void hs_optimise(hs_network *net) {
    float *restrict score = net->scores, *restrict first = net->first, *restrict second = net->second;
    const float *restrict gradient = net->gradient;
    const float clip = (float)net->clip;
    hs_score_gradient(net, net->gradient);
    net->steps++;
    if (net->optimiser == HS_SGD) {
        const float momentum = (float)net->beta1, rate = (float)net->learning_rate;
        for (int64_t i = 0; i < net->kept; i++) {
            first[i] = momentum * first[i] + gradient[i];
            score[i] = clamp(score[i] - rate * first[i], clip);
        }
        return;
    }
    const float beta2 = (float)net->beta2, rest1 = (float)(1 - net->beta1), rest2 = (float)(1 - net->beta2);
    /* torch: score -= step * first / (sqrt(second) / correction + epsilon); here with one division less */
    const double correction = sqrt(1 - pow(net->beta2, (double)net->steps));
    const float step = (float)(net->learning_rate / (1 - pow(net->beta1, (double)net->steps)) * correction);
    const float epsilon = (float)(net->epsilon * correction);
    for (int64_t i = 0; i < net->kept; i++) {
        const float g = gradient[i];
        first[i] += rest1 * (g - first[i]);
        second[i] = beta2 * second[i] + rest2 * g * g;
        score[i] = clamp(score[i] - step * first[i] / (sqrtf(second[i]) + epsilon), clip);
    }
}

/* w = sign(score) x initial weight, sign(0) = +1: a weight's sign bit is its initial one, flipped where score < 0. */
void hs_binarise(hs_network *net) {
    for (int64_t i = 0; i < net->operations; i++) {
        hs_op *op = &net->ops[i];
        if (op->kind != HS_SPARSE) continue;
        const float *score = net->scores + op->start;
        if (op->block == 4 && op->constant) {
            for (int64_t k = 0; k < op->kept / 4; k++, score += 4) {
                const uint32_t negative = (uint32_t)(score[0] < 0) | (uint32_t)(score[1] < 0) << 1 |
                                          (uint32_t)(score[2] < 0) << 2 | (uint32_t)(score[3] < 0) << 3;
                op->code[k] = (op->code[k] & ~15u) | relative(op->initial[k] ^ negative);
            }
            continue;
        }
        for (int64_t k = 0; k < op->kept / op->block; k++) {
            uint32_t bits = op->initial[k];
            for (int32_t b = 0; b < op->block; b++, score++) {
                bits ^= (uint32_t)(*score < 0) << b;
                if (!op->constant)
                    op->weights[k * op->block + b] = (bits >> b & 1) ? op->magnitudes[k * op->block + b]
                                                                     : -op->magnitudes[k * op->block + b];
            }
            op->code[k] = (op->code[k] & ~15u) | (op->block == 4 ? relative(bits) : bits);
        }
    }
}
