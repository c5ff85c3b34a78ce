/* Many short-lived children: each works for about a millisecond in `child_work` and exits.
 *
 *   spawner COUNT [PARALLEL]      PARALLEL: how many live at once, default 4
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "lifetime.h"

enum { SECONDS_MAX = 60 };

static volatile uint64_t result;

FRAME static void child_work(void) {
    uint64_t x = (uint64_t)getpid();
    for (unsigned turn = 0; turn < 400000; turn++) x = x * 6364136223846793005u + 1442695040888963407u;
    result = x;
}

FRAME static void start_child(pid_t parent) {
    pid_t child = fork();
    if (child == 0) {
        die_with_parent(parent);
        child_work();
        _exit(0);
    }
    if (child < 0) {
        perror("spawner: fork");
        exit(1);
    }
}

int main(int count, char **arguments) {
    unsigned children = count > 1 ? (unsigned)atoi(arguments[1]) : 2000;
    unsigned parallel = count > 2 ? (unsigned)atoi(arguments[2]) : 4;
    unsigned started = 0, ended = 0;
    pid_t own = getpid();
    live_for(SECONDS_MAX);
    printf("ready %d\n", (int)own);
    fflush(stdout);
    while (ended < children && may_go_on()) {
        while (started < children && started - ended < parallel) {
            start_child(own);
            started++;
        }
        if (wait(NULL) > 0) ended++;
    }
    printf("children %u\n", ended);
    return ended == children ? 0 : 1;
}
