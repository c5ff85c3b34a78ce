/* An address space of many mappings, as a process with a large heap of its own making has.
 *
 *   many_mappings COUNT SECONDS
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "lifetime.h"

static volatile uint64_t result;

FRAME static void work_among_mappings(void) {
    uint64_t x = 1;
    for (unsigned turn = 0; turn < 400000; turn++) x = x * 6364136223846793005u + 1442695040888963407u;
    result = x;
}

/* Neighbours with different protections are not merged into one mapping. */
static unsigned map_pages(unsigned count) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *area = mmap(NULL, count * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) return 0;
    for (unsigned n = 1; n < count; n += 2)
        if (mprotect(area + n * page, page, PROT_READ | PROT_WRITE) != 0) return n;
    return count;
}

int main(int count, char **arguments) {
    if (count < 3) {
        fprintf(stderr, "usage: many_mappings COUNT SECONDS\n");
        return 2;
    }
    unsigned wanted = (unsigned)atoi(arguments[1]);
    unsigned mapped = map_pages(wanted);
    if (mapped < wanted) {
        fprintf(stderr, "many_mappings: only %u of %u (vm.max_map_count?)\n", mapped, wanted);
        return 1;
    }
    live_for(atof(arguments[2]));
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    do work_among_mappings();
    while (may_go_on());
    return 0;
}
