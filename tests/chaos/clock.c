/* LD_PRELOADed into a process: its wall clock is wrong by as many seconds as the file CHAOS_CLOCK says, now.
 *
 * The file holds one 64-bit number and may change at any time: then the clock jumps. Only the wall clock does, as on a
 * board without a clock of its own that finds a time server; the monotonic clock goes on. (libfaketime 0.9.10 does not do:
 * under it Python's time.sleep fails with EINVAL.)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *off;

__attribute__((constructor)) static void find_clock(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof *off, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) off = page;
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, id, now);
    if (!failed && off && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *off;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failed = (int)syscall(SYS_gettimeofday, now, zone);
    if (!failed && off) now->tv_sec += *off;
    return failed;
}

time_t time(time_t *now) {
    struct timespec fine = {0};
    clock_gettime(CLOCK_REALTIME, &fine);
    if (now) *now = fine.tv_sec;
    return fine.tv_sec;
}
