/* Bytes through the file system and waits for a lock, in shares that are known.
 *
 *   traffic SECONDS
 *
 * Of the bytes that are written, 3 of 4 come from write_most and 1 from write_less; read_back reads half as many. A thread
 * waits for a mutex 70 to 30 in wait70 and wait30, and between them 40 of 140 ms in hear, for a byte in a pipe.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "lifetime.h"

#define BLOCK 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int bell[2];
static char block[3 * BLOCK];

static void asleep(long ms) {
    struct timespec time = {0, ms * 1000000};
    nanosleep(&time, NULL);
}

/* Holds the lock for a while, and lets the other know. */
static void hold(char why, long ms) {
    pthread_mutex_lock(&lock);
    if (write(bell[1], &why, 1) != 1) exit(1);
    asleep(ms);
    pthread_mutex_unlock(&lock);
    asleep(20);
}

static void *holds(void *nothing) {
    while (may_go_on()) {
        hold('7', 70);
        hold('3', 30);
    }
    exit(0);
    return nothing;
}

FRAME static char hear(void) {
    char why;
    if (read(bell[0], &why, 1) != 1) exit(1);
    return why;
}

FRAME static void wait70(void) {
    pthread_mutex_lock(&lock);
    STAY;
}

FRAME static void wait30(void) {
    pthread_mutex_lock(&lock);
    STAY;
}

static void *waits(void *nothing) {
    for (;;) {
        if (hear() == '7')
            wait70();
        else
            wait30();
        pthread_mutex_unlock(&lock);
    }
    return nothing;
}

FRAME static void write_most(int file) {
    if (pwrite(file, block, 3 * BLOCK, 0) != 3 * BLOCK) exit(1);
    STAY;
}

FRAME static void write_less(int file) {
    if (pwrite(file, block, BLOCK, 0) != BLOCK) exit(1);
    STAY;
}

FRAME static void read_back(int file) {
    if (pread(file, block, 2 * BLOCK, 0) != 2 * BLOCK) exit(1);
    STAY;
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: traffic SECONDS\n");
        return 2;
    }
    live_for(atof(arguments[1]));
    int file = memfd_create("traffic", 0);
    pthread_t threads[2];
    if (file < 0 || pipe(bell) || pthread_create(&threads[0], NULL, waits, NULL) ||
        pthread_create(&threads[1], NULL, holds, NULL))
        return 1;
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    do {
        write_most(file);
        write_less(file);
        read_back(file);
        // Few: an emulated processor that is kept waiting within a probe counts as an overload.
        asleep(100);
    } while (may_go_on());
    return 0;
}
