/* Counts, for every position, in how many packed masks its bit is set (a positional population count).
 *
 * Counters are bit-sliced: plane j holds bit j of the counts of 64 positions in one word, so a word of a mask is
 * added to 64 counters by a few logical operations. Carry-save adders take eight masks at a time. */

#include "wire.h"

#include <string.h>

enum { TILE = 512, GROUP = 8, PLANES = 16 };

static uint64_t spread[256]; /* bit i of a byte, as 0 or 1 in byte i */

__attribute__((constructor)) static void fill_spread(void) {
    for (int byte = 0; byte < 256; byte++)
        for (int bit = 0; bit < 8; bit++) spread[byte] |= (uint64_t)(byte >> bit & 1) << (8 * bit);
}

/* a + b + c, position by position: the sum stays in *sum, the carry is returned. */
static inline uint64_t add(uint64_t *sum, uint64_t b, uint64_t c) {
    uint64_t half = *sum ^ b, both = *sum & b;
    *sum = half ^ c;
    return both | (half & c);
}

static void carry_into(uint64_t (*planes)[TILE], int from, int to, const uint64_t *carry, int64_t words) {
    uint64_t moving[TILE];
    memcpy(moving, carry, (size_t)words * sizeof *moving);
    for (int plane = from; plane < to; plane++)
        for (int64_t w = 0; w < words; w++) {
            uint64_t next = planes[plane][w] & moving[w];
            planes[plane][w] ^= moving[w];
            moving[w] = next;
        }
}

static void add_group(uint64_t (*planes)[TILE], int used, const uint64_t *masks, int64_t pitch, int64_t words) {
    uint64_t *restrict ones = planes[0], *restrict twos = planes[1], *restrict fours = planes[2], eights[TILE];
    for (int64_t w = 0; w < words; w++) {
        const uint64_t *m = masks + w;
        uint64_t one = ones[w], two = twos[w], four = fours[w];
        uint64_t a = add(&one, m[0], m[pitch]), b = add(&one, m[2 * pitch], m[3 * pitch]);
        uint64_t x = add(&two, a, b);
        a = add(&one, m[4 * pitch], m[5 * pitch]);
        b = add(&one, m[6 * pitch], m[7 * pitch]);
        uint64_t y = add(&two, a, b);
        eights[w] = add(&four, x, y);
        ones[w] = one, twos[w] = two, fours[w] = four;
    }
    carry_into(planes, 3, used, eights, words);
}

static void unslice(uint64_t (*planes)[TILE], int used, int64_t words, uint16_t *counts) {
    for (int64_t w = 0; w < words; w++)
        for (int byte = 0; byte < 8; byte++) {
            uint64_t low = 0, high = 0; /* eight counts' lower and upper halves, a byte each */
            for (int plane = 0; plane < used && plane < 8; plane++)
                low |= spread[planes[plane][w] >> (8 * byte) & 255] << plane;
            for (int plane = 8; plane < used; plane++)
                high |= spread[planes[plane][w] >> (8 * byte) & 255] << (plane - 8);
            for (int i = 0; i < 8; i++)
                counts[64 * w + 8 * byte + i] += (uint16_t)((low >> (8 * i) & 255) | (high >> (8 * i) & 255) << 8);
        }
}

void hs_count_votes(const uint64_t *masks, int64_t rows, int64_t words, uint16_t *counts) {
    int used = 3; /* planes that hold `rows` */
    while (used < PLANES && rows >> used) used++;
    for (int64_t at = 0; at < words; at += TILE) {
        uint64_t planes[PLANES][TILE];
        int64_t here = words - at < TILE ? words - at : TILE, row = 0;
        memset(planes, 0, sizeof planes);
        for (; row + GROUP <= rows; row += GROUP) add_group(planes, used, masks + row * words + at, words, here);
        for (; row < rows; row++) carry_into(planes, 0, used, masks + row * words + at, here);
        unslice(planes, used, here, counts + 64 * at);
    }
}
