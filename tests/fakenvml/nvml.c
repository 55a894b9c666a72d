/* A stand-in for libnvidia-ml.so.1, to be loaded by the real nvidia-ml-py. Layouts and signatures follow nvml.h 13.
 * What the machine does stands in a script (model.c, README.md); a driver that lacks a function is linked with a
 * version script that hides it. */
#define _GNU_SOURCE
#include "model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, SIZE = 7, NO_DATA = 21, VERSION = 25, LOST = 15
};
typedef struct { Gpu *gpu; int gi, ci; unsigned generation; } Dev;
typedef struct {
    Gpu *gpu;
    int gi, sms, ci;
    unsigned generation;
    uint64_t at;
    unsigned __int128 elapsed, active[PIPES], flowed[FLOWS];
} Sample;
typedef struct { unsigned id; int ret; double value; const char *names[3]; } Metric;
typedef struct { unsigned version, count; Sample *older, *newer; Metric metrics[]; } MetricsGet;
typedef struct { unsigned long long time; union { double d; unsigned u; } value; } ClockSample;
typedef struct { unsigned pid; unsigned long long time; unsigned sm, mem, enc, dec; } Util;
typedef struct { char legacy[16]; unsigned domain, bus, device, ids, subsystem; char bus_id[32]; } Pci;
typedef struct { Dev *device; unsigned id, profile, start, size; } GiInfo;
typedef struct Fn { const char *name; unsigned long calls; uint64_t ns; struct Fn *next; int known; } Fn;
typedef struct { Fn *fn; uint64_t began; } Call;

static Dev gpus[MAX_GPUS], migs[MAX_GPUS][MAX_GIS][MAX_CIS];
static int refs, listed[MAX_GPUS], count;
static Fn *functions;
enum { MAX_HANGING = 64 };
int fakenvml_timed; /* bench: time spent in here, by function */

static uint64_t machine_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static void done(Call *c) {
    unlock();
    if (fakenvml_timed) c->fn->ns += machine_ns() - c->began;
}
static Call begin(Fn *fn) {
    uint64_t began = fakenvml_timed ? machine_ns() : 0;
    lock();
    if (!fn->known) { fn->known = 1; fn->next = functions; functions = fn; }
    fn->calls++;
    catch_up();
    return (Call){fn, began};
}
/* The first line of each function. Its lock is let go where the function returns. */
#define CALL static Fn fn_ = {.name = __func__}; __attribute__((cleanup(done))) Call call_ = begin(&fn_); (void)call_

unsigned long fakenvml_calls(const char *name) {
    unsigned long n = 0;
    for (Fn *f = functions; f; f = f->next) if (!*name || !strcmp(f->name, name)) n += f->calls;
    return n;
}
uint64_t fakenvml_ns(void) {
    uint64_t ns = 0;
    for (Fn *f = functions; f; f = f->next) ns += f->ns;
    return ns;
}
/* Whether the thread waits in a call that was told to hang. */
static long hanging[MAX_HANGING];
int fakenvml_hangs(long thread) {
    lock();
    int found = 0;
    for (int i = 0; i < MAX_HANGING; i++) found |= hanging[i] == thread;
    unlock();
    return found;
}
void fakenvml_forget(void) { /* as a new process would start */
    for (Fn *f = functions; f; f = f->next) { f->calls = 0; f->ns = 0; }
    refs = count = 0;
}

