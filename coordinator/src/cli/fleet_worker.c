/* A gateway's look-alike: a master and workers that serve made-up requests through deep, well-named stacks.
 *
 *   fleet_worker [--workers N] [--duty PCT] [--hot FUNCTION] [--hot-share PCT] [--duration-s S] [--title NAME]
 *
 *   --workers N         worker processes, default 2
 *   --duty PCT          of one CPU, what ordinary requests take in each worker, default 20
 *   --hot FUNCTION      authenticate, rate_limit, transform_response or proxy_upstream costs more than elsewhere:
 *                       the requests stay as many, the worker's CPU use grows
 *   --hot-share PCT     the hot spot's share of all CPU time of the worker, default 40
 *   --duration-s S      at most so long, default 60
 *   --title NAME        the processes call themselves "NAME: master process" and "NAME: worker process",
 *                       default gateway
 *
 * In: nothing but the options. Out: "ready MASTER WORKER…" on stdout when the workers serve; at the end one JSON
 * object with requests and CPU time per worker and the true share of each function.
 * Never: network, files, more CPU than asked for, or a life longer than that of the process that started it.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A function that stays a frame of its own, and a call that stays a call. */
#if defined(__clang__)
#define FRAME __attribute__((noinline))
#else
#define FRAME __attribute__((noipa))
#endif
#define STAY __asm__ volatile("" ::: "memory")

enum { WORKERS_MAX = 64, UNIT_US = 10, BURST_MS = 50 };

/* --- the work: what each function costs in a request, in units of ten microseconds ---------------------- */

#define WORK(X)          \
    X(parse_headers, 8)  \
    X(match_route, 10)   \
    X(check_signature, 22) \
    X(count_in_window, 9)  \
    X(decode_body, 12)   \
    X(encode_body, 16)   \
    X(pick_peer, 5)      \
    X(copy_body, 12)     \
    X(format_entry, 6)

/* Where a hot spot can be, and the two frames below it: function, what it calls, where the time goes. */
#define HOT_SPOTS(X)                                     \
    X(authenticate, fetch_keys, parse_certificate)       \
    X(rate_limit, redis_connect, tls_handshake)          \
    X(transform_response, compile_pattern, backtrack)    \
    X(proxy_upstream, resolve_name, wait_for_answer)

enum hot_spot {
    NO_HOT_SPOT,
#define X(function, below, leaf) HOT_##function,
    HOT_SPOTS(X)
#undef X
};

static enum hot_spot hot = NO_HOT_SPOT;
static unsigned hot_units;
static uint64_t turns_a_unit = 1;
static volatile uint64_t result;

static inline __attribute__((always_inline)) void spend(unsigned units) {
    uint64_t x = units, turns = units * turns_a_unit;
    while (turns-- > 0) x = x * 6364136223846793005u + 1442695040888963407u;
    result = x;
}

#define X(name, units) \
    FRAME static void name(void) { spend(units); }
WORK(X)
#undef X

#define X(function, below, leaf)                       \
    FRAME static void leaf(void) { spend(hot_units); } \
    FRAME static void below(void) { leaf(); STAY; }
HOT_SPOTS(X)
#undef X

