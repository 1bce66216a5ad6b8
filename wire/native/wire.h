/* What Python calls; `library.py` mirrors it. Pointers and lengths come checked from there. */

#ifndef HS_WIRE_H
#define HS_WIRE_H

#include <stdint.h>

/* Of these declarations. */
int64_t hs_wire_version(void);

/* Contexts are below 16 and symbols of at most 4 bits. */
#define HS_STATES 256

/* Code n = `ends[layers - 1]` symbols; the number of bytes. `out` holds 2 n bits + 8: no decision takes over 16 bits. */
int64_t hs_adaptive_encode(const uint8_t *symbols, const uint8_t *contexts, const int64_t *ends, int64_t layers,
                           int64_t bits, uint8_t *out);

/* Inverse; 0, or -1 if bytes are left over. Any bytes are safe. */
int64_t hs_adaptive_decode(const uint8_t *data, int64_t size, const uint8_t *contexts, const int64_t *ends,
                           int64_t layers, int64_t bits, uint8_t *symbols);

/* Add `rows` packed masks of `words` 64-bit words each to `counts`, uint16, 64 a word. rows <= 65535. */
void hs_count_votes(const uint64_t *masks, int64_t rows, int64_t words, uint16_t *counts);

/* `count` words of Philox4x64-10 under a key, from the block whose counter is `first`. */
void hs_philox(uint64_t k0, uint64_t k1, uint64_t first, int64_t count, uint64_t *out);

#endif
