/* Symbols of 1 to 8 bits in contexts, coded by an adaptive binary range coder. `wire/adaptive.py` says how, and
 * `wire/adaptive_python.py` does the same, bit for bit. Integers only: every machine writes the same bytes. */

#include "coder.h"

int64_t hs_wire_version(void) { return 3; }

uint32_t hs_reciprocal[CERTAIN + 1];

__attribute__((constructor)) static void fill_reciprocals(void) {
    for (uint32_t seen = 0; seen <= CERTAIN; seen++) hs_reciprocal[seen] = 65536 / (seen + 2);
}

typedef struct {
    uint64_t low, range;
    uint8_t *out;
    int64_t size;
} encoder;

static void put(encoder *e, uint32_t word) {
    for (int i = 0; i < 4; i++) e->out[e->size++] = (uint8_t)(word >> (24 - 8 * i));
}

static void carry(encoder *e) {
    for (int64_t at = e->size - 1; at >= 0 && ++e->out[at] == 0;) at--;
}

static inline void encode_bit(encoder *e, state *s, int bit) {
    uint64_t bound = share(s, e->range);
    if (bit) {
        e->range = bound;
        learn_one(s);
    } else {
        e->low += bound;
        if (e->low < bound) carry(e);
        e->range -= bound;
        learn_zero(s);
    }
    if (e->range >> RENORMALISE == 0) {
        put(e, (uint32_t)(e->low >> 32));
        e->low <<= 32;
        e->range <<= 32;
    }
}

/* The fewest bytes that say a number in [low, low + range); those that are zero at the end are not sent. */
static int64_t finish(encoder *e) {
    uint64_t last = e->low + (e->range - 1), value = last;
    for (int bytes = 0; bytes < 8; bytes++) {
        uint64_t kept = bytes ? ~(uint64_t)0 << (64 - 8 * bytes) : 0;
        if (((last & kept) - e->low) <= e->range - 1) { /* modulo 2^64, for low + range may pass it */
            value = last & kept;
            break;
        }
    }
    if (value < e->low) carry(e);
    put(e, (uint32_t)(value >> 32));
    put(e, (uint32_t)value);
    while (e->size && e->out[e->size - 1] == 0) e->size--;
    return e->size;
}

int64_t hs_adaptive_encode(const uint8_t *symbols, const uint8_t *contexts, const int64_t *ends, int64_t layers,
                           int64_t bits, uint8_t *out) {
    state states[HS_STATES];
    encoder e = {0, ~(uint64_t)0, out, 0};
    start(states, HS_STATES);
    int64_t i = 0;
    unsigned recent = 0;
    for (int64_t layer = 0; layer < layers; layer++, unsettle(states, HS_STATES)) {
        for (; i < ends[layer]; i++) {
            if (bits == 1) {
                encode_bit(&e, &states[contexts[i] * 2 + (recent > 0)], symbols[i]);
                recent = symbols[i] ? WINDOW : recent - (recent > 0);
                continue;
            }
            state *tree = states + ((int64_t)contexts[i] << bits);
            for (int64_t bit = bits - 1, node = 1; bit >= 0; bit--) {
                int one = symbols[i] >> bit & 1;
                encode_bit(&e, &tree[node], one);
                node = node << 1 | one;
            }
        }
    }
    return finish(&e);
}

int64_t hs_adaptive_decode(const uint8_t *data, int64_t size, const uint8_t *contexts, const int64_t *ends,
                           int64_t layers, int64_t bits, uint8_t *symbols) {
    state states[HS_STATES];
    decoder d = {0, ~(uint64_t)0, data, 0, size};
    start(states, HS_STATES);
    d.value = (uint64_t)take(&d) << 32;
    d.value |= take(&d);
    int64_t i = 0;
    unsigned recent = 0;
    for (int64_t layer = 0; layer < layers; layer++, unsettle(states, HS_STATES)) {
        if (bits == 1) {
            for (; i < ends[layer]; i++) {
                /* A branch, not arithmetic: what is predicted need not be waited for. */
                if (UNLIKELY(decode_bit(&d, &states[contexts[i] * 2 + (recent > 0)]))) {
                    symbols[i] = 1;
                    recent = WINDOW;
                } else {
                    symbols[i] = 0;
                    recent -= recent > 0;
                }
            }
            continue;
        }
        for (; i < ends[layer]; i++) {
            state *tree = states + ((int64_t)contexts[i] << bits);
            int64_t node = 1;
            for (int64_t bit = 0; bit < bits; bit++) node = node << 1 | decode_bit(&d, &tree[node]);
            symbols[i] = (uint8_t)(node & ((1 << bits) - 1));
        }
    }
    return d.at < size ? -1 : 0; /* bytes that nothing asked for */
}
