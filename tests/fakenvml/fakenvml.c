/* A stand-in for libnvidia-ml.so.1, loaded by the real nvidia-ml-py: two Hopper GPUs.
 *
 * Layouts and signatures follow nvml.h 13. Behaviour is set by environment variables at call time
 * (so a test can change it while the process runs) and, where a driver lacks a function, by OLD_DRIVER
 * at compile time:
 *   FAKENVML_LOST=i     GPU i is lost until NVML is started again without it
 *   FAKENVML_NO_CYCLES  metric ids 248-260 are not supported (R590 and older)
 *   FAKENVML_STRICT     nvmlGpmMetricsGet refuses a list that names an id it does not know
 *   FAKENVML_NAN        metric 5 is NaN, 7 is 250 %, 252 fails alone
 *   FAKENVML_NO_GPM     GPM is not supported (Ampere)
 *   FAKENVML_MIG        GPU 1 is cut into GPU instances 1 (two compute instances) and 5
 *   FAKENVML_INIT=n     nvmlInit fails with n
 *   FAKENVML_PIDS=a,b   compute processes of every GPU
 *   FAKENVML_IDLE_PIDS  nvmlDeviceGetProcessUtilization has no samples
 *   FAKENVML_HANG_FILE  nvmlGpmSampleGet on GPU 0 waits until this file is gone
 * Each nvmlGpmSampleGet moves its GPU one second on: 1.8e9 cycles on each of 132 SMs, 45 % of them HMMA.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, SIZE = 7, LOST = 15, UNINITIALIZED = 1 };
typedef struct { int gpu, gi, ci; unsigned long long seconds; } Dev;
typedef struct { int gpu, gi; unsigned long long seconds; } Sample;
typedef struct { unsigned id; int ret; double value; const char *names[3]; } Metric;
typedef struct { unsigned version, count; Sample *older, *newer; Metric metrics[]; } MetricsGet;
typedef struct { unsigned long long time; union { double d; unsigned u; } value; } ClockSample;
typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } Proc;
typedef struct { unsigned pid; unsigned long long time; unsigned sm, mem, enc, dec; } Util;

static Dev gpus[2] = {{0, -1, -1, 1000}, {1, -1, -1, 1000}};
static Dev migs[3] = {{1, 1, 0, 0}, {1, 1, 1, 0}, {1, 5, 0, 0}};
static int refs, was_lost = -1;
static unsigned long long clock_us = 1000000;

static int number(const char *name) { const char *s = getenv(name); return s ? atoi(s) : -1; }
static int on(const char *name) { return getenv(name) != NULL; }
static int state(Dev *d) {
    if (!refs) return UNINITIALIZED;
    if (number("FAKENVML_LOST") == d->gpu) was_lost = d->gpu;
    return was_lost == d->gpu ? LOST : OK;
}
#define CHECK(d) do { int s_ = state(d); if (s_) return s_; } while (0)
#define WHOLE(d) do { CHECK(d); if ((d)->gi >= 0) return NOT_SUPPORTED; } while (0)

int nvmlInitWithFlags(unsigned flags) {
    if (number("FAKENVML_INIT") > 0) return number("FAKENVML_INIT");
    if (!refs++) was_lost = -1;
    return OK;
}
int nvmlShutdown(void) { if (!refs) return UNINITIALIZED; refs--; return OK; }
const char *nvmlErrorString(int e) { static char b[32]; snprintf(b, sizeof b, "fake error %d", e); return b; }
int nvmlSystemGetDriverVersion(char *b, unsigned n) { snprintf(b, n, "595.58.03"); return OK; }
int nvmlSystemGetNVMLVersion(char *b, unsigned n) { snprintf(b, n, "13.595.58"); return OK; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, Dev **d) { *d = &gpus[i]; return state(*d); }
int nvmlDeviceGetCudaComputeCapability(Dev *d, int *major, int *minor) { CHECK(d); *major = 9; *minor = 0; return OK; }
int nvmlDeviceGetName(Dev *d, char *b, unsigned n) {
    CHECK(d);
    snprintf(b, n, d->gi < 0 ? "NVIDIA H100 80GB HBM3" : "NVIDIA H100 80GB HBM3 MIG 1g.10gb");
    return OK;
}
int nvmlDeviceGetUUID(Dev *d, char *b, unsigned n) {
    CHECK(d);
    if (d->gi < 0) snprintf(b, n, "GPU-fa4e0000-0000-0000-0000-00000000000%d", d->gpu);
    else snprintf(b, n, "MIG-fa4e0000-0000-0000-0000-0000000000%d%d", d->gi, d->ci);
    return OK;
}
int nvmlDeviceGetSerial(Dev *d, char *b, unsigned n) {
    CHECK(d);
    if (d->gpu == 1) return NOT_SUPPORTED;
    snprintf(b, n, "1650000000");
    return OK;
}
static int cut(Dev *d) { return d->gpu == 1 && on("FAKENVML_MIG"); }
int nvmlDeviceGetMigMode(Dev *d, unsigned *now, unsigned *next) { CHECK(d); *now = *next = cut(d); return OK; }
int nvmlDeviceGetMaxMigDeviceCount(Dev *d, unsigned *n) { *n = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(Dev *d, unsigned i, Dev **mig) {
    static const int at[7] = {0, -1, 1, -1, -1, 2, -1};
    if (i > 6 || at[i] < 0) return NOT_FOUND;
    *mig = &migs[at[i]];
    return OK;
}
int nvmlDeviceGetGpuInstanceId(Dev *d, unsigned *id) { *id = (unsigned)d->gi; return OK; }
int nvmlDeviceGetAttributes_v2(Dev *d, unsigned *attributes) {
    if (d->gi < 0) return NOT_SUPPORTED;
    attributes[0] = d->gi == 1 ? 16 : 60;
    return OK;
}
int nvmlDeviceGetNumGpuCores(Dev *d, unsigned *n) { WHOLE(d); if (cut(d)) return NOT_SUPPORTED; *n = 132 * 128; return OK; }
int nvmlDeviceGetMaxClockInfo(Dev *d, unsigned type, unsigned *mhz) { CHECK(d); *mhz = 1980; return OK; }
int nvmlDeviceGetClockInfo(Dev *d, unsigned type, unsigned *mhz) { CHECK(d); *mhz = 1777; return OK; }
int nvmlDeviceGetPowerUsage(Dev *d, unsigned *mw) { WHOLE(d); *mw = 655000; return OK; }
#ifndef OLD_DRIVER
int nvmlDeviceGetTotalEnergyConsumption(Dev *d, unsigned long long *mj) { WHOLE(d); *mj = d->seconds * 655000; return OK; }
int nvmlDeviceGetSamples(Dev *d, int type, unsigned long long last, int *kind, unsigned *n, ClockSample *out) {
    WHOLE(d);
    if (type != 5) return INVALID;
    *kind = 1; /* unsigned int */
    if (!out) { *n = 3; return OK; }
    for (unsigned i = 0; i < 3; i++) { out[i].time = ++clock_us; out[i].value.u = 1800 + i; }
    *n = 3;
    return OK;
}
#endif
int nvmlDeviceGetUtilizationRates(Dev *d, unsigned *rates) { WHOLE(d); rates[0] = 97; rates[1] = 40; return OK; }
int nvmlDeviceGetMemoryInfo(Dev *d, unsigned long long *m) {
    CHECK(d);
    m[0] = 80ull << 30; m[2] = d->gi < 0 ? 70ull << 30 : 5ull << 30; m[1] = m[0] - m[2];
    return OK;
}
static unsigned pids(unsigned *out) {
    const char *s = getenv("FAKENVML_PIDS");
    unsigned n = 0;
    for (; s && *s && n < 16; n++) { out[n] = (unsigned)strtoul(s, (char **)&s, 10); if (*s == ',') s++; }
    return n;
}
static int processes(Dev *d, unsigned *n, Proc *out) {
    unsigned list[16], have = pids(list);
    CHECK(d);
    if (*n < have) { *n = have; return SIZE; }
    for (unsigned i = 0; i < have; i++) { memset(&out[i], 0, sizeof *out); out[i].pid = list[i]; }
    *n = have;
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v2(Dev *d, unsigned *n, Proc *out) { return processes(d, n, out); }
#ifndef OLD_DRIVER
int nvmlDeviceGetComputeRunningProcesses_v3(Dev *d, unsigned *n, Proc *out) { return processes(d, n, out); }
#endif
int nvmlDeviceGetProcessUtilization(Dev *d, Util *out, unsigned *n, unsigned long long last) {
    unsigned list[16], have = pids(list);
    WHOLE(d);
    if (on("FAKENVML_IDLE_PIDS")) return NOT_FOUND;
    if (!out) { *n = have; return SIZE; }
    for (unsigned i = 0; i < have; i++) { memset(&out[i], 0, sizeof *out); out[i].pid = list[i]; out[i].time = ++clock_us; out[i].sm = 30 + 10 * i; }
    *n = have;
    return OK;
}
int nvmlGpmQueryDeviceSupport(Dev *d, unsigned *support) { CHECK(d); support[1] = !on("FAKENVML_NO_GPM"); return OK; }
int nvmlGpmSampleAlloc(Sample **s) { *s = calloc(1, sizeof **s); return OK; }
int nvmlGpmSampleFree(Sample *s) { if (!refs) return UNINITIALIZED; free(s); return OK; }
int nvmlGpmMigSampleGet(Dev *d, unsigned gi, Sample *s) {
    CHECK(d);
    d->seconds++;
    *s = (Sample){d->gpu, (int)gi, d->seconds};
    return OK;
}
int nvmlGpmSampleGet(Dev *d, Sample *s) {
    const char *hang = getenv("FAKENVML_HANG_FILE");
    CHECK(d);
    if (cut(d)) return NOT_SUPPORTED;
    while (d->gpu == 0 && hang && !access(hang, F_OK)) usleep(1000);
    return nvmlGpmMigSampleGet(d, (unsigned)-1, s);
}
int nvmlGpmMetricsGet(MetricsGet *g) {
    if (g->version != 1) return 25;
    if (g->newer->seconds <= g->older->seconds || g->newer->gpu != g->older->gpu) return INVALID;
    for (unsigned i = 0; on("FAKENVML_STRICT") && i < g->count; i++)
        if (g->metrics[i].id >= 248) return INVALID;
    unsigned sms = g->newer->gi < 0 ? 132 : g->newer->gi == 1 ? 32 : 60;
    double elapsed = 1.8e9 * sms * (double)g->newer->seconds;
    for (unsigned i = 0; i < g->count; i++) {
        Metric *m = &g->metrics[i];
        m->ret = OK;
        switch (m->id) {
        case 2: m->value = 95; break;
        case 5: m->value = on("FAKENVML_NAN") ? NAN : 45; break;
        case 7: m->value = on("FAKENVML_NAN") ? 250 : 45; break;
        case 12: m->value = 5.5; break;
        case 248: m->value = elapsed; break;
        case 249: m->value = 0.95 * elapsed; break;
        case 250: m->value = 0.45 * elapsed; break;
        case 252: m->value = 0.45 * elapsed; if (on("FAKENVML_NAN")) m->ret = 999; break;
        case 8: m->ret = NOT_SUPPORTED; m->value = 99; break;
        default: m->value = 0;
        }
        if (m->id >= 248 && on("FAKENVML_NO_CYCLES")) { m->ret = NOT_SUPPORTED; m->value = 1; }
    }
    return OK;
}
