/* CPU time split 70 to 30 between two functions, at the bottom of a recursion.
 *
 *   split SECONDS [DEPTH]        DEPTH: calls of `descend` above the two, default 20
 *   split SECONDS DEPTH ways     other calls instead: DEPTH times `left` or `right`, another way each time, of 2^DEPTH
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lifetime.h"

enum { UNIT = 20000 };

static volatile uint64_t result;

/* The same machine code for both, so that equal turns are equal time. */
#define DEFINE_WORK(name)                                                                      \
    FRAME static void name(uint64_t turns) {                                                   \
        uint64_t x = turns;                                                                    \
        while (turns-- > 0) x = x * 6364136223846793005u + 1442695040888963407u;               \
        result = x;                                                                            \
    }
DEFINE_WORK(seventy)
DEFINE_WORK(thirty)

FRAME static unsigned descend(unsigned depth) {
    volatile char on_stack[160];
    on_stack[0] = (char)depth;
    if (depth > 0) {
        unsigned below = descend(depth - 1);
        STAY;
        return below + (unsigned)on_stack[0];
    }
    seventy(7 * UNIT);
    thirty(3 * UNIT);
    STAY;
    return (unsigned)on_stack[0];
}

static uint64_t way = 1;

static void left(unsigned depth);
static void right(unsigned depth);

#define DEFINE_TURN(name)                                                                      \
    FRAME static void name(unsigned depth) {                                                   \
        if (depth == 0) thirty(5 * UNIT);                                                      \
        else if (way >> (31 + depth) & 1) left(depth - 1);                                     \
        else right(depth - 1);                                                                 \
        STAY;                                                                                  \
    }
DEFINE_TURN(left)
DEFINE_TURN(right)

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: split SECONDS [DEPTH]\n");
        return 2;
    }
    unsigned depth = count > 2 ? (unsigned)atoi(arguments[2]) : 20;
    live_for(atof(arguments[1]));
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    if (count > 3 && strcmp(arguments[3], "ways") == 0) {
        do {
            way = way * 6364136223846793005u + 1442695040888963407u;
            left(depth);
        } while (may_go_on());
        return 0;
    }
    do descend(depth);
    while (may_go_on());
    return 0;
}
