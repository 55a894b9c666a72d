/* The machine behind the stand-in for libnvidia-ml.so.1: GPUs whose counters are a function of a script and a
 * clock, and of nothing else. README.md says what a script may hold. */
#ifndef FAKENVML_MODEL_H
#define FAKENVML_MODEL_H
#include <stdint.h>

enum { MAX_GPUS = 128, MAX_GIS = 16, MAX_CIS = 8, MAX_STEPS = 16, MAX_SET = 24, MAX_PROCS = 300, MAX_GONE = 8 };
/* Pipes: fractions of the elapsed cycles. TENSOR is the sum of the four behind it unless it is given. */
enum { SM, TENSOR, HMMA, IMMA, DMMA, DFMA, INT, FP64, FP32, FP16, DRAM, PIPES };
/* Amounts by time: MiB/s, and mW. */
enum { PCIE_TX, PCIE_RX, NVLINK_RX, NVLINK_TX, POWER, FLOWS };

/* A value over time: steps that repeat from `origin` on. One step = a constant. */
typedef struct {
    int n, given;
    int64_t value[MAX_STEPS];
    uint64_t ns[MAX_STEPS], period, origin;
} Steps;

/* A setting by name: an error of a function, of a metric, a value in its place, a file to wait for. */
typedef struct { char name[64], text[160]; double number; } Setting;
typedef struct { int n; Setting at[MAX_SET]; } Settings;
typedef struct { unsigned pid, sm; uint64_t memory; } Proc;

/* What executes and is counted by itself: a GPU, or a GPU instance. */
typedef struct {
    int exists, sms, ci;
    unsigned start, size, generation;
    uint64_t memory_used;
    Steps pipe[PIPES];
    unsigned __int128 elapsed, active[PIPES]; /* per SM: 1e-6 cycles; 1e-12 cycles */
    Settings err, value, add;
    Proc proc[MAX_PROCS], gone[MAX_GONE]; /* gone: in samples, in no list */
    int procs, goners;
} Unit;

typedef struct {
    char key[32], uuid[80], name[96], serial[32], pci[32];
    int major, minor, cores, max_clock, mig, average, gpm, cycles, ring_ms, ring_len, state, lost, present;
    int persistence, virt, proc_samples, util, stride;
    uint64_t memory_total, reasons, upto;
    Steps clock, clock_was[4], flow[FLOWS]; /* kHz; what the clock was before, newest first */
    unsigned __int128 flowed[FLOWS]; /* unit x ns */
    double k[PIPES];
    Settings fail, hang;
    Unit whole, gi[MAX_GIS];
} Gpu;

typedef struct {
    char driver[80], nvml[80];
    unsigned gpm_max;
    int init, cc, strict, gpus, order[MAX_GPUS], ordered;
    Gpu gpu[MAX_GPUS];
} Node;

extern Node node;

void lock(void);
void unlock(void);
/* Boot time and wall time, in ns: of the clock file, or of this machine where there is none. */
uint64_t now_ns(void);
uint64_t unix_ns(void);
/* Reads what the script says by now. Call with the lock held, before anything else. */
void catch_up(void);
void advance(Gpu *g, uint64_t to);
void forget_counters(Gpu *g, int energy_too);
int64_t value_at(const Steps *s, uint64_t t);
int64_t clock_at(const Gpu *g, uint64_t t); /* kHz, also of the past */
const Setting *setting(const Settings *s, const char *name);
#endif
