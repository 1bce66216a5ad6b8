/* What Python hands to the kernels: tensors, operations and the network. `library.py` mirrors these structs.
 *
 * Activations are [channel][row][column][lane]: the lanes are the samples of a micro-batch, so every
 * kept weight is a multiply-add over a contiguous run. Rows carry zero padding wide enough for the
 * convolution that reads them; the padding right of a row is the padding left of the next.
 * All distances are in floats and lie in the workspace of one micro-batch. Nothing here allocates.
 */
#ifndef HS_NETWORK_H
#define HS_NETWORK_H

#include <stdint.h>

enum {
    HS_SPARSE,
    HS_MAX_POOL,
    HS_AVERAGE_POOL,
    HS_PHASES,
    HS_ADD,
    HS_CONCAT,
    HS_POINTWISE,
    HS_NORM,
    HS_COPY,
    HS_SPLIT
};
enum { HS_RELU, HS_RELU6, HS_HARDSWISH, HS_GELU };
enum { HS_ADAM = 0, HS_SGD = 1 };

typedef struct {
    int64_t value;    /* where the activation lies in the workspace */
    int64_t gradient; /* where its gradient lies, same geometry; -1: not needed */
    int64_t plane;    /* from one channel to the next */
    int64_t pitch;    /* from one row to the next */
    int64_t interior; /* from a plane's start to its first real element */
    int64_t channels, height, width;
    int64_t cut; /* a ReLU's output: its gradient is 0 where it is not positive */
} hs_tensor;

/* Start of a row among a tensor's values or gradients. */
static inline int64_t hs_row(const hs_tensor *t, int64_t channel, int64_t row) {
    return t->interior + channel * t->plane + row * t->pitch;
}

typedef struct {
    int32_t kind;
    int32_t input, second, output; /* tensor numbers; second: what is added or appended, the view of a split, or -1 */
    int32_t relu;                  /* max(., 0) on the output */
    int32_t function;              /* of HS_POINTWISE */
    int32_t groups;                /* of channels, of HS_NORM */

    /* HS_SPARSE: a convolution of stride 1, or a linear layer: one whose output is a single position. */
    int32_t block;    /* output rows that share kept positions: 4 or 1 */
    int32_t constant; /* weights are +-scale: no weight array */
    int32_t place_size; /* bytes of a max pool's winner's place in its window: 1, 2 or 4 */
    int64_t rows;              /* groups of `block` output rows */
    int64_t start, kept;       /* where the layer's weights lie in the score vector, in the order of `code` */
    int64_t runs;              /* contiguous runs one kept weight multiplies */
    int64_t run;               /* their length */
    int64_t run_in, run_out;   /* from one run to the next, input and output */
    int64_t run_chunk;         /* how much of a run the weight gradient takes at once */
    const uint32_t *row_start; /* (rows + 1,): first code of every row group */
    uint32_t *code;            /* (kept / block,): input offset << 4 | signs; of 4 rows bit 3 is row 3's (1: +),
                                  the others say which rows have the same; of 1 row bit 0 is its */
    const uint8_t *initial;    /* (kept / block,): the initial weights' sign bits */
    const float *magnitudes;   /* (kept,), or NULL when constant */
    float *weights;            /* (kept,), or NULL when constant */
    float scale;
    float table[64]; /* the 4 weights of every value of a code's signs, when constant */

    /* pools and phases */
    int32_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
    int64_t extra; /* byte offset in the workspace of what backward needs: winners' places, means and deviations */
} hs_op;

typedef struct hs_team hs_team;

typedef struct {
    int64_t lanes, classes, kept, steps;
    int64_t operations, tensors;
    int64_t logits; /* number of the last layer's tensor */
    hs_op *ops;
    const hs_tensor *tensor;
    float *workspace;
    int64_t workspace_floats;
    const int64_t *class_offset; /* (classes,): every logit's offset in the last tensor */
    const float *log_prior; /* (classes,): added to the logits that are trained; 0: the plain loss */
    float *scores, *gradient, *first, *second; /* (kept,) each; `second` only for Adam */
    double *seconds; /* (operations + 1, 3): time spent forward, at weights, at inputs; last: pack, loss, update; or NULL */
    hs_team *team; /* NULL: one thread */
    int32_t optimiser, input_relu;
    double learning_rate, beta1, beta2, epsilon, clip;
} hs_network;

typedef struct {
    double loss, correct;
} hs_result;

/* kept weights */
void hs_sparse_forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work);
void hs_sparse_input_gradient(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);
void hs_sparse_weight_gradient(const hs_op *op, const hs_tensor *in, const hs_tensor *out, const float *work,
                               float *gradient);

void hs_linear_forward(const hs_op *op, const float *x, float *y, int64_t plane);
void hs_linear_weight_gradient(const hs_op *op, const float *x, const float *dy, int64_t plane, float *gradient);

/* pools */
void hs_pool_forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);
void hs_pool_backward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);

/* layout */
void hs_pack(const hs_tensor *t, float *work, const float *x, const float *weights, int64_t samples, int64_t lanes,
             int relu);
void hs_phases_forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);
void hs_phases_backward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);
void hs_clear_padding(const hs_tensor *t, float *base, int64_t lanes);
void hs_finish_gradient(const hs_tensor *t, float *work, int64_t lanes);

/* branches that meet and part */
void hs_add_forward(const hs_op *op, const hs_tensor *tensor, float *work, int64_t lanes);
void hs_add_backward(const hs_op *op, const hs_tensor *tensor, float *work, int64_t lanes);
void hs_concat_forward(const hs_op *op, const hs_tensor *tensor, float *work, int64_t lanes);
void hs_concat_backward(const hs_op *op, const hs_tensor *tensor, float *work, int64_t lanes);
void hs_copy_forward(const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);
void hs_copy_backward(const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);
void hs_split_backward(const hs_tensor *whole, const hs_tensor *view, float *work);

/* activations and normalisation */
void hs_pointwise_forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);
void hs_pointwise_backward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);
void hs_norm_forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);
void hs_norm_backward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes);

/* loss and update */
void hs_loss(const hs_network *net, const int64_t *y, const float *weights, double weight_sum, int64_t samples,
             hs_result *result);
void hs_optimise(hs_network *net);
void hs_binarise(hs_network *net);
void hs_score_gradient(const hs_network *net, float *out);

/* the processor's treatment of denormal numbers, per thread */
uint64_t hs_flush_denormals(void);
void hs_restore_denormals(uint64_t old);

/* threads */
void hs_accumulate(hs_network *net, const float *x, const int64_t *y, const float *weights, int64_t n,
                   double weight_sum, int64_t first, int64_t step, hs_result *result);
void hs_team_accumulate(hs_team *team, const float *x, const int64_t *y, const float *weights, int64_t n,
                        double weight_sum, hs_result *result);
hs_team *hs_team_start(hs_network *networks, int64_t count);
void hs_team_stop(hs_team *team);

/* what Python calls */
int64_t hs_check(const hs_network *net);
int64_t hs_vector_width(void);
int64_t hs_multiply_adds(int64_t rounds, float *sink);
int64_t hs_cycles(int64_t rounds);
int64_t hs_cpu_level(void);
int64_t hs_struct_bytes(int64_t which);
void hs_load_scores(hs_network *net);
int64_t hs_step(hs_network *net, const float *x, const int64_t *y, const float *weights, int64_t n,
                hs_result *result);
int64_t hs_gradient(hs_network *net, const float *x, const int64_t *y, const float *weights, int64_t n,
                    hs_result *result, float *gradient);
void hs_logits(hs_network *net, const float *x, int64_t n, float *logits);

#endif
