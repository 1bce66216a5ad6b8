/* The parts of the coder that `adaptive.c` and `masks.c` share. `wire/adaptive.py` says how it works. */

#ifndef HS_CODER_H
#define HS_CODER_H

#include "wire.h"

enum { HS_MASK_STATES = 32 }; /* of symbols of one bit */
enum { HALF = 1u << 31, CERTAIN = 254, SETTLED = 30, RENORMALISE = 32, WINDOW = 4 };

#define UNLIKELY(x) __builtin_expect((x), 0)

/* A probability that learns: of a one, in 2^-32, and how many bits it has seen (at most CERTAIN). */
typedef struct {
    uint32_t one;
    uint32_t seen;
} state;

/* 2^16 / (seen + 2): how far a bit moves a probability. */
extern uint32_t hs_reciprocal[CERTAIN + 1] __attribute__((visibility("hidden")));

static inline uint64_t share(const state *s, uint64_t range) { return (range >> 16) * ((s->one >> 16) | 1); }

static inline void learn_one(state *s) {
    s->one += (uint32_t)((uint64_t)(0xffffffff - s->one) * hs_reciprocal[s->seen] >> 16);
    s->seen += s->seen < CERTAIN;
}

static inline void learn_zero(state *s) {
    s->one -= (uint32_t)((uint64_t)s->one * hs_reciprocal[s->seen] >> 16);
    s->seen += s->seen < CERTAIN;
}

static inline void start(state *states, int64_t count) {
    for (int64_t i = 0; i < count; i++) states[i] = (state){HALF, 0};
}

/* A new layer behaves much like the last one, but not just so: what was learnt counts for less. */
static inline void unsettle(state *states, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (states[i].seen > SETTLED) states[i].seen = SETTLED;
}

typedef struct {
    uint64_t value, range; /* value: of the code, less the encoder's low */
    const uint8_t *data;
    int64_t at, size; /* at may pass size: zeros follow the data */
} decoder;

static inline uint32_t take(decoder *d) {
    uint32_t word = 0;
    if (d->at + 4 <= d->size) {
        for (int i = 0; i < 4; i++) word = word << 8 | d->data[d->at + i];
    } else {
        for (int i = 0; i < 4; i++) word = word << 8 | (d->at + i < d->size ? d->data[d->at + i] : 0);
    }
    d->at += 4;
    return word;
}

static inline int decode_bit(decoder *d, state *s) {
    uint64_t bound = share(s, d->range);
    int bit = d->value < bound;
    if (UNLIKELY(bit)) {
        d->range = bound;
        learn_one(s);
    } else {
        d->value -= bound;
        d->range -= bound;
        learn_zero(s);
    }
    if (UNLIKELY(d->range >> RENORMALISE == 0)) {
        d->value = d->value << 32 | take(d);
        d->range <<= 32;
    }
    return bit;
}

#if defined __x86_64__ && defined __GNUC__
#define HS_LANES 16 /* masks that are decoded side by side, where the processor has AVX-512 */

int hs_has_lanes(void) __attribute__((visibility("hidden")));

/* Decode `count` <= HS_LANES masks; `d`: HS_LANES decoders at the beginning of their codes, after `count` of no code. */
void hs_decode_lanes(decoder *d, int64_t count, const uint8_t *contexts, const int64_t *ends, int64_t layers,
                     const uint64_t *reference, int64_t words, uint64_t *rows) __attribute__((visibility("hidden")));
#endif

#endif
