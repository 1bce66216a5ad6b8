/* Softmax cross-entropy with sample weights, and its gradient at the logits. */
#include <math.h>

#include "network.h"

/* Adds this micro-batch to `result`; the gradient is of the mean over the whole batch, so it is exact. */
void hs_loss(const hs_network *net, const int64_t *y, const float *weights, double weight_sum, int64_t samples,
             hs_result *result) {
    const hs_tensor *t = &net->tensor[net->logits];
    const float *z = net->workspace + t->value + t->interior;
    float *dz = net->workspace + t->gradient + t->interior;
    const int cut = (int)t->cut;
    for (int64_t l = 0; l < net->lanes; l++, z++, dz++) {
        const float weight = l < samples ? weights[l] : 0;
        if (weight == 0) {
            for (int64_t k = 0; k < net->classes; k++) dz[net->class_offset[k]] = 0;
            continue;
        }
        int64_t best = 0;
        for (int64_t k = 0; k < net->classes; k++) {
            const int64_t at = net->class_offset[k];
            dz[at] = z[at] + net->log_prior[k];
            if (dz[at] > dz[net->class_offset[best]]) best = k;
        }
        const float largest = dz[net->class_offset[best]];
        const double own = dz[net->class_offset[y[l]]] - largest;
        double sum = 0;
        for (int64_t k = 0; k < net->classes; k++) {
            const int64_t at = net->class_offset[k];
            dz[at] = expf(dz[at] - largest);
            sum += dz[at];
        }
        result->loss += weight / weight_sum * (log(sum) - own);
        result->correct += best == y[l] ? weight : 0;
        const double share = weight / weight_sum;
        for (int64_t k = 0; k < net->classes; k++) {
            const int64_t at = net->class_offset[k];
            const double g = share * (dz[at] / sum - (k == y[l]));
            dz[at] = cut && !(z[at] > 0) ? 0 : (float)g;
        }
    }
}
