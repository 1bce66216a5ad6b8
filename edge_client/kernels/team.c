/* Threads, when asked for: each takes every so-many-th micro-batch, with a workspace and a gradient of its own.
 *
 * Nothing is shared while they work, and the gradients are added up in the members' order: the same
 * batch gives the same bits every time. Started at load, asleep between steps.
 */
#include <stddef.h>

#include "network.h"

#if defined(__wasm__) /* a browser has none to give to a module whose memory is its own */

hs_team *hs_team_start(hs_network *networks, int64_t count) {
    (void)networks, (void)count;
    return NULL;
}

void hs_team_stop(hs_team *team) { (void)team; }

void hs_team_accumulate(hs_team *team, const float *x, const int64_t *y, const float *weights, int64_t n,
                        double weight_sum, hs_result *result) {
    (void)team, (void)x, (void)y, (void)weights, (void)n, (void)weight_sum, (void)result;
}

#else

#include <pthread.h>
#include <stdlib.h>

typedef struct {
    hs_team *team;
    pthread_t thread;
    int64_t number;
    hs_result result;
} member;

struct hs_team {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    int64_t count, running, batch; /* members with the caller; still at work; batches handed out so far */
    int stop;
    hs_network *networks;
    const float *x, *weights;
    const int64_t *y;
    int64_t n;
    double weight_sum;
    member members[];
};

static void take_share(hs_team *team, member *own) {
    hs_accumulate(&team->networks[own->number], team->x, team->y, team->weights, team->n, team->weight_sum,
                  own->number, team->count, &own->result);
}

static void *live(void *argument) {
    member *own = argument;
    hs_team *team = own->team;
    int64_t seen = 0;
    hs_flush_denormals();
    pthread_mutex_lock(&team->lock);
    for (;;) {
        while (!team->stop && team->batch == seen) pthread_cond_wait(&team->work, &team->lock);
        if (team->stop) break;
        seen = team->batch;
        pthread_mutex_unlock(&team->lock);
        take_share(team, own);
        pthread_mutex_lock(&team->lock);
        if (--team->running == 0) pthread_cond_signal(&team->done);
    }
    pthread_mutex_unlock(&team->lock);
    return NULL;
}

/* networks (count,): the caller's first; the others differ in workspace and gradient. NULL: no threads to be had. */
hs_team *hs_team_start(hs_network *networks, int64_t count) {
    hs_team *team = calloc(1, sizeof *team + (size_t)count * sizeof(member));
    if (!team) return NULL;
    team->networks = networks;
    team->count = 1;
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->work, NULL);
    pthread_cond_init(&team->done, NULL);
    for (int64_t i = 1; i < count; i++) {
        team->members[i].team = team;
        team->members[i].number = i;
        if (pthread_create(&team->members[i].thread, NULL, live, &team->members[i])) {
            hs_team_stop(team);
            return NULL;
        }
        team->count++;
    }
    networks[0].team = team;
    return team;
}

void hs_team_stop(hs_team *team) {
    pthread_mutex_lock(&team->lock);
    team->stop = 1;
    pthread_cond_broadcast(&team->work);
    pthread_mutex_unlock(&team->lock);
    for (int64_t i = 1; i < team->count; i++) pthread_join(team->members[i].thread, NULL);
    pthread_cond_destroy(&team->done);
    pthread_cond_destroy(&team->work);
    pthread_mutex_destroy(&team->lock);
    free(team);
}

void hs_team_accumulate(hs_team *team, const float *x, const int64_t *y, const float *weights, int64_t n,
                        double weight_sum, hs_result *result) {
    pthread_mutex_lock(&team->lock);
    team->x = x, team->y = y, team->weights = weights, team->n = n, team->weight_sum = weight_sum;
    team->running = team->count - 1;
    team->batch++;
    pthread_cond_broadcast(&team->work);
    pthread_mutex_unlock(&team->lock);
    take_share(team, &team->members[0]);
    pthread_mutex_lock(&team->lock);
    while (team->running) pthread_cond_wait(&team->done, &team->lock);
    pthread_mutex_unlock(&team->lock);
    *result = team->members[0].result;
    for (int64_t i = 1; i < team->count; i++) {
        const float *restrict from = team->networks[i].gradient;
        float *restrict to = team->networks[0].gradient;
        for (int64_t k = 0; k < team->networks[0].kept; k++) to[k] += from[k];
        result->loss += team->members[i].result.loss;
        result->correct += team->members[i].result.correct;
    }
}

#endif
