/* One input of the fuzzer for the native coder: coded symbols, symbols, packed or coded masks, or
 * updates of devices, as its first byte says.
 *
 * Every array is allocated to the byte, so that the address sanitizer sees one step too far; what comes out is
 * compared with what must hold. Linked with libFuzzer, or with driver.c where there is none. */

#include "../../wire/native/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(holds) \
    do { \
        if (!(holds)) { \
            fprintf(stderr, "coder.c:%d: %s does not hold\n", __LINE__, #holds); \
            abort(); \
        } \
    } while (0)

enum { LAYERS = 4, PATTERN = 16, MASKS = 40 }; /* MASKS: more than twice as many as there are lanes */

typedef struct {
    const uint8_t *data;
    size_t size;
} input;

static uint8_t byte(input *in) {
    if (!in->size) return 0;
    in->size--;
    return *in->data++;
}

static void *array(int64_t count, size_t size) { /* malloc(0) may be NULL, which no caller passes on */
    uint8_t *made = malloc(count > 0 ? (size_t)count * size : 1);
    CHECK(made);
    memset(made, 0xa5, count > 0 ? (size_t)count * size : 1);
    return made;
}

typedef struct {
    int64_t bits, count, layers, ends[LAYERS];
    uint8_t *contexts;
} question;

static question ask(input *in) {
    question q = {.bits = 1 + byte(in) % 4, .layers = 1 + byte(in) % LAYERS};
    q.count = byte(in) & 63;
    if (byte(in) == 7) q.count = q.count << 3 | 5; /* rarely, for it is slow */
    for (int64_t i = 0; i < q.layers; i++) q.ends[i] = q.count * byte(in) / 255;
    q.ends[q.layers - 1] = q.count;
    for (int64_t i = q.layers - 1; i > 0; i--)
        if (q.ends[i - 1] > q.ends[i]) q.ends[i - 1] = q.ends[i];
    uint8_t pattern[PATTERN], length = (uint8_t)(1 + byte(in) % PATTERN);
    for (int i = 0; i < length; i++) pattern[i] = byte(in) & 15;
    q.contexts = array(q.count, 1);
    for (int64_t i = 0; i < q.count; i++) q.contexts[i] = pattern[i % length];
    return q;
}

/* Symbols -> bytes -> the same symbols, in the room that is promised; the number of bytes. */
static int64_t round_trip(const question *q, const uint8_t *symbols) {
    int64_t room = 2 * q->count * q->bits + 8;
    uint8_t *out = array(room, 1), *again = array(q->count, 1);
    int64_t size = hs_adaptive_encode(symbols, q->contexts, q->ends, q->layers, q->bits, out);
    CHECK(size >= 0 && size <= room);
    CHECK(!size || out[size - 1]);
    uint8_t *coded = array(size, 1);
    memcpy(coded, out, (size_t)size);
    CHECK(hs_adaptive_decode(coded, size, q->contexts, q->ends, q->layers, q->bits, again) == 0);
    CHECK(memcmp(again, symbols, (size_t)q->count) == 0);
    free(coded), free(again), free(out);
    return size;
}

static void decode(input *in) {
    question q = ask(in);
    int64_t size = (int64_t)in->size;
    uint8_t *coded = array(size, 1), *symbols = array(q.count, 1);
    if (size) memcpy(coded, in->data, in->size);
    int64_t found = hs_adaptive_decode(coded, size, q.contexts, q.ends, q.layers, q.bits, symbols);
    CHECK(found == 0 || found == -1);
    for (int64_t i = 0; i < q.count; i++) CHECK(symbols[i] >> q.bits == 0);
    int64_t shortest = round_trip(&q, symbols);
    int beyond = size >= 8 && !memcmp(coded, "\xff\xff\xff\xff\xff\xff\xff\xff", 8); /* of every interval */
    CHECK(found || beyond || shortest <= size);
    free(symbols), free(coded), free(q.contexts);
}

static void encode(input *in) {
    question q = ask(in);
    uint8_t *symbols = array(q.count, 1);
    for (int64_t i = 0; i < q.count; i++) symbols[i] = (in->size ? in->data[(size_t)i % in->size] : 0) & ((1 << q.bits) - 1);
    round_trip(&q, symbols);
    free(symbols), free(q.contexts);
}

static void count(input *in) {
    int64_t rows = 1 + byte(in) % 40, words = byte(in) % 12;
    if (byte(in) == 7) words += 505; /* past one tile; rarely, for it is slow */
    uint64_t *masks = array(rows * words, sizeof *masks);
    for (int64_t i = 0; i < rows * words * 8; i++)
        ((uint8_t *)masks)[i] = in->size ? (uint8_t)(in->data[(size_t)i % in->size] + i / 64) : (uint8_t)i;
    uint16_t *counts = array(64 * words, sizeof *counts), before = 0xa5a5; /* they are added to */
    hs_count_votes(masks, rows, words, counts);
    for (int64_t word = 0; word < words; word++)
        for (int bit = 0; bit < 64; bit++) {
            uint16_t expected = before;
            for (int64_t row = 0; row < rows; row++) expected += masks[row * words + word] >> bit & 1;
            CHECK(counts[64 * word + bit] == expected);
        }
    free(counts), free(masks);
}

/* Coded masks at once, in parts of the same bytes, are what each is alone. */
static void masks(input *in) {
    question q = ask(in);
    int64_t words = (q.count + 63) / 64, count = 1 + byte(in) % MASKS, spans[2 * MASKS];
    uint8_t ends[2 * MASKS], good[MASKS];
    for (int64_t i = 0; i < 2 * count; i++) ends[i] = byte(in);
    int64_t size = (int64_t)in->size;
    uint64_t *reference = array(words, sizeof *reference), *rows = array(count * words, sizeof *rows);
    uint8_t *coded = array(size, 1), *symbols = array(q.count, 1);
    if (size) memcpy(coded, in->data, in->size);
    for (int64_t i = 0; i < count; i++) {
        int64_t from = ends[2 * i] * size / 255, to = ends[2 * i + 1] * size / 255;
        spans[2 * i] = from < to ? from : to, spans[2 * i + 1] = from < to ? to : from;
    }
    hs_decode_masks(coded, spans, count, q.contexts, q.ends, q.layers, reference, words, rows, good);
    for (int64_t mask = 0; mask < count; mask++) {
        int64_t from = spans[2 * mask], length = spans[2 * mask + 1] - from;
        uint8_t *alone = array(length, 1);
        if (length) memcpy(alone, coded + from, (size_t)length);
        int64_t found = hs_adaptive_decode(alone, length, q.contexts, q.ends, q.layers, 1, symbols);
        int padded = length && !alone[length - 1]; /* no code ends in zeros */
        CHECK(good[mask] == (found == 0 && !padded));
        for (int64_t i = 0; i < q.count && good[mask]; i++)
            CHECK(((rows[mask * words + i / 64] ^ reference[i / 64]) >> i % 64 & 1) == symbols[i]);
        free(alone);
    }
    free(symbols), free(coded), free(rows), free(reference), free(q.contexts);
}

/* What updates say lies in them. */
static void updates(input *in) {
    int64_t size = (int64_t)in->size, spans[2] = {0, size};
    uint8_t *data = array(size, 1);
    hs_update *found = array(1, sizeof *found);
    if (size) memcpy(data, in->data, in->size);
    hs_read_updates(data, spans, 1, found);
    if (found->plain) {
        CHECK(found->run >= 0 && found->run + 8 <= size);
        CHECK(found->run < found->head && found->head < found->signs);
        CHECK(found->signs <= found->signs_end && found->signs_end < size);
        CHECK(found->number >= 0 && found->train_samples >= 0 && found->correct >= 0);
        CHECK(found->test_samples >= 0 && found->peak_memory_kb >= 0);
    }
    free(found), free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    switch (byte(&in) % 8) {
    case 0: case 1: case 2: decode(&in); break;
    case 3: masks(&in); break;
    case 4: updates(&in); break;
    case 5: case 6: encode(&in); break;
    default: count(&in);
    }
    return 0;
}
