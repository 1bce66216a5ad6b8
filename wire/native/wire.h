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

/* What is in a `MaskUpdate`; where it has bytes, from where on they are in the data. */
typedef struct {
    int64_t plain; /* it has the plain form; otherwise the rest says nothing, and other code must look */
    int64_t run, number, head, signs, signs_end; /* head: where the CBOR item of the signs begins */
    int64_t train_samples, correct, test_samples, peak_memory_kb;
    double loss, train_s, step_ms;
} hs_update;

/* libsodium's crypto_sign_open and crypto_sign. */
typedef int (*hs_open)(unsigned char *, unsigned long long *, const unsigned char *, unsigned long long,
                       const unsigned char *);
typedef int (*hs_sign)(unsigned char *, unsigned long long *, const unsigned char *, unsigned long long,
                       const unsigned char *);

/* Of each of `count` items, which lie in `data` from spans[2 i] to spans[2 i + 1]: */

/* Read the CBOR of a `MaskUpdate`. Any bytes are safe. */
void hs_read_updates(const uint8_t *data, const int64_t *spans, int64_t count, hs_update *updates);

/* Whether it, a signature and what is signed, is signed with its key, 32 bytes; `scratch` holds the longest. */
void hs_check_signatures(hs_open open, const uint8_t *data, const int64_t *spans, int64_t count, const uint8_t *keys,
                         uint8_t *scratch, uint8_t *good);

/* Its signature, 64 bytes, with one private key of 64 bytes; `scratch` holds the longest and 64 bytes. */
void hs_make_signatures(hs_sign sign, const uint8_t *data, const int64_t *spans, int64_t count, const uint8_t *key,
                        uint8_t *scratch, uint8_t *signatures);

/* `reference` with the signs turned that the code of symbols of one bit says, in `words` 64-bit words a row; `good`
 * says of which it is the code. Any bytes are safe. */
void hs_decode_masks(const uint8_t *data, const int64_t *spans, int64_t count, const uint8_t *contexts,
                     const int64_t *ends, int64_t layers, const uint64_t *reference, int64_t words, uint64_t *rows,
                     uint8_t *good);

#endif
