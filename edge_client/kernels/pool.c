/* Max and average pooling, forward and backward. Windows do not reach into padding. */
#include "network.h"
#include "vectors.h"

#define HS_DEFINE_PLACES(W)                                                                                     \
    typedef uint8_t bytes##W __attribute__((vector_size(W)));                                                   \
    HS_INLINE void put_places##W(uint8_t *to, ints##W places) {                                                 \
        const bytes##W bytes = __builtin_convertvector(places, bytes##W);                                       \
        memcpy(to, &bytes, W);                                                                                  \
    }                                                                                                           \
    HS_INLINE ints##W get_places##W(const uint8_t *from) {                                                      \
        bytes##W bytes;                                                                                         \
        memcpy(&bytes, from, W);                                                                                \
        return __builtin_convertvector(bytes, ints##W);                                                         \
    }
HS_DEFINE_PLACES(4)
HS_DEFINE_PLACES(8)

#define WIDTH 4
#include "pool_window.h"
#undef WIDTH
#define WIDTH 8
#include "pool_window.h"
#undef WIDTH

/* Winner's place in its window, stored in as few bytes as the window's size allows. */
HS_INLINE void put_place(uint8_t *at, int64_t size, int64_t i, uint32_t place) {
    if (size == 1)
        at[i] = (uint8_t)place;
    else if (size == 2)
        ((uint16_t *)at)[i] = (uint16_t)place;
    else
        ((uint32_t *)at)[i] = place;
}

HS_INLINE uint32_t get_place(const uint8_t *at, int64_t size, int64_t i) {
    return size == 1 ? at[i] : size == 2 ? ((const uint16_t *)at)[i] : ((const uint32_t *)at)[i];
}

/* One output position, all lanes: the first of the largest wins, as in torch. */
HS_INLINE void max_forward(const hs_op *op, const float *x, int64_t pitch, float *y, uint8_t *argmax, int64_t at,
                           int64_t lanes) {
    for (int64_t l = 0; l < lanes; l++) {
        float best = x[l];
        uint32_t place = 0;
        for (int32_t i = 0; i < op->kernel_h; i++)
            for (int32_t j = 0; j < op->kernel_w; j++) {
                const float v = x[i * pitch + j * lanes + l];
                if (v > best) {
                    best = v;
                    place = (uint32_t)(i * op->kernel_w + j);
                }
            }
        y[l] = op->relu && best < 0 ? 0 : best;
        put_place(argmax, op->place_size, at + l, place);
    }
}

HS_INLINE void average_forward(const hs_op *op, const float *x, int64_t pitch, float *y, int64_t lanes) {
    const float share = 1.0f / (float)((int64_t)op->kernel_h * op->kernel_w);
    for (int64_t l = 0; l < lanes; l++) {
        float sum = 0;
        for (int32_t i = 0; i < op->kernel_h; i++)
            for (int32_t j = 0; j < op->kernel_w; j++) sum += x[i * pitch + j * lanes + l];
        sum *= share;
        y[l] = op->relu && sum < 0 ? 0 : sum;
    }
}

/* How many of a row's windows the vectors took; the rest goes window by window. */
static int64_t max_row(const hs_op *op, const float *x, int64_t pitch, float *y, uint8_t *places, int64_t windows,
                       int64_t lanes) {
    if (op->place_size != 1) return 0;
    if (lanes % 4 == 0) {
        if (lanes % 8 == 0)
            max_row8(op, x, pitch, y, places, windows, lanes);
        else
            max_row4(op, x, pitch, y, places, windows, lanes);
        return windows;
    }
    if (lanes != 1 || op->kernel_w != 2 || op->stride_w != 2 || op->kernel_h > 2) return 0;
    const int64_t done = op->kernel_h == 1 ? max_pairs_8(op, x, pitch, y, places, windows, 1)
                                           : max_pairs_8(op, x, pitch, y, places, windows, 2);
    x += 2 * done, y += done, places += done, windows -= done;
    return done + (op->kernel_h == 1 ? max_pairs_4(op, x, pitch, y, places, windows, 1)
                                     : max_pairs_4(op, x, pitch, y, places, windows, 2));
}

