/* Many masks at once, for whoever takes in a fleet's: is each signed, what does its message say, what are its signs. */

#include "coder.h"

#include <string.h>

enum { UPDATE_FIELDS = 10, FEW = 4 }; /* FEW: so many masks are faster one by one than side by side */

static decoder at_code(const uint8_t *data, const int64_t *span) {
    return (decoder){0, ~(uint64_t)0, data + span[0], 0, span[1] - span[0]};
}

/* Whether all bytes were a code's: none is left over, and the last is not zero. */
static int is_code(const decoder *d) { return d->at >= d->size && !(d->size && d->data[d->size - 1] == 0); }

static void decode_mask(decoder *d, const uint8_t *contexts, const int64_t *ends, int64_t layers, uint64_t *row) {
    state states[HS_MASK_STATES];
    start(states, HS_MASK_STATES);
    d->value = (uint64_t)take(d) << 32;
    d->value |= take(d);
    int64_t i = 0, near = -1; /* near: up to here one of the last four symbols was a one */
    for (int64_t layer = 0; layer < layers; layer++, unsettle(states, HS_MASK_STATES))
        for (; i < ends[layer]; i++)
            if (UNLIKELY(decode_bit(d, &states[contexts[i] * 2 + (i <= near)]))) {
                near = i + WINDOW;
                row[i >> 6] ^= (uint64_t)1 << (i & 63);
            }
}

void hs_decode_masks(const uint8_t *data, const int64_t *spans, int64_t count, const uint8_t *contexts,
                     const int64_t *ends, int64_t layers, const uint64_t *reference, int64_t words, uint64_t *rows,
                     uint8_t *good) {
    int64_t i = 0;
#ifdef HS_LANES
    for (int64_t here; count - i > FEW && hs_has_lanes(); i += here) {
        decoder d[HS_LANES];
        here = count - i < HS_LANES ? count - i : HS_LANES;
        for (int64_t lane = 0; lane < HS_LANES; lane++)
            d[lane] = lane < here ? at_code(data, spans + 2 * (i + lane)) : (decoder){0, ~(uint64_t)0, data, 0, 0};
        hs_decode_lanes(d, here, contexts, ends, layers, reference, words, rows + i * words);
        for (int64_t lane = 0; lane < here; lane++) good[i + lane] = (uint8_t)is_code(&d[lane]);
    }
#endif
    for (; i < count; i++) {
        decoder d = at_code(data, spans + 2 * i);
        memcpy(rows + i * words, reference, (size_t)words * sizeof *reference);
        decode_mask(&d, contexts, ends, layers, rows + i * words);
        good[i] = (uint8_t)is_code(&d);
    }
}

/* The plain form of a `MaskUpdate` (docs/wire-format.md): a CBOR map of its ten fields, in order. */

typedef struct {
    const uint8_t *data;
    int64_t at, size;
} cursor;

static int head(cursor *c, int major, uint64_t *argument, int *width) {
    if (c->at >= c->size || c->data[c->at] >> 5 != major) return 0;
    int few = c->data[c->at++] & 31;
    *width = few < 24 ? 0 : 1 << (few - 24);
    if (few > 27 || c->size - c->at < *width) return 0;
    *argument = (uint64_t)(few < 24 ? few : 0);
    for (int i = 0; i < *width; i++) *argument = *argument << 8 | c->data[c->at++];
    return 1;
}

static int whole(cursor *c, int64_t *number) {
    uint64_t argument;
    int width;
    if (!head(c, 0, &argument, &width) || argument > (uint64_t)1 << 53) return 0;
    *number = (int64_t)argument;
    return 1;
}

static int text(cursor *c, int64_t *from, int64_t *to) {
    uint64_t argument;
    int width;
    if (!head(c, 2, &argument, &width) || argument > (uint64_t)(c->size - c->at)) return 0;
    *from = c->at;
    *to = c->at += (int64_t)argument;
    return 1;
}

static int real(cursor *c, double *number) {
    uint64_t bits;
    int width;
    if (!head(c, 7, &bits, &width)) return 0;
    if (width == 8) {
        memcpy(number, &bits, sizeof *number);
    } else if (width == 4) {
        uint32_t narrow = (uint32_t)bits;
        float found;
        memcpy(&found, &narrow, sizeof found);
        *number = found;
    } else if (width == 2) {
        int exponent = (int)(bits >> 10 & 31), fraction = (int)(bits & 1023);
        if (exponent == 31) return 0;
        *number = fraction * 0x1p-24;
        if (exponent) {
            uint32_t narrow = (uint32_t)(exponent + 112) << 23 | (uint32_t)fraction << 13;
            float found;
            memcpy(&found, &narrow, sizeof found);
            *number = found;
        }
        if (bits >> 15) *number = -*number;
    } else {
        return 0;
    }
    return __builtin_isfinite(*number);
}

static int field(cursor *c, int number) { return c->at < c->size && c->data[c->at++] == number; }

static int read_update(cursor *c, hs_update *u) {
    int64_t end;
    return field(c, 0xa0 | UPDATE_FIELDS) && field(c, 1) && text(c, &u->run, &end) && end - u->run == 8 &&
           field(c, 2) && whole(c, &u->number) && field(c, 3) && (u->head = c->at, text(c, &u->signs, &u->signs_end)) &&
           field(c, 4) && whole(c, &u->train_samples) && field(c, 5) && real(c, &u->loss) && field(c, 6) &&
           whole(c, &u->correct) && field(c, 7) && whole(c, &u->test_samples) && field(c, 8) && real(c, &u->train_s) &&
           field(c, 9) && real(c, &u->step_ms) && field(c, 10) && whole(c, &u->peak_memory_kb) && c->at == c->size;
}

void hs_read_updates(const uint8_t *data, const int64_t *spans, int64_t count, hs_update *updates) {
    for (int64_t i = 0; i < count; i++) {
        cursor c = {data, spans[2 * i], spans[2 * i + 1]};
        memset(&updates[i], 0, sizeof updates[i]);
        updates[i].plain = read_update(&c, &updates[i]);
    }
}

void hs_check_signatures(hs_open open, const uint8_t *data, const int64_t *spans, int64_t count, const uint8_t *keys,
                         uint8_t *scratch, uint8_t *good) {
    for (int64_t i = 0; i < count; i++) {
        unsigned long long opened;
        uint64_t size = (uint64_t)(spans[2 * i + 1] - spans[2 * i]);
        good[i] = open(scratch, &opened, data + spans[2 * i], size, keys + 32 * i) == 0;
    }
}

void hs_make_signatures(hs_sign sign, const uint8_t *data, const int64_t *spans, int64_t count, const uint8_t *key,
                        uint8_t *scratch, uint8_t *signatures) {
    for (int64_t i = 0; i < count; i++) {
        unsigned long long made;
        sign(scratch, &made, data + spans[2 * i], (uint64_t)(spans[2 * i + 1] - spans[2 * i]), key);
        memcpy(signatures + 64 * i, scratch, 64);
    }
}