#define MAYBE_HOT(function, below) \
    if (hot == HOT_##function) below()

FRAME static void verify_token(void) { check_signature(); STAY; }
FRAME static void authenticate(void) { verify_token(); MAYBE_HOT(authenticate, fetch_keys); STAY; }
FRAME static void rate_limit(void) { count_in_window(); MAYBE_HOT(rate_limit, redis_connect); STAY; }
FRAME static void transform_response(void) {
    decode_body();
    MAYBE_HOT(transform_response, compile_pattern);
    encode_body();
    STAY;
}
FRAME static void run_plugins(void) { authenticate(); rate_limit(); transform_response(); STAY; }
FRAME static void route_request(void) { match_route(); run_plugins(); STAY; }
FRAME static void proxy_upstream(void) {
    pick_peer();
    MAYBE_HOT(proxy_upstream, resolve_name);
    copy_body();
    STAY;
}
FRAME static void write_log(void) { format_entry(); STAY; }
FRAME static void serve_request(void) { parse_headers(); route_request(); proxy_upstream(); write_log(); STAY; }
FRAME static void handle_connection(void) { serve_request(); STAY; }

/* --- pace: as much CPU as asked for, and no more -------------------------------------------------------- */

struct options {
    unsigned workers, duty_pct, hot_share_pct;
    double duration_s;
    const char *title;
};

struct tally {
    uint64_t requests, cpu_ns;
    pid_t pid;
};

static double clock_s(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sleep_s(double s) {
    struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
}

static unsigned ordinary_units(void) {
    unsigned sum = 0;
#define X(name, units) sum += units;
    WORK(X)
#undef X
    return sum;
}

/* How many turns a unit has on this machine, by CPU time, so that a busy machine does not matter. */
static void calibrate(void) {
    double best = 0;
    turns_a_unit = 1000;
    for (int round = 0; round < 5; round++) {
        double start = clock_s(CLOCK_PROCESS_CPUTIME_ID);
        spend(1000);
        double rate = 1000.0 * (double)turns_a_unit / (clock_s(CLOCK_PROCESS_CPUTIME_ID) - start);
        if (rate > best) best = rate;
    }
    turns_a_unit = (uint64_t)(best * UNIT_US / 1e6);
}

/* Serves requests for ever; rests whenever it has used more than `share` of the time since `begin`. */
FRAME static void event_loop(double share, struct tally *tally) {
    double begin = clock_s(CLOCK_MONOTONIC), cpu_begin = clock_s(CLOCK_PROCESS_CPUTIME_ID);
    for (;;) {
        handle_connection();
        double cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID);
        tally->requests++;
        tally->cpu_ns = (uint64_t)(cpu * 1e9);
        double ahead = (cpu - cpu_begin) / share - (clock_s(CLOCK_MONOTONIC) - begin);
        if (ahead > 0) sleep_s(ahead);
        /* Kept waiting by others: what was missed is not caught up with. */
        if (ahead < -BURST_MS / 1e3) begin += -ahead - BURST_MS / 1e3;
    }
}

/* --- processes ------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t asked_to_stop;
static void on_stop(int signal) { asked_to_stop = signal; }

static char *title_area;
static size_t title_bytes;

static void take_title(const char *name, const char *role) {
    char title[64];
    snprintf(title, sizeof title, "%s: %s process", name, role);
    memset(title_area, 0, title_bytes);
    memcpy(title_area, title, strnlen(title, title_bytes - 1));
    prctl(PR_SET_NAME, name);
}

static void become_worker(const struct options *o, pid_t master, struct tally *tally) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != master) _exit(1);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    take_title(o->title, "worker");
    double share = o->duty_pct / 100.0;
    if (hot != NO_HOT_SPOT) share = share * 100 / (100 - o->hot_share_pct);
    event_loop(share < 1 ? share : 1, tally);
}

static void report(const struct options *o, const struct tally *tally) {
    double all = ordinary_units() + hot_units;
    printf("{\"workers\":[");
    for (unsigned n = 0; n < o->workers; n++)
        printf("%s{\"pid\":%d,\"requests\":%llu,\"cpu_ns\":%llu}", n ? "," : "", (int)tally[n].pid,
               (unsigned long long)tally[n].requests, (unsigned long long)tally[n].cpu_ns);
    printf("],\"shares\":{");
#define X(name, units) printf("\"%s\":%.5f,", #name, units / all);
    WORK(X)
#undef X
    const char *leaf = "";
#define X(function, below, name) \
    if (hot == HOT_##function) leaf = #name;
    HOT_SPOTS(X)
#undef X
    if (*leaf) printf("\"%s\":%.5f,", leaf, hot_units / all);
    printf("\"sum\":1}}\n");
}

/* --- options -------------------------------------------------------------------------------------------- */

static void wrong_usage(const char *what) {
    fprintf(stderr, "fleet_worker: %s (see the head of its source)\n", what);
    exit(2);
}

static unsigned number(const char *text, unsigned least, unsigned most) {
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text == 0 || *end != 0 || value < least || value > most) wrong_usage("a number is missing or out of range");
    return (unsigned)value;
}

static enum hot_spot hot_spot_named(const char *name) {
#define X(function, below, leaf) \
    if (strcmp(name, #function) == 0) return HOT_##function;
    HOT_SPOTS(X)
#undef X
    wrong_usage("no hot spot of that name");
    return NO_HOT_SPOT;
}

static struct options options_from(int count, char **arguments) {
    struct options o = {2, 20, 40, 60, "gateway"};
    for (int n = 1; n < count; n += 2) {
        const char *name = arguments[n], *value = n + 1 < count ? arguments[n + 1] : "";
        if (strcmp(name, "--workers") == 0) o.workers = number(value, 1, WORKERS_MAX);
        else if (strcmp(name, "--duty") == 0) o.duty_pct = number(value, 1, 100);
        else if (strcmp(name, "--hot") == 0) hot = hot_spot_named(value);
        else if (strcmp(name, "--hot-share") == 0) o.hot_share_pct = number(value, 1, 95);
        else if (strcmp(name, "--duration-s") == 0) o.duration_s = number(value, 1, 3600);
        else if (strcmp(name, "--title") == 0) o.title = strndup(value, 15);
        else wrong_usage("unknown option");
    }
    if (hot != NO_HOT_SPOT) hot_units = ordinary_units() * o.hot_share_pct / (100 - o.hot_share_pct);
    return o;
}

int main(int count, char **arguments) {
    pid_t parent = getppid(), master = getpid();
    struct options o = options_from(count, arguments);
    title_area = arguments[0];
    title_bytes = (size_t)(arguments[count - 1] + strlen(arguments[count - 1]) + 1 - arguments[0]);
    size_t bytes = sizeof(struct tally) * WORKERS_MAX;
    struct tally *tally = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tally == MAP_FAILED) return 1;
    calibrate();
    double end = clock_s(CLOCK_MONOTONIC) + o.duration_s;
    signal(SIGTERM, on_stop);
    signal(SIGINT, on_stop);
    for (unsigned n = 0; n < o.workers; n++) {
        pid_t pid = fork();
        if (pid == 0) become_worker(&o, master, &tally[n]);
        if (pid < 0) return perror("fleet_worker: fork"), 1;
        tally[n].pid = pid;
    }
    take_title(o.title, "master");
    printf("ready %d", (int)master);
    for (unsigned n = 0; n < o.workers; n++) printf(" %d", (int)tally[n].pid);
    printf("\n");
    fflush(stdout);
    /* Asked instead of signalled: the kernel would send that signal when the parent's thread ends. */
    bool lost_worker = false;
    while (!asked_to_stop && !lost_worker && getppid() == parent && clock_s(CLOCK_MONOTONIC) < end) {
        sleep_s(0.05);
        lost_worker = waitpid(-1, NULL, WNOHANG) != 0;
    }
    for (unsigned n = 0; n < o.workers; n++) kill(tally[n].pid, SIGKILL);
    while (wait(NULL) > 0) {}
    report(&o, tally);
    return lost_worker;
}