static int64_t spread_row(const hs_op *op, float *dx, int64_t pitch, const float *y, const float *dy,
                          const uint8_t *places, int64_t windows, int64_t lanes, int cut) {
    if (op->place_size != 1 || op->stride_h != op->kernel_h || op->stride_w != op->kernel_w) return 0;
    if (lanes % 4 == 0) {
        if (lanes % 8 == 0)
            spread_row8(op, dx, pitch, y, dy, places, windows, lanes, cut);
        else
            spread_row4(op, dx, pitch, y, dy, places, windows, lanes, cut);
        return windows;
    }
    if (lanes != 1 || op->kernel_w != 2 || op->kernel_h > 2) return 0;
    const int64_t done = op->kernel_h == 1 ? spread_pairs_8(op, dx, pitch, y, dy, places, windows, cut, 1)
                                           : spread_pairs_8(op, dx, pitch, y, dy, places, windows, cut, 2);
    dx += 2 * done, y += done, dy += done, places += done, windows -= done;
    return done + (op->kernel_h == 1 ? spread_pairs_4(op, dx, pitch, y, dy, places, windows, cut, 1)
                                     : spread_pairs_4(op, dx, pitch, y, dy, places, windows, cut, 2));
}

void hs_pool_forward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    uint8_t *argmax = (uint8_t *)work + op->extra;
    int64_t at = 0;
    for (int64_t c = 0; c < out->channels; c++)
        for (int64_t h = 0; h < out->height; h++) {
            const float *x = work + in->value + in->interior + c * in->plane + h * op->stride_h * in->pitch;
            float *y = work + out->value + out->interior + c * out->plane + h * out->pitch;
            if (op->kind == HS_AVERAGE_POOL) {
                for (int64_t w = 0; w < out->width; w++)
                    average_forward(op, x + w * op->stride_w * lanes, in->pitch, y + w * lanes, lanes);
                continue;
            }
            for (int64_t w = max_row(op, x, in->pitch, y, argmax + at, out->width, lanes); w < out->width; w++)
                max_forward(op, x + w * op->stride_w * lanes, in->pitch, y + w * lanes, argmax, at + w * lanes, lanes);
            at += out->width * lanes;
        }
}

/* A gradient at an input that a ReLU had cut to 0 is 0; the winner's value is the pool's output. */
HS_INLINE void max_backward(const hs_op *op, float *dx, int64_t pitch, const float *y, const float *dy,
                            const uint8_t *argmax, int64_t at, int64_t lanes, int cut) {
    for (int64_t l = 0; l < lanes; l++) {
        if (cut && !(y[l] > 0)) continue;
        const uint32_t place = get_place(argmax, op->place_size, at + l);
        dx[place / (uint32_t)op->kernel_w * pitch + place % (uint32_t)op->kernel_w * lanes + l] += dy[l];
    }
}

HS_INLINE void average_backward(const hs_op *op, float *dx, int64_t pitch, const float *dy, int64_t lanes) {
    const float share = 1.0f / (float)((int64_t)op->kernel_h * op->kernel_w);
    for (int32_t i = 0; i < op->kernel_h; i++)
        for (int32_t j = 0; j < op->kernel_w; j++)
            for (int64_t l = 0; l < lanes; l++) dx[i * pitch + j * lanes + l] += dy[l] * share;
}

void hs_pool_backward(const hs_op *op, const hs_tensor *in, const hs_tensor *out, float *work, int64_t lanes) {
    const uint8_t *argmax = (const uint8_t *)work + op->extra;
    const int maximum = op->kind == HS_MAX_POOL, cut = (int)in->cut;
    int64_t at = 0;
    if (maximum && lanes % 4 == 0 && op->place_size == 1 && op->stride_h == op->kernel_h &&
        op->stride_w == op->kernel_w && out->height * op->kernel_h == in->height &&
        out->width * op->kernel_w == in->width)
        hs_clear_padding(in, work + in->gradient, lanes); /* the windows write everything else */
    else
        memset(work + in->gradient, 0, (size_t)(in->channels * in->plane) * sizeof(float));
    for (int64_t c = 0; c < out->channels; c++)
        for (int64_t h = 0; h < out->height; h++) {
            const int64_t from = out->interior + c * out->plane + h * out->pitch;
            const float *y = work + out->value + from, *dy = work + out->gradient + from;
            float *dx = work + in->gradient + in->interior + c * in->plane + h * op->stride_h * in->pitch;
            if (!maximum) {
                for (int64_t w = 0; w < out->width; w++)
                    average_backward(op, dx + w * op->stride_w * lanes, in->pitch, dy + w * lanes, lanes);
                continue;
            }
            for (int64_t w = spread_row(op, dx, in->pitch, y, dy, argmax + at, out->width, lanes, cut); w < out->width; w++)
                max_backward(op, dx + w * op->stride_w * lanes, in->pitch, y + w * lanes, dy + w * lanes, argmax,
                             at + w * lanes, lanes, cut);
            at += out->width * lanes;
        }
    if (!maximum) hs_finish_gradient(in, work, lanes);
}
