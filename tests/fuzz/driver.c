/* What libFuzzer does, in short, for compilers without it: driver RUNS SECONDS SEED CRASH-FILE CORPUS-FILE...
 *
 * Changes corpus files at random, without knowing what that reaches. An input that crashes is written to CRASH-FILE.
 * With RUNS 0 it runs the files as they are. The last line says how many inputs were run. */

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 600, POOL = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_set_death_callback(void (*callback)(void));

static uint8_t current[LONGEST];
static size_t current_size;
static const char *crash_file;
static uint64_t state;

static void keep_crash(void) {
    int file = open(crash_file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file >= 0 && write(file, current, current_size) >= 0) close(file);
}

static void on_abort(int number) {
    keep_crash();
    signal(number, SIG_DFL);
    raise(number);
}

static uint64_t draw(uint64_t below) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (state * 0x2545f4914f6cdd1d >> 16) % below;
}

static void alter(void) {
    for (uint64_t edits = 1 + draw(6); edits; edits--) {
        size_t at = draw(current_size + 1), some = 1 + draw(8);
        switch (draw(5)) {
            case 0:
                if (at < current_size) current[at] ^= (uint8_t)(1 << draw(8));
                break;
            case 1:
                if (at < current_size) current[at] = (uint8_t)(draw(2) ? draw(256) : draw(2) ? 255 : 0);
                break;
            case 2: /* cut */
                if (at + some > current_size) some = current_size - at;
                memmove(current + at, current + at + some, current_size - at - some);
                current_size -= some;
                break;
            case 3: /* insert */
                if (current_size + some > LONGEST) break;
                memmove(current + at + some, current + at, current_size - at);
                memset(current + at, (int)draw(256), some);
                current_size += some;
                break;
            default:
                for (; some && at < current_size; some--) current[at++] = (uint8_t)draw(256);
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 6) return 2;
    long runs = atol(argv[1]), done = 0;
    time_t end = time(NULL) + atol(argv[2]);
    state = strtoull(argv[3], NULL, 10) * 2 + 1;
    crash_file = argv[4];
    __sanitizer_set_death_callback(keep_crash);
    signal(SIGABRT, on_abort);
    static uint8_t pool[POOL][LONGEST];
    static size_t sizes[POOL];
    size_t files = 0;
    for (int i = 5; i < argc && files < POOL; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) return 2;
        current_size = sizes[files] = fread(pool[files], 1, LONGEST, file);
        memcpy(current, pool[files], current_size);
        fclose(file);
        files++, done++;
        LLVMFuzzerTestOneInput(current, current_size);
    }
    for (; done < runs; done++) {
        if (done % 1024 == 0 && time(NULL) >= end) break;
        size_t chosen = draw(files);
        current_size = sizes[chosen];
        memcpy(current, pool[chosen], current_size);
        alter();
        LLVMFuzzerTestOneInput(current, current_size);
        if (draw(64) == 0) { /* a walk away from the files */
            sizes[chosen] = current_size;
            memcpy(pool[chosen], current, current_size);
        }
    }
    printf("%ld inputs\n", done);
    return 0;
}
