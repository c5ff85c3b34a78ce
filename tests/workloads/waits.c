/* Time asleep split 70 to 30 between two functions.
 *
 *   waits SECONDS
 */
#include <stdio.h>
#include <stdlib.h>

#include "lifetime.h"

static void asleep(long ms) {
    struct timespec time = {0, ms * 1000000};
    nanosleep(&time, NULL);
}

FRAME static void sleep70(void) {
    asleep(70);
    STAY;
}

FRAME static void sleep30(void) {
    asleep(30);
    STAY;
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: waits SECONDS\n");
        return 2;
    }
    live_for(atof(arguments[1]));
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    do {
        sleep70();
        sleep30();
    } while (may_go_on());
    return 0;
}