/* Errors that the script orders, a GPU that is gone, a call that hangs. Brings the GPU's counters up to now. */
static int enter(Dev *d, const char *fn) {
    const Setting *s;
    if (!refs) return UNINITIALIZED;
    Gpu *g = d->gpu;
    if ((s = setting(&g->hang, fn))) {
        char path[sizeof s->text];
        strcpy(path, s->text);
        int i = 0;
        while (i < MAX_HANGING - 1 && hanging[i]) i++;
        hanging[i] = syscall(SYS_gettid);
        unlock();
        while (!access(path, F_OK)) usleep(1000);
        lock();
        hanging[i] = 0;
        catch_up();
    }
    if (!refs) return UNINITIALIZED;
    if (g->state) g->lost = g->state;
    if (g->lost) return g->lost;
    if (!g->present) return LOST;
    if ((s = setting(&g->fail, fn))) return (int)s->number;
    if (d->gi >= 0 && (!g->gi[d->gi].exists || g->gi[d->gi].generation != d->generation || d->ci >= g->gi[d->gi].ci))
        return NOT_FOUND;
    advance(g, now_ns());
    return OK;
}
#define ENTER(d) CALL; do { int e_ = enter((d), __func__); if (e_) return e_; } while (0)
#define WHOLE(d) ENTER(d); if ((d)->gi >= 0) return NOT_SUPPORTED
static Unit *unit_of(Dev *d) { return d->gi < 0 ? &d->gpu->whole : &d->gpu->gi[d->gi]; }
static int cut(const Gpu *g) { return g->mig; }

/* ---- the node ------------------------------------------------------------------------------------------- */

