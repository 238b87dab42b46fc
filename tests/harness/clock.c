/* A wall clock that is ahead of the machine's, or behind it, by what stands in a file: LD_PRELOAD this (clock.py).
 *
 * BENCH_CLOCK is the path of a file with one 64-bit number, nanoseconds, which is mapped: a move is seen at once, by all
 * processes at the same moment, and looking costs nothing. Timers are not touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t BILLION = 1000000000;
static const int64_t none = 0;
static const int64_t *offset = &none;
static int (*kernel_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    kernel_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("BENCH_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *found = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) offset = found;
    close(file);
}

int clock_gettime(clockid_t which, struct timespec *shown) {
    if (!kernel_clock) begin();
    int failed = kernel_clock(which, shown);
    if (failed || (which != CLOCK_REALTIME && which != CLOCK_REALTIME_COARSE)) return failed;
    int64_t now = shown->tv_sec * BILLION + shown->tv_nsec + __atomic_load_n(offset, __ATOMIC_RELAXED);
    shown->tv_sec = now / BILLION;
    shown->tv_nsec = now % BILLION;
    return 0;
}

time_t time(time_t *also) {
    struct timespec shown;
    clock_gettime(CLOCK_REALTIME, &shown);
    if (also) *also = shown.tv_sec;
    return shown.tv_sec;
}

int gettimeofday(struct timeval *restrict shown, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    shown->tv_sec = exact.tv_sec;
    shown->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
