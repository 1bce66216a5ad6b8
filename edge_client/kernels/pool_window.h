/* Max pooling of one row of windows, WIDTH lanes at a time; included by pool.c once per width.
 *
 * KH x KW are literals for the common windows. The winner's place takes a byte a lane.
 */
#define V HS_JOIN(vec, WIDTH)
#define INTS HS_JOIN(ints, WIDTH)
#define LOAD HS_JOIN(load, WIDTH)
#define STORE HS_JOIN(store, WIDTH)
#define NAME(x) HS_JOIN(x, WIDTH)

/* The first of the largest wins, as in torch. */
HS_INLINE void NAME(max_row_)(const hs_op *op, const float *x, int64_t pitch, float *y, uint8_t *places,
                              int64_t windows, int64_t lanes, const int KH, const int KW) {
    for (int64_t w = 0; w < windows; w++, x += op->stride_w * lanes, y += lanes, places += lanes)
        for (int64_t l = 0; l < lanes; l += WIDTH) {
            V best = LOAD(x + l);
            INTS place = (INTS){0};
            for (int i = 0; i < KH; i++)
                for (int j = 0; j < KW; j++) {
                    if (i + j == 0) continue;
                    const V v = LOAD(x + i * pitch + j * lanes + l);
                    const INTS larger = v > best;
                    best = (V)(((INTS)v & larger) | ((INTS)best & ~larger));
                    place = (place & ~larger) | (larger & (i * KW + j));
                }
            STORE(y + l, op->relu ? NAME(positive)(best, best) : best);
            NAME(put_places)(places + l, place);
        }
}

/* Windows that do not overlap: every element is written, the winner's with the gradient, the others with 0. */
HS_INLINE void NAME(spread_row_)(const hs_op *op, float *dx, int64_t pitch, const float *y, const float *dy,
                                 const uint8_t *places, int64_t windows, int64_t lanes, int cut, const int KH,
                                 const int KW) {
    for (int64_t w = 0; w < windows; w++, dx += op->stride_w * lanes, y += lanes, dy += lanes, places += lanes)
        for (int64_t l = 0; l < lanes; l += WIDTH) {
            V g = LOAD(dy + l);
            if (cut) g = NAME(positive)(LOAD(y + l), g);
            const INTS place = NAME(get_places)(places + l);
            for (int i = 0; i < KH; i++)
                for (int j = 0; j < KW; j++)
                    STORE(dx + i * pitch + j * lanes + l, (V)((INTS)g & (place == i * KW + j)));
        }
}

/* One lane, windows two wide: WIDTH windows at a time, as many as there are whole vectors; returns how many. */
HS_INLINE int64_t NAME(max_pairs_)(const hs_op *op, const float *x, int64_t pitch, float *y, uint8_t *places,
                                   int64_t windows, const int KH) {
    int64_t w = 0;
    for (; w + WIDTH <= windows; w += WIDTH, x += 2 * WIDTH) {
        V best = (V){0};
        INTS place = (INTS){0};
        for (int i = 0; i < KH; i++) {
            const V a = LOAD(x + i * pitch), b = LOAD(x + i * pitch + WIDTH);
            const V pair[2] = {NAME(evens)(a, b), NAME(odds)(a, b)};
            if (i == 0) best = pair[0];
            for (int j = i == 0; j < 2; j++) {
                const INTS larger = pair[j] > best;
                best = (V)(((INTS)pair[j] & larger) | ((INTS)best & ~larger));
                place = (place & ~larger) | (larger & (i * 2 + j));
            }
        }
        STORE(y + w, op->relu ? NAME(positive)(best, best) : best);
        NAME(put_places)(places + w, place);
    }
    return w;
}

HS_INLINE int64_t NAME(spread_pairs_)(const hs_op *op, float *dx, int64_t pitch, const float *y, const float *dy,
                                      const uint8_t *places, int64_t windows, int cut, const int KH) {
    int64_t w = 0;
    for (; w + WIDTH <= windows; w += WIDTH, dx += 2 * WIDTH) {
        V g = LOAD(dy + w);
        if (cut) g = NAME(positive)(LOAD(y + w), g);
        const INTS place = NAME(get_places)(places + w);
        for (int i = 0; i < KH; i++) {
            const V even = (V)((INTS)g & (place == i * 2)), odd = (V)((INTS)g & (place == i * 2 + 1));
            STORE(dx + i * pitch, NAME(zip_low)(even, odd));
            STORE(dx + i * pitch + WIDTH, NAME(zip_high)(even, odd));
        }
    }
    return w;
}

static void NAME(max_row)(const hs_op *op, const float *x, int64_t pitch, float *y, uint8_t *places, int64_t windows,
                          int64_t lanes) {
    if (op->kernel_h == 2 && op->kernel_w == 2)
        NAME(max_row_)(op, x, pitch, y, places, windows, lanes, 2, 2);
    else if (op->kernel_h == 1 && op->kernel_w == 2)
        NAME(max_row_)(op, x, pitch, y, places, windows, lanes, 1, 2);
    else
        NAME(max_row_)(op, x, pitch, y, places, windows, lanes, op->kernel_h, op->kernel_w);
}

static void NAME(spread_row)(const hs_op *op, float *dx, int64_t pitch, const float *y, const float *dy,
                             const uint8_t *places, int64_t windows, int64_t lanes, int cut) {
    if (op->kernel_h == 2 && op->kernel_w == 2)
        NAME(spread_row_)(op, dx, pitch, y, dy, places, windows, lanes, cut, 2, 2);
    else if (op->kernel_h == 1 && op->kernel_w == 2)
        NAME(spread_row_)(op, dx, pitch, y, dy, places, windows, lanes, cut, 1, 2);
    else
        NAME(spread_row_)(op, dx, pitch, y, dy, places, windows, lanes, cut, op->kernel_h, op->kernel_w);
}

#undef V
#undef INTS
#undef LOAD
#undef STORE
#undef NAME