int nvmlInitWithFlags(unsigned flags) {
    CALL;
    (void)flags;
    if (node.init) return node.init;
    if (refs++) return OK;
    for (int i = 0; i < node.gpus; i++) node.gpu[i].present = 0;
    count = node.ordered ? (node.ordered < 0 ? 0 : node.ordered) : node.gpus;
    for (int i = 0; i < count; i++) {
        Gpu *g = &node.gpu[listed[i] = node.ordered ? node.order[i] : i];
        g->present = 1;
        g->lost = g->state;
        gpus[g - node.gpu] = (Dev){g, -1, -1, 0};
    }
    return OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { CALL; if (!refs) return UNINITIALIZED; refs--; return OK; }
const char *nvmlErrorString(int e) { static char b[32]; snprintf(b, sizeof b, "fake error %d", e); return b; }
static int say(char *to, unsigned room, const char *text) {
    if (strlen(text) + 1 > room) return SIZE;
    strcpy(to, text);
    return OK;
}
int nvmlSystemGetDriverVersion(char *b, unsigned n) { CALL; return refs ? say(b, n, node.driver) : UNINITIALIZED; }
int nvmlSystemGetNVMLVersion(char *b, unsigned n) { CALL; return say(b, n, node.nvml); }
int nvmlSystemGetConfComputeState(unsigned *state) {
    CALL;
    if (node.cc < 0) return NOT_SUPPORTED;
    state[0] = 0; state[1] = (unsigned)node.cc; state[2] = 0;
    return OK;
}
int nvmlDeviceGetCount_v2(unsigned *n) { CALL; if (!refs) return UNINITIALIZED; *n = (unsigned)count; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, Dev **d) {
    CALL;
    if (!refs) return UNINITIALIZED;
    if (i >= (unsigned)count) return INVALID;
    *d = &gpus[listed[i]];
    return enter(*d, __func__);
}

/* ---- a GPU, and what does not change -------------------------------------------------------------------- */

int nvmlDeviceGetCudaComputeCapability(Dev *d, int *major, int *minor) { ENTER(d); *major = d->gpu->major; *minor = d->gpu->minor; return OK; }
int nvmlDeviceGetName(Dev *d, char *b, unsigned n) {
    ENTER(d);
    char name[128];
    snprintf(name, sizeof name, d->gi < 0 ? "%s" : "%s MIG %ug", d->gpu->name, unit_of(d)->size);
    return say(b, n, name);
}
int nvmlDeviceGetUUID(Dev *d, char *b, unsigned n) {
    ENTER(d);
    char uuid[96]; /* a function of GPU, GPU instance and compute instance: made again, the same (metering.md 5.1) */
    if (d->gi < 0) snprintf(uuid, sizeof uuid, "%s", d->gpu->uuid);
    else snprintf(uuid, sizeof uuid, "MIG-fa4e%04u-0000-0000-0000-%06d%06d", (unsigned)(d->gpu - node.gpu), d->gi, d->ci);
    return say(b, n, uuid);
}
int nvmlDeviceGetSerial(Dev *d, char *b, unsigned n) { WHOLE(d); return *d->gpu->serial ? say(b, n, d->gpu->serial) : NOT_SUPPORTED; }
int nvmlDeviceGetPciInfo_v3(Dev *d, Pci *p) {
    WHOLE(d);
    memset(p, 0, sizeof *p);
    snprintf(p->bus_id, sizeof p->bus_id, "%s", d->gpu->pci);
    snprintf(p->legacy, sizeof p->legacy, "%.12s", d->gpu->pci + 4);
    sscanf(d->gpu->pci, "%x:%x:%x", &p->domain, &p->bus, &p->device);
    p->ids = 0x233010de;
    return OK;
}
int nvmlDeviceGetPersistenceMode(Dev *d, unsigned *on) { WHOLE(d); if (d->gpu->persistence < 0) return NOT_SUPPORTED; *on = (unsigned)d->gpu->persistence; return OK; }
int nvmlDeviceGetVirtualizationMode(Dev *d, unsigned *mode) { WHOLE(d); *mode = (unsigned)d->gpu->virt; return OK; }
int nvmlDeviceGetNumGpuCores(Dev *d, unsigned *n) {
    WHOLE(d);
    if (cut(d->gpu) || !d->gpu->cores) return NOT_SUPPORTED;
    int per_sm = d->gpu->major == 7 || (d->gpu->major == 8 && !d->gpu->minor) ? 64 : 128;
    *n = (unsigned)(d->gpu->cores > 0 ? d->gpu->cores : d->gpu->whole.sms * per_sm);
    return OK;
}
int nvmlDeviceGetMaxClockInfo(Dev *d, unsigned type, unsigned *mhz) { WHOLE(d); if (type > 3) return INVALID; *mhz = (unsigned)d->gpu->max_clock; return OK; }

/* ---- MIG --------------------------------------------------------------------------------------------------- */

int nvmlDeviceGetMigMode(Dev *d, unsigned *now, unsigned *next) { WHOLE(d); if (d->gpu->major < 8) return NOT_SUPPORTED; *now = *next = (unsigned)cut(d->gpu); return OK; }
int nvmlDeviceGetMaxMigDeviceCount(Dev *d, unsigned *n) { WHOLE(d); *n = d->gpu->major < 8 ? 0 : 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(Dev *d, unsigned at, Dev **mig) {
    WHOLE(d);
    if (at > 6) return INVALID;
    unsigned i = 0;
    for (int gi = 0; gi < MAX_GIS; gi++)
        for (int ci = 0; d->gpu->gi[gi].exists && ci < d->gpu->gi[gi].ci; ci++)
            if (i++ == at) {
                Dev *m = &migs[d->gpu - node.gpu][gi][ci];
                *m = (Dev){d->gpu, gi, ci, d->gpu->gi[gi].generation};
                *mig = m;
                return OK;
            }
    return NOT_FOUND;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Dev *d, Dev **whole) { ENTER(d); if (d->gi < 0) return INVALID; *whole = &gpus[d->gpu - node.gpu]; return OK; }
int nvmlDeviceGetGpuInstanceId(Dev *d, unsigned *id) { ENTER(d); if (d->gi < 0) return NOT_SUPPORTED; *id = (unsigned)d->gi; return OK; }
int nvmlDeviceGetComputeInstanceId(Dev *d, unsigned *id) { ENTER(d); if (d->gi < 0) return NOT_SUPPORTED; *id = (unsigned)d->ci; return OK; }
int nvmlDeviceGetAttributes_v2(Dev *d, unsigned *a) {
    ENTER(d);
    if (d->gi < 0) return NOT_SUPPORTED;
    Unit *u = unit_of(d);
    memset(a, 0, 40);
    a[0] = (unsigned)(u->sms / u->ci); /* of the compute instance */
    a[6] = u->size;
    a[7] = 1;
    return OK;
}
/* An administrator's call; where it is not allowed the script says fail.nvmlDeviceGetGpuInstanceById=4. */
int nvmlDeviceGetGpuInstanceById(Dev *d, unsigned id, Dev **gi) {
    WHOLE(d);
    if (id >= MAX_GIS || !d->gpu->gi[id].exists) return NOT_FOUND;
    Dev *m = &migs[d->gpu - node.gpu][id][MAX_CIS - 1];
    *m = (Dev){d->gpu, (int)id, -1, d->gpu->gi[id].generation};
    *gi = m;
    return OK;
}
int nvmlGpuInstanceGetInfo(Dev *d, GiInfo *info) {
    ENTER(d);
    Unit *u = unit_of(d);
    *info = (GiInfo){&gpus[d->gpu - node.gpu], (unsigned)d->gi, 0, u->start, u->size};
    return OK;
}

/* ---- values of the moment ----------------------------------------------------------------------------------- */

int nvmlDeviceGetClockInfo(Dev *d, unsigned type, unsigned *mhz) {
    ENTER(d);
    if (d->gi >= 0) return NOT_SUPPORTED;
    if (type > 3) return INVALID;
    *mhz = (unsigned)(value_at(&d->gpu->clock, now_ns()) / 1000);
    return OK;
}
int nvmlDeviceGetCurrentClocksEventReasons(Dev *d, unsigned long long *mask) { WHOLE(d); *mask = d->gpu->reasons; return OK; }
int nvmlDeviceGetCurrentClocksThrottleReasons(Dev *d, unsigned long long *mask) { WHOLE(d); *mask = d->gpu->reasons; return OK; }
int nvmlDeviceGetPowerUsage(Dev *d, unsigned *mw) { WHOLE(d); *mw = (unsigned)value_at(&d->gpu->flow[POWER], now_ns()); return OK; }
int nvmlDeviceGetTotalEnergyConsumption(Dev *d, unsigned long long *mj) {
    WHOLE(d);
    const Setting *add = setting(&d->gpu->whole.add, "energy"), *value = setting(&d->gpu->whole.value, "energy");
    *mj = (unsigned long long)(d->gpu->flowed[POWER] / 1000000000) + (unsigned long long)(long long)(add ? add->number : 0);
    if (value) *mj = strtoull(value->text, NULL, 10);
    return OK;
}
int nvmlDeviceGetUtilizationRates(Dev *d, unsigned *rates) {
    WHOLE(d);
    if (cut(d->gpu)) return NOT_SUPPORTED;
    uint64_t now = now_ns();
    int64_t most = 0;
    for (int p = 0; p <= FP16; p++) { int64_t ppm = value_at(&d->gpu->whole.pipe[p], now); if (ppm > most) most = ppm; }
    rates[0] = d->gpu->util >= 0 ? (unsigned)d->gpu->util : (unsigned)(most / 10000);
    rates[1] = 0;
    return OK;
}
int nvmlDeviceGetMemoryInfo(Dev *d, unsigned long long *m) {
    ENTER(d);
    m[0] = d->gpu->memory_total; m[2] = unit_of(d)->memory_used; m[1] = m[0] - m[2];
    return OK;
}
/* A ring of clock samples, stamped with the wall clock in us. */
int nvmlDeviceGetSamples(Dev *d, int type, unsigned long long last, int *kind, unsigned *n, ClockSample *out) {
    WHOLE(d);
    if (type != 5) return INVALID;
    Gpu *g = d->gpu;
    if (!g->ring_ms) return NOT_SUPPORTED;
    *kind = 1; /* unsigned int */
    if (!out) { *n = (unsigned)g->ring_len; return OK; }
    uint64_t every = (uint64_t)g->ring_ms * 1000000, now = now_ns(), offset = unix_ns() - now, newest = now / every;
    uint64_t oldest = newest >= (uint64_t)g->ring_len ? newest - (uint64_t)g->ring_len + 1 : 1;
    unsigned room = *n, used = 0;
    for (uint64_t i = oldest; i <= newest; i++) {
        uint64_t at = i * every;
        if ((at + offset) / 1000 <= last) continue;
        if (used == room) return SIZE;
        out[used].value.d = 0;
        out[used].time = (at + offset) / 1000;
        out[used++].value.u = (unsigned)(clock_at(g, at) / 1000);
    }
    *n = used;
    return used ? OK : NOT_FOUND;
}

/* ---- processes ---------------------------------------------------------------------------------------------- */

/* `stride`: bytes of one entry. 24 is right; some R535 drivers wrote 32 in the v3 call (metering.md 1.5). */
static int processes(Dev *d, unsigned *n, char *out, int stride) {
    Unit *u = unit_of(d);
    unsigned have = (unsigned)u->procs, room = out ? *n : 0;
    *n = have;
    if (room < have) return SIZE;
    for (unsigned i = 0; i < have; i++) {
        memset(out + stride * (int)i, 0, (size_t)stride);
        memcpy(out + stride * (int)i, &u->proc[i].pid, 4);
        memcpy(out + stride * (int)i + 8, &u->proc[i].memory, 8);
    }
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v2(Dev *d, unsigned *n, char *out) { ENTER(d); return processes(d, n, out, 24); }
int nvmlDeviceGetComputeRunningProcesses_v3(Dev *d, unsigned *n, char *out) { ENTER(d); return processes(d, n, out, d->gpu->stride); }
/* A sample of each process every 1/6 s; none newer than `last` is NOT_FOUND. */
int nvmlDeviceGetProcessUtilization(Dev *d, Util *out, unsigned *n, unsigned long long last) {
    WHOLE(d);
    if (cut(d->gpu)) return NOT_SUPPORTED;
    uint64_t now = now_ns(), every = 1000000000 / 6, at = (now - now % every + unix_ns() - now) / 1000;
    Unit *u = &d->gpu->whole;
    unsigned listed = (unsigned)u->procs, have = d->gpu->proc_samples && at > last ? listed + (unsigned)u->goners : 0;
    unsigned room = out ? *n : 0;
    if (!have) return NOT_FOUND;
    *n = have;
    if (room < have) return SIZE;
    for (unsigned i = 0; i < have; i++) {
        Proc *p = i < listed ? &u->proc[i] : &u->gone[i - listed];
        out[i] = (Util){p->pid, at, p->sm, 0, 0, 0};
    }
    return OK;
}

/* ---- GPM ---------------------------------------------------------------------------------------------------- */

int nvmlGpmQueryDeviceSupport(Dev *d, unsigned *support) { ENTER(d); support[1] = (unsigned)d->gpu->gpm; return OK; }
int nvmlGpmSampleAlloc(Sample **s) { CALL; *s = calloc(1, sizeof **s); return *s ? OK : 20; }
int nvmlGpmSampleFree(Sample *s) { CALL; if (!refs) return UNINITIALIZED; free(s); return OK; }
static int sample(Dev *d, int gi, Sample *s) {
    Gpu *g = d->gpu;
    if (!g->gpm) return NOT_SUPPORTED;
    Unit *u = gi < 0 ? &g->whole : &g->gi[gi];
    *s = (Sample){.gpu = g, .gi = gi, .sms = u->sms, .ci = u->ci, .generation = u->generation, .at = now_ns(), .elapsed = u->elapsed};
    memcpy(s->active, u->active, sizeof s->active);
    memcpy(s->flowed, g->flowed, sizeof s->flowed);
    return OK;
}
int nvmlGpmSampleGet(Dev *d, Sample *s) {
    ENTER(d);
    if (cut(d->gpu) && d->gi < 0) return NOT_SUPPORTED;
    return sample(d, d->gi, s);
}
int nvmlGpmMigSampleGet(Dev *d, unsigned gi, Sample *s) {
    WHOLE(d);
    if (gi >= MAX_GIS || !d->gpu->gi[gi].exists) return NOT_FOUND;
    return sample(d, (int)gi, s);
}

static int pipe_of(unsigned id) {
    static const signed char PERCENT[] = {-1, SM, SM, -1, INT, TENSOR, DFMA, HMMA, DMMA, IMMA, DRAM, FP64, FP32, FP16};
    static const signed char CYCLES[] = {-1, SM, TENSOR, DMMA, HMMA, IMMA, DFMA, -1, -1, INT, FP64, FP32, FP16};
    if (id < sizeof PERCENT) return PERCENT[id];
    return id > 248 && id <= 260 ? CYCLES[id - 248] : -1;
}
static double metric(const Gpu *g, const Sample *a, const Sample *b, unsigned id, int *ret) {
    static const struct { unsigned id; int flow; } RATES[] = {{20, PCIE_TX}, {21, PCIE_RX}, {60, NVLINK_RX}, {61, NVLINK_TX}};
    int pipe = pipe_of(id);
    double scale = g->average ? 1 : b->sms;
    *ret = OK;
    if (id == 248 || (id > 248 && pipe >= 0)) {
        if (!g->cycles) { *ret = NOT_SUPPORTED; return 1; }
        if (id == 248) return floor((double)(b->elapsed / 1000000) * scale);
        return floor((double)(b->active[pipe] / 1000000000) * 1e-3 / g->k[pipe] * scale);
    }
    for (int i = 0; i < 4; i++)
        if (RATES[i].id == id) return (double)(b->flowed[RATES[i].flow] - a->flowed[RATES[i].flow]) / (double)(b->at - a->at);
    if (pipe < 0) { *ret = NOT_SUPPORTED; return 99; }
    double elapsed = (double)(b->elapsed - a->elapsed);
    if (b->at - a->at < 100000000) return NAN; /* closer than 100 ms the values are invalid (metering.md 0.3) */
    return elapsed > 0 ? (double)(b->active[pipe] - a->active[pipe]) / elapsed / 1e4 : 0;
}
int nvmlGpmMetricsGet(MetricsGet *get) {
    CALL;
    if (!refs) return UNINITIALIZED;
    if (get->version != 1) return VERSION;
    Sample *a = get->older, *b = get->newer;
    if (!a || !b || !b->gpu || a->gpu != b->gpu || a->gi != b->gi || b->at <= a->at || get->count > node.gpm_max) return INVALID;
    const Setting *fail = setting(&b->gpu->fail, __func__);
    if (fail) return (int)fail->number;
    for (unsigned i = 0; node.strict && i < get->count; i++)
        if (get->metrics[i].id >= (b->gpu->cycles ? node.gpm_max : 248)) return INVALID;
    Unit *u = b->gi < 0 ? &b->gpu->whole : &b->gpu->gi[b->gi];
    int plain = !u->add.n && !u->value.n && !u->err.n;
    for (unsigned i = 0; i < get->count; i++) {
        Metric *m = &get->metrics[i];
        char name[16];
        const Setting *s;
        if (m->id >= node.gpm_max) { m->ret = INVALID; m->value = 0; continue; }
        if (b->gi >= 0 && !b->ci) { m->ret = NO_DATA; m->value = 0; continue; }
        m->value = metric(b->gpu, a, b, m->id, &m->ret);
        memset(m->names, 0, sizeof m->names);
        if (a->generation != b->generation && m->id < 248) m->value = NAN; /* counters restarted between the two */
        if (plain) continue;
        snprintf(name, sizeof name, "%u", m->id);
        if (m->ret == OK && (s = setting(&u->add, name))) m->value += s->number;
        if ((s = setting(&u->value, name))) m->value = strtod(s->text, NULL);
        if ((s = setting(&u->err, name))) m->ret = (int)s->number;
    }
    return OK;
}
