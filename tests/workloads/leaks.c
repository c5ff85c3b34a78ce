/* Memory that is not freed, in shares that are known.
 *
 *   leaks SECONDS
 *
 * Of the bytes that stay, 3 of 4 are of leak_most and 1 of leak_less, half of each by realloc or aligned; what free_all takes
 * it gives back.
 */
#include <stdio.h>
#include <stdlib.h>

#include "lifetime.h"

static void *volatile kept;

FRAME static void leak_most(void) {
    kept = malloc(1500);
    kept = realloc(malloc(700), 1500);
    STAY;
}

FRAME static void leak_less(void) {
    void *aligned;
    kept = calloc(50, 10);
    if (posix_memalign(&aligned, 64, 500)) exit(1);
    kept = aligned;
    STAY;
}

FRAME static void free_all(void) {
    kept = malloc(5000);
    free(kept);
    kept = realloc(calloc(10, 100), 9000);
    free(kept);
    STAY;
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: leaks SECONDS\n");
        return 2;
    }
    live_for(atof(arguments[1]));
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    do {
        leak_most();
        leak_less();
        free_all();
        struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
    } while (may_go_on());
    return 0;
}
