/* Masks side by side, one in each lane of AVX-512's registers: `hs_decode_masks` for a group of them.
 *
 * A bit waits for the one before it, whatever the machine could do meanwhile; other masks' bits do not. All masks of a
 * round have the same contexts, so a state is found for all lanes at one place, and only which of two it is, that after
 * a turned sign or the other, is a lane's own. */

#include "coder.h"

#ifdef HS_LANES

#include <immintrin.h>
#include <string.h>

#define AVX512 __attribute__((target("avx512f,avx512dq,avx512vl")))
#define INLINE static inline AVX512 __attribute__((always_inline))

enum { WIDE = 8, TEAMS = HS_LANES / WIDE }; /* more teams are no faster: 26 us a mask instead of 27 */

/* `state`, of every lane. */
typedef struct {
    __m256i one, seen;
} states;

/* What is kept in registers for eight masks. `last` are the newest four bits of each, a byte for each time. */
typedef struct {
    __m512i value, range, turned;
    uint32_t last;
} team;

INLINE __m256i all(int value) { return _mm256_set1_epi32(value); }

/* x r / 2^16, for r of at most 16 bits. */
INLINE __m256i scaled(__m256i x, __m256i r) {
    __m256i low = _mm256_mullo_epi32(_mm256_and_si256(x, all(0xffff)), r);
    return _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32(x, 16), r), _mm256_srli_epi32(low, 16));
}

/* 2^16 / (seen + 2): 65536 / n for n <= 256 is further than a float's error from the next whole number. */
INLINE __m256i reciprocal(__m256i seen) {
    __m256 count = _mm256_cvtepi32_ps(_mm256_add_epi32(seen, all(2)));
    return _mm256_cvttps_epi32(_mm256_div_ps(_mm256_set1_ps(65536.0f), count));
}

/* The next bit of eight masks. */
INLINE void decode_bits(team *t, states *calm, int64_t i, decoder *d) {
    states *close = calm + 1, was_calm = *calm, was_close = *close;
    __mmask8 near = (__mmask8)(t->last | t->last >> 8 | t->last >> 16 | t->last >> 24);
    __m256i one = _mm256_mask_mov_epi32(was_calm.one, near, was_close.one);
    __m256i seen = _mm256_mask_mov_epi32(was_calm.seen, near, was_close.seen);

    __m256i chance = _mm256_or_si256(_mm256_srli_epi32(one, 16), all(1));
    __m512i bound = _mm512_mullo_epi64(_mm512_srli_epi64(t->range, 16), _mm512_cvtepu32_epi64(chance));
    __mmask8 bits = _mm512_cmplt_epu64_mask(t->value, bound);
    t->range = _mm512_mask_mov_epi64(_mm512_sub_epi64(t->range, bound), bits, bound);
    t->value = _mm512_mask_sub_epi64(t->value, (__mmask8)~bits, t->value, bound);
    __m512i here = _mm512_set1_epi64((int64_t)((uint64_t)1 << (i & 63)));
    t->turned = _mm512_mask_or_epi64(t->turned, bits, t->turned, here);
    t->last = t->last << 8 | bits;

    __m256i left = _mm256_mask_xor_epi32(one, bits, one, all(-1)); /* after a one, learn from the other side */
    left = _mm256_sub_epi32(left, scaled(left, reciprocal(seen)));
    one = _mm256_mask_xor_epi32(left, bits, left, all(-1));
    seen = _mm256_min_epu32(_mm256_add_epi32(seen, all(1)), all(CERTAIN));
    close->one = _mm256_mask_mov_epi32(was_close.one, near, one);
    close->seen = _mm256_mask_mov_epi32(was_close.seen, near, seen);
    calm->one = _mm256_mask_mov_epi32(one, near, was_calm.one);
    calm->seen = _mm256_mask_mov_epi32(seen, near, was_calm.seen);

    __mmask8 low = _mm512_cmplt_epu64_mask(t->range, _mm512_set1_epi64((int64_t)1 << RENORMALISE));
    if (UNLIKELY(low)) {
        uint64_t words[WIDE] = {0};
        for (unsigned rest = low; rest; rest &= rest - 1) words[__builtin_ctz(rest)] = take(d + __builtin_ctz(rest));
        t->range = _mm512_mask_slli_epi64(t->range, low, t->range, 32);
        t->value = _mm512_mask_or_epi64(t->value, low, _mm512_slli_epi64(t->value, 32), _mm512_loadu_si512(words));
    }
}

INLINE void begin(team *t, states *s, decoder *d) {
    uint64_t value[WIDE];
    for (int i = 0; i < HS_MASK_STATES; i++) s[i] = (states){all((int)HALF), all(0)};
    for (int lane = 0; lane < WIDE; lane++) {
        value[lane] = (uint64_t)take(d + lane) << 32;
        value[lane] |= take(d + lane);
    }
    *t = (team){_mm512_loadu_si512(value), _mm512_set1_epi64(-1), _mm512_setzero_si512(), 0};
}

/* Write a word of signs to the rows of `count` masks. */
INLINE void put(team *t, uint64_t reference, uint64_t *rows, int64_t words, int64_t count) {
    uint64_t turned[WIDE];
    memcpy(turned, &t->turned, sizeof turned);
    for (int64_t lane = 0; lane < WIDE && lane < count; lane++) rows[lane * words] = reference ^ turned[lane];
    t->turned = _mm512_setzero_si512();
}

int hs_has_lanes(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

AVX512 void hs_decode_lanes(decoder *d, int64_t count, const uint8_t *contexts, const int64_t *ends, int64_t layers,
                            const uint64_t *reference, int64_t words, uint64_t *rows) {
    states s[TEAMS][HS_MASK_STATES];
    team t[TEAMS];
    for (int k = 0; k < TEAMS; k++) begin(t + k, s[k], d + k * WIDE);
    int64_t i = 0;
    for (int64_t layer = 0; layer < layers; layer++) {
        for (; i < ends[layer]; i++) {
#pragma GCC unroll 2
            for (int k = 0; k < TEAMS; k++) decode_bits(t + k, s[k] + 2 * contexts[i], i, d + k * WIDE);
            if (UNLIKELY((i & 63) == 63))
#pragma GCC unroll 2
                for (int k = 0; k < TEAMS; k++)
                    put(t + k, reference[i >> 6], rows + k * WIDE * words + (i >> 6), words, count - k * WIDE);
        }
        for (int k = 0; k < TEAMS; k++)
            for (int at = 0; at < HS_MASK_STATES; at++) s[k][at].seen = _mm256_min_epu32(s[k][at].seen, all(SETTLED));
    }
    if (i & 63)
#pragma GCC unroll 2
        for (int k = 0; k < TEAMS; k++)
            put(t + k, reference[i >> 6], rows + k * WIDE * words + (i >> 6), words, count - k * WIDE);
}

#endif
