/* Many different stacks: each turn goes another way through eight functions, and reads one byte at its end.
 *
 *   stacks SECONDS DEPTH [TURNS]      DEPTH: calls above `leaf`; there are 8^DEPTH ways. TURNS: work of each way, 20000 if not given
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "lifetime.h"

static volatile uint64_t result;
static uint64_t turns_of_each = 20000;
static int zero;

FRAME static unsigned leaf(uint64_t turns) {
    uint64_t x = turns;
    while (turns-- > 0) x = x * 6364136223846793005u + 1442695040888963407u;
    result = x;
    char byte;
    unsigned had = (unsigned)read(zero, &byte, 1);
    STAY;
    return had;
}

#define EACH_WAY(do) do(way0) do(way1) do(way2) do(way3) do(way4) do(way5) do(way6) do(way7)
#define DECLARE(way) static unsigned way(unsigned depth, uint64_t ways);
#define NAME(way) way,
EACH_WAY(DECLARE)
static unsigned (*const next[])(unsigned, uint64_t) = {EACH_WAY(NAME)};

static inline unsigned descend(unsigned depth, uint64_t ways) {
    return depth == 0 ? leaf(turns_of_each) : next[ways & 7](depth - 1, ways >> 3 | ways << 61);
}

#define DEFINE(way)                                                                            \
    FRAME static unsigned way(unsigned depth, uint64_t ways) {                                 \
        unsigned below = descend(depth, ways);                                                 \
        STAY;                                                                                  \
        return below;                                                                          \
    }
EACH_WAY(DEFINE)

int main(int count, char **arguments) {
    if (count < 3) {
        fprintf(stderr, "usage: stacks SECONDS DEPTH [TURNS]\n");
        return 2;
    }
    unsigned depth = (unsigned)atoi(arguments[2]);
    if (count > 3) turns_of_each = strtoull(arguments[3], NULL, 10);
    zero = open("/dev/zero", O_RDONLY);
    live_for(atof(arguments[1]));
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    uint64_t ways = 1;
    do {
        ways = ways * 6364136223846793005u + 1442695040888963407u;
        descend(depth, ways >> 16);
    } while (may_go_on());
    return 0;
}
