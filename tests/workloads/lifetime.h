/* How long a workload lives: never longer than its time, and never longer than the process that started it.
 *
 * In: seconds. Out: a question to ask between pieces of work. Never: a signal at the parent's death for the
 * first process: the kernel sends it when the *thread* that started the program ends. Children that a
 * workload forks from its only thread may use it.
 */
#ifndef LIFETIME_H
#define LIFETIME_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* A function that stays a frame of its own: not inlined, not cloned, not merged with one that looks alike. */
#define FRAME __attribute__((noipa))
/* After a call: keeps it from becoming a jump, which would lose the caller's frame. */
#define STAY __asm__ volatile("" ::: "memory")

static pid_t lifetime_parent;
static double lifetime_end;

static inline double monotonic_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline void live_for(double seconds) {
    lifetime_parent = getppid();
    lifetime_end = monotonic_s() + seconds;
}

static inline bool may_go_on(void) { return getppid() == lifetime_parent && monotonic_s() < lifetime_end; }

/* In a forked child: end with the parent, even when that ended before this call. */
static inline void die_with_parent(pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
}

#endif
