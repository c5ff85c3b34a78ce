/* Named threads that share the CPU evenly: `pool-0`, `pool-1`, …, each below `work_of_pool`.
 *
 *   threads COUNT SECONDS
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "lifetime.h"

enum { THREADS_MAX = 1024 };

static volatile uint64_t result;

FRAME static void spin(void) {
    uint64_t x = 1;
    for (unsigned turn = 0; turn < 400000; turn++) x = x * 6364136223846793005u + 1442695040888963407u;
    result = x;
}

FRAME static void *work_of_pool(void *unused) {
    do {
        spin();
        STAY;
    } while (may_go_on());
    return unused;
}

int main(int count, char **arguments) {
    if (count < 3) {
        fprintf(stderr, "usage: threads COUNT SECONDS\n");
        return 2;
    }
    int threads = atoi(arguments[1]);
    if (threads < 1 || threads > THREADS_MAX) {
        fprintf(stderr, "threads: COUNT is from 1 to %d\n", THREADS_MAX);
        return 2;
    }
    pthread_t pool[THREADS_MAX];
    live_for(atof(arguments[2]));
    for (int n = 0; n < threads; n++) {
        char name[16];
        snprintf(name, sizeof name, "pool-%d", n);
        if (pthread_create(&pool[n], NULL, work_of_pool, NULL) != 0) return 1;
        pthread_setname_np(pool[n], name);
    }
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    for (int n = 0; n < threads; n++) pthread_join(pool[n], NULL);
    return 0;
}
