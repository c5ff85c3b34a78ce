/* Prints what the clocks say to a program: "monotonic S", "boottime S", "realtime S", a line each. */
#include <stdio.h>
#include <time.h>

static void print_clock(const char *name, clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    printf("%s %.6f\n", name, (double)now.tv_sec + (double)now.tv_nsec / 1e9);
}

int main(void) {
    print_clock("monotonic", CLOCK_MONOTONIC);
    print_clock("boottime", CLOCK_BOOTTIME);
    print_clock("realtime", CLOCK_REALTIME);
    return 0;
}
