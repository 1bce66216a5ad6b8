/* What a core does at best, for estimates and benchmarks: the kernels' speed is a share of it. */
#include "network.h"
#include "vectors.h"

#define V HS_JOIN(vec, HS_WIDTH)

/* rounds x 16 vectors of multiply-adds in as many independent chains; returns the floating-point operations done. */
int64_t hs_multiply_adds(int64_t rounds, float *sink) {
    enum { CHAINS = HS_WIDTH == 16 ? 16 : 12 }; /* with their operands, they fit the registers */
    V chain[CHAINS], factor, addend;
    for (int i = 0; i < HS_WIDTH; i++) factor[i] = 0.999f, addend[i] = 0.001f;
    HS_UNROLL for (int c = 0; c < CHAINS; c++) chain[c] = addend * (float)c;
    for (int64_t r = 0; r < rounds; r++) {
        HS_UNROLL for (int c = 0; c < CHAINS; c++) chain[c] = chain[c] * factor + addend;
        __asm__ volatile(""); /* keep the loop a loop */
    }
    V sum = chain[0];
    HS_UNROLL for (int c = 1; c < CHAINS; c++) sum += chain[c];
    *sink = sum[0];
    return rounds * CHAINS * HS_WIDTH * 2;
}

/* rounds x 16 additions that wait for each other, a cycle each on every processor; returns the cycles. */
int64_t hs_cycles(int64_t rounds) {
    enum { ADDITIONS = 16 };
    uintptr_t sum = 0, addend = (uintptr_t)rounds; /* not a constant: some processors add those for nothing */
    for (int64_t r = 0; r < rounds; r++)
        HS_UNROLL for (int i = 0; i < ADDITIONS; i++) {
            sum += addend;
            __asm__ volatile("" : "+r"(sum)); /* no two at once */
        }
    return rounds * ADDITIONS;
}
