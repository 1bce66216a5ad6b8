/* Philox4x64-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", table 2 and section 3. */

#include "wire.h"

/* High word of a 128-bit product, by halves: 32-bit ARM and WebAssembly have no wider integer. */
static inline uint64_t high(uint64_t x, uint64_t y) {
    const uint64_t x0 = (uint32_t)x, x1 = x >> 32, y0 = (uint32_t)y, y1 = y >> 32;
    const uint64_t middle = x1 * y0;
    const uint64_t cross = (x0 * y0 >> 32) + (uint32_t)middle + x0 * y1;
    return x1 * y1 + (middle >> 32) + (cross >> 32);
}

void hs_philox(uint64_t k0, uint64_t k1, uint64_t first, int64_t count, uint64_t *out) {
    for (int64_t at = 0; at < count; at += 4, first++) {
        uint64_t a = first, b = 0, c = 0, d = 0, key0 = k0, key1 = k1;
        for (int turn = 0; turn < 10; turn++, key0 += 0x9E3779B97F4A7C15u, key1 += 0xBB67AE8584CAA73Bu) {
            const uint64_t p = a, q = c;
            a = high(q, 0xCA5A826395121157u) ^ b ^ key0;
            b = q * 0xCA5A826395121157u;
            c = high(p, 0xD2E7470EE14C6C93u) ^ d ^ key1;
            d = p * 0xD2E7470EE14C6C93u;
        }
        const uint64_t block[4] = {a, b, c, d};
        for (int64_t word = 0; word < 4 && at + word < count; word++) out[at + word] = block[word];
    }
}
