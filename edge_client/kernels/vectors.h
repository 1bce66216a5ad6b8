/* Vectors of 1, 4, 8 and 16 floats in GCC/Clang vector extensions: one source for SSE2, AVX2, AVX-512 and NEON.
 *
 * A vector wider than the machine's registers is split by the compiler, so every width is correct
 * everywhere; HS_WIDTH is the one that fills a register, HS_TILE how many such vectors of four output
 * rows, their input and a broadcast weight fit in the register file together.
 */
#ifndef HS_VECTORS_H
#define HS_VECTORS_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define HS_WIDTH 16
#define HS_TILE 4
#elif defined(__AVX2__)
#define HS_WIDTH 8
#define HS_TILE 3
#elif defined(__aarch64__)
#define HS_WIDTH 4
#define HS_TILE 4
#elif defined(__wasm__) /* the browser's compiler keeps a register for itself, and spills in the inner loop */
#define HS_WIDTH 4
#define HS_TILE 2
#else
#define HS_WIDTH 4
#define HS_TILE 3
#endif

/* Vectors of a tile of the input gradient, whose sums lie in the first-level cache and not in registers. */
#define HS_SPREAD 4
/* Kept blocks in a row group from which its 8 signed sums pay. */
#ifndef HS_SUMS_FROM
#define HS_SUMS_FROM 4
#endif

/* Floats of a cache line. Tiles walk across planes, which no hardware prefetcher follows, so they fetch ahead. */
#define HS_LINE 16

#define HS_INLINE static inline __attribute__((always_inline))
#define HS_JOIN_(a, b) a##b
#define HS_JOIN(a, b) HS_JOIN_(a, b)
/* A count makes clang unroll only after it has decided which arrays become registers, and none does. */
#if defined(__clang__)
#define HS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define HS_UNROLL _Pragma("GCC unroll 16")
#endif

typedef float vec1;
typedef float vec4 __attribute__((vector_size(16)));
typedef float vec8 __attribute__((vector_size(32)));
typedef float vec16 __attribute__((vector_size(64)));

#if defined(__clang__) || __GNUC__ >= 12
#define HS_SHUFFLE4(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define HS_SHUFFLE8(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t hs_order4 __attribute__((vector_size(16)));
typedef int32_t hs_order8 __attribute__((vector_size(32)));
#define HS_SHUFFLE4(a, b, ...) __builtin_shuffle(a, b, (hs_order4){__VA_ARGS__})
#define HS_SHUFFLE8(a, b, ...) __builtin_shuffle(a, b, (hs_order8){__VA_ARGS__})
#endif

/* load and store at any address; positive(v, g): g where v > 0, else 0; from(v, n): lanes before n set to 0. */
#define HS_DEFINE_VECTOR(W, ...)                                                              \
    typedef float unaligned##W __attribute__((vector_size(W * 4), aligned(4), may_alias));    \
    typedef int32_t ints##W __attribute__((vector_size(W * 4)));                              \
    HS_INLINE vec##W load##W(const float *p) { return *(const unaligned##W *)p; }             \
    HS_INLINE void store##W(float *p, vec##W v) { *(unaligned##W *)p = v; }                   \
    HS_INLINE vec##W positive##W(vec##W v, vec##W g) { return (vec##W)((ints##W)g & (v > 0)); } \
    HS_INLINE vec##W from##W(vec##W v, int32_t n) {                                           \
        const ints##W lane = {__VA_ARGS__};                                                   \
        return (vec##W)((ints##W)v & (lane >= n));                                            \
    }
HS_DEFINE_VECTOR(4, 0, 1, 2, 3)
HS_DEFINE_VECTOR(8, 0, 1, 2, 3, 4, 5, 6, 7)
HS_DEFINE_VECTOR(16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
HS_INLINE vec1 load1(const float *p) { return *p; }
HS_INLINE void store1(float *p, vec1 v) { *p = v; }
HS_INLINE vec1 positive1(vec1 v, vec1 g) { return v > 0 ? g : 0; }
HS_INLINE vec1 from1(vec1 v, int32_t n) { return n > 0 ? 0 : v; }

/* Every second element of two vectors, and the way back: for windows two wide when a batch has one sample. */
HS_INLINE vec4 evens4(vec4 a, vec4 b) { return HS_SHUFFLE4(a, b, 0, 2, 4, 6); }
HS_INLINE vec4 odds4(vec4 a, vec4 b) { return HS_SHUFFLE4(a, b, 1, 3, 5, 7); }
HS_INLINE vec4 zip_low4(vec4 a, vec4 b) { return HS_SHUFFLE4(a, b, 0, 4, 1, 5); }
HS_INLINE vec4 zip_high4(vec4 a, vec4 b) { return HS_SHUFFLE4(a, b, 2, 6, 3, 7); }
HS_INLINE vec8 evens8(vec8 a, vec8 b) { return HS_SHUFFLE8(a, b, 0, 2, 4, 6, 8, 10, 12, 14); }
HS_INLINE vec8 odds8(vec8 a, vec8 b) { return HS_SHUFFLE8(a, b, 1, 3, 5, 7, 9, 11, 13, 15); }
HS_INLINE vec8 zip_low8(vec8 a, vec8 b) { return HS_SHUFFLE8(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
HS_INLINE vec8 zip_high8(vec8 a, vec8 b) { return HS_SHUFFLE8(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }

/* halve: the sum of a vector's two halves. Through registers: a copy through memory would keep the caller's there. */
#if defined(__clang__) || __GNUC__ >= 12
HS_INLINE vec8 halve16(vec16 v) {
    return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
           __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
}
HS_INLINE vec4 halve8(vec8 v) {
    return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
}
#else
HS_INLINE vec8 halve16(vec16 v) {
    return (vec8){v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]} +
           (vec8){v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15]};
}
HS_INLINE vec4 halve8(vec8 v) { return (vec4){v[0], v[1], v[2], v[3]} + (vec4){v[4], v[5], v[6], v[7]}; }
#endif

/* sums(a, b, c, d): the sums of all lanes of a, b, c and d as one vector of 4. */
HS_INLINE vec4 sums4(vec4 a, vec4 b, vec4 c, vec4 d) {
    vec4 ab = HS_SHUFFLE4(a, b, 0, 4, 1, 5) + HS_SHUFFLE4(a, b, 2, 6, 3, 7);
    vec4 cd = HS_SHUFFLE4(c, d, 0, 4, 1, 5) + HS_SHUFFLE4(c, d, 2, 6, 3, 7);
    return HS_SHUFFLE4(ab, cd, 0, 1, 4, 5) + HS_SHUFFLE4(ab, cd, 2, 3, 6, 7);
}
HS_INLINE vec4 sums8(vec8 a, vec8 b, vec8 c, vec8 d) { return sums4(halve8(a), halve8(b), halve8(c), halve8(d)); }
HS_INLINE vec4 sums16(vec16 a, vec16 b, vec16 c, vec16 d) {
    return sums8(halve16(a), halve16(b), halve16(c), halve16(d));
}
HS_INLINE vec4 sums1(vec1 a, vec1 b, vec1 c, vec1 d) { return (vec4){a, b, c, d}; }
HS_INLINE float sum4(vec4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }
HS_INLINE float sum8(vec8 v) { return sum4(halve8(v)); }
HS_INLINE float sum16(vec16 v) { return sum8(halve16(v)); }
HS_INLINE float sum1(vec1 v) { return v; }

#endif
