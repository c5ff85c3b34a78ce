/* The same event again and again, so many calls deep, and what each costs.
 *
 *   paced SECONDS EVENT DEPTH       EVENT: work, read, wait, sleep, allocate; DEPTH: calls of `descend` above it
 *
 * Each second a line: nanoseconds of the monotonic clock, how many events there were since the start, nanoseconds of CPU that
 * the process has used since then, and those that all CPUs were idle since the boot. `work` goes on without a pause; of the others there are about 200 a second, paced by
 * sleeps of the thread `main`, which `sleep` has in the event itself.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "lifetime.h"

enum { TURNS = 20000, PAUSE_NS = 5000000 };

static volatile uint64_t result;
static void *volatile kept;
static uint32_t word;
static int zero;

static void asleep(long ns) {
    struct timespec time = {0, ns};
    nanosleep(&time, NULL);
}

FRAME static void work(void) {
    uint64_t x = 1;
    for (int turns = TURNS; turns > 0; turns--) x = x * 6364136223846793005u + 1442695040888963407u;
    result = x;
}

FRAME static void read_one(void) {
    char byte;
    if (read(zero, &byte, 1) != 1) exit(1);
    STAY;
}

/* Nobody wakes it. */
FRAME static void wait_in_vain(void) {
    struct timespec time = {0, 1000};
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);
    STAY;
}

FRAME static void sleep_once(void) {
    asleep(PAUSE_NS);
    STAY;
}

FRAME static void allocate(void) {
    kept = malloc(100);
    free(kept);
    STAY;
}

static const struct {
    const char *name;
    void (*once)(void);
    long pause_ns;
} events[] = {
    {"work", work, 0},          {"read", read_one, PAUSE_NS},      {"wait", wait_in_vain, PAUSE_NS},
    {"sleep", sleep_once, 0}, {"allocate", allocate, PAUSE_NS},
};

FRAME static void descend(unsigned depth, void (*once)(void)) {
    if (depth > 0)
        descend(depth - 1, once);
    else
        once();
    STAY;
}

static uint64_t now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The fifth word of /proc/stat, in hundredths of a second. */
static uint64_t idle_ns(void) {
    unsigned long long idle = 0;
    FILE *stat = fopen("/proc/stat", "r");
    if (!stat || fscanf(stat, "cpu %*u %*u %*u %llu", &idle) != 1) exit(1);
    fclose(stat);
    return idle * 10000000u;
}

int main(int count, char **arguments) {
    unsigned event = 0, all = sizeof events / sizeof *events;
    while (count > 3 && event < all && strcmp(arguments[2], events[event].name)) event++;
    if (count < 4 || event == all) {
        fprintf(stderr, "usage: paced SECONDS work|read|wait|sleep|allocate DEPTH\n");
        return 2;
    }
    unsigned depth = (unsigned)atoi(arguments[3]);
    zero = open("/dev/zero", O_RDONLY);
    live_for(atof(arguments[1]));
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    uint64_t done = 0, told = now_ns(CLOCK_MONOTONIC);
    do {
        // Many between two looks at the clock.
        for (int i = 0; i < 20; i++, done++) {
            descend(depth, events[event].once);
            if (events[event].pause_ns) asleep(events[event].pause_ns);
        }
        uint64_t now = now_ns(CLOCK_MONOTONIC);
        if (now - told >= 1000000000u) {
            told = now;
            printf("%llu %llu %llu %llu\n", (unsigned long long)now, (unsigned long long)done,
                   (unsigned long long)now_ns(CLOCK_PROCESS_CPUTIME_ID), (unsigned long long)idle_ns());
            fflush(stdout);
        }
    } while (may_go_on());
    return 0;
}
