// A program whose stacks show what perf prints: see README.md beside the recordings.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <dlfcn.h>

static volatile uint64_t sink;
static double until;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static inline __attribute__((always_inline)) void mix(uint64_t x) { for (int i = 0; i < 20000; i++) sink += (x ^ i) * 2654435761u; }
static inline __attribute__((always_inline)) void outer_inlined(uint64_t x) { mix(x + 1); mix(x + 2); }
__attribute__((noinline)) void hash_headers(void) { outer_inlined(sink); asm volatile(""); }
__attribute__((noinline)) void recurse(int n) { if (n) recurse(n - 1); else mix(7); asm volatile(""); }
__attribute__((noinline)) void read_zero(void) {
    static char buffer[1 << 20];
    int fd = open("/dev/zero", O_RDONLY);
    for (int i = 0; i < 4; i++) if (read(fd, buffer, sizeof buffer) < 0) abort();
    close(fd);
    asm volatile("");
}
__attribute__((noinline)) void ask_time(void) { struct timeval t; for (int i = 0; i < 5000; i++) { gettimeofday(&t, 0); sink += t.tv_usec; } asm volatile(""); }
static void (*plugin)(void);
static void (*jitted)(void);
static void make_jitted(void) {
    // push rbp; mov rbp,rsp; mov ecx,200000; l: dec ecx; jnz l; pop rbp; ret
    static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xb9, 0x40, 0x0d, 0x03, 0x00, 0xff, 0xc9, 0x75, 0xfc, 0x5d, 0xc3};
    void *at = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(at, code, sizeof code);
    jitted = at;
    char name[64];
    snprintf(name, sizeof name, "/tmp/perf-%d.map", getpid());
    FILE *map = fopen(name, "w");
    fprintf(map, "%lx %x Lorg/example/Filter;::apply->Lorg/example/Rule;::test(Lorg/example/Request;)Z\n", (unsigned long)at, 4096);
    fclose(map);
}
static void *thread(void *name) {
    prctl(PR_SET_NAME, name);
    while (now() < until) { hash_headers(); recurse(6); }
    return 0;
}
int main(int argc, char **argv) {
    until = now() + (argc > 1 ? atof(argv[1]) : 3.0);
    void *lib = dlopen("/opt/gateway/plugin.so", RTLD_NOW);
    if (lib) { plugin = (void (*)(void))dlsym(lib, "plugin_access"); unlink("/opt/gateway/plugin.so"); }
    make_jitted();
    pthread_t a, b;
    pthread_create(&a, 0, thread, "log (x) 12 [3]");
    pthread_create(&b, 0, thread, "timer;1.5: a");
    while (now() < until) { hash_headers(); recurse(3); read_zero(); ask_time(); jitted(); if (plugin) plugin(); }
    pthread_join(a, 0); pthread_join(b, 0);
    return 0;
}
