/* Script, clock, and the integration of what the script says over time, in integers. */
#define _GNU_SOURCE
#include "model.h"
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

Node node;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
/* The clock file: virtual time, how much of the script is valid, wall clock minus boot clock. */
static volatile uint64_t *shared;
static char script_path[4096];
static uint64_t script_read;
typedef struct { uint64_t at; long order; char *text; } Line;
static Line *pending;
static long pendings, pending_room, lines_seen;
static const char *PIPE_NAMES[PIPES] = {"sm", "tensor", "hmma", "imma", "dmma", "dfma", "int", "fp64", "fp32", "fp16", "dram"};
static const char *FLOW_NAMES[FLOWS] = {"pcie_tx", "pcie_rx", "nvlink_rx", "nvlink_tx", "power"};

void lock(void) { pthread_mutex_lock(&mutex); }
void unlock(void) { pthread_mutex_unlock(&mutex); }

static void bad(const char *why, const char *what) {
    fprintf(stderr, "fakenvml: %s: %s\n", why, what);
    abort();
}

static uint64_t machine_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
uint64_t now_ns(void) { return shared ? shared[0] : machine_ns(CLOCK_BOOTTIME); }
uint64_t unix_ns(void) { return shared ? shared[0] + shared[2] : machine_ns(CLOCK_REALTIME); }

/* ---- another script: a test begins, in the same process ------------------------------------------------ */

void fakenvml_open(const char *script, const char *clock_file) {
    lock();
    for (long i = 0; i < pendings; i++) free(pending[i].text);
    pendings = lines_seen = 0;
    script_read = 0;
    for (int i = 0; i < node.gpus; i++) memset(&node.gpu[i], 0, sizeof node.gpu[i]);
    memset(&node, 0, offsetof(Node, gpu));
    node.gpm_max = 477;
    snprintf(node.driver, sizeof node.driver, "595.58.03");
    snprintf(node.nvml, sizeof node.nvml, "13.595.58");
    snprintf(script_path, sizeof script_path, "%s", script ? script : "");
    if (shared) munmap((void *)shared, 4096);
    shared = NULL;
    if (clock_file) {
        int fd = open(clock_file, O_RDONLY | O_CLOEXEC);
        if (fd < 0) bad("cannot open the clock file", clock_file);
        void *at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        close(fd);
        if (at == MAP_FAILED) bad("cannot map the clock file", clock_file);
        shared = at;
    }
    unlock();
}
__attribute__((constructor)) static void from_environment(void) {
    fakenvml_open(getenv("FAKENVML_SCRIPT"), getenv("FAKENVML_CLOCK"));
}

/* ---- values ------------------------------------------------------------------------------------------- */

static int step_at(const Steps *s, uint64_t t, uint64_t *left) {
    if (s->n < 2) { *left = UINT64_MAX; return 0; }
    uint64_t phase = (t - s->origin) % s->period;
    for (int i = 0;; i++) {
        if (phase < s->ns[i]) { *left = s->ns[i] - phase; return i; }
        phase -= s->ns[i];
    }
}
int64_t value_at(const Steps *s, uint64_t t) {
    uint64_t left;
    return s->n ? s->value[step_at(s, t, &left)] : 0;
}

int64_t clock_at(const Gpu *g, uint64_t t) {
    if (t >= g->clock.origin) return value_at(&g->clock, t);
    for (int i = 0; i < 4; i++)
        if (g->clock_was[i].n && t >= g->clock_was[i].origin) return value_at(&g->clock_was[i], t);
    return 0;
}

/* "0.45" or "345:0.4,1980:0.6" (value:seconds, repeated), each times `unit`. */
static void set_steps(Steps *s, const char *text, double unit, uint64_t at) {
    memset(s, 0, sizeof *s);
    s->given = 1;
    s->origin = at;
    while (*text) {
        char *end;
        if (s->n == MAX_STEPS) bad("too many steps", text);
        s->value[s->n] = llround(strtod(text, &end) * unit);
        if (end == text) bad("expected a number", text);
        if (*end == ':') { s->ns[s->n] = (uint64_t)llround(strtod(end + 1, &end) * 1e9); s->period += s->ns[s->n]; }
        s->n++;
        text = *end == ',' ? end + 1 : end;
    }
    if (s->n > 1 && !s->period) bad("steps need seconds", text);
}

const Setting *setting(const Settings *s, const char *name) {
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->at[i].name, name) || !strcmp(s->at[i].name, "*")) return &s->at[i];
    return NULL;
}
static void set(Settings *s, const char *name, const char *text, int sum) {
    int i = 0;
    while (i < s->n && strcmp(s->at[i].name, name)) i++;
    if (!*text) { /* "name=": as if it had never been set */
        if (i < s->n) { memmove(&s->at[i], &s->at[i + 1], sizeof(Setting) * (size_t)(s->n - i - 1)); s->n--; }
        return;
    }
    if (i == MAX_SET) bad("too many settings", name);
    double before = i < s->n ? s->at[i].number : 0;
    if (i == s->n) s->n++;
    snprintf(s->at[i].name, sizeof s->at[i].name, "%s", name);
    snprintf(s->at[i].text, sizeof s->at[i].text, "%s", text);
    s->at[i].number = strtod(text, NULL) + (sum ? before : 0);
}

/* ---- time passes ----------------------------------------------------------------------------------------- */

static void work(Unit *u, uint64_t khz, uint64_t t, uint64_t dt) {
    int64_t ppm[PIPES], most = 0, tensor = 0;
    for (int p = 0; p < PIPES; p++) ppm[p] = value_at(&u->pipe[p], t);
    for (int p = HMMA; p <= DFMA; p++) tensor += ppm[p];
    if (!u->pipe[TENSOR].given) ppm[TENSOR] = tensor < 1000000 ? tensor : 1000000;
    for (int p = TENSOR; p <= FP16; p++) if (ppm[p] > most) most = ppm[p];
    if (!u->pipe[SM].given) ppm[SM] = most;
    unsigned __int128 cycles = (unsigned __int128)khz * dt;
    u->elapsed += cycles;
    for (int p = 0; p < PIPES; p++) u->active[p] += cycles * (uint64_t)ppm[p];
}

/* Integrate piece by piece: within a piece neither the clock nor any rate changes. */
void advance(Gpu *g, uint64_t to) {
    for (uint64_t t = g->upto, dt; t < to; t += dt) {
        uint64_t left;
        dt = to - t;
#define UNTIL_CHANGE(s) (step_at((s), t, &left), dt = left < dt ? left : dt)
        UNTIL_CHANGE(&g->clock);
        for (int f = 0; f < FLOWS; f++) UNTIL_CHANGE(&g->flow[f]);
        for (int p = 0; p < PIPES; p++) UNTIL_CHANGE(&g->whole.pipe[p]);
        for (int i = 0; g->mig && i < MAX_GIS; i++)
            for (int p = 0; g->gi[i].exists && p < PIPES; p++) UNTIL_CHANGE(&g->gi[i].pipe[p]);
        uint64_t khz = (uint64_t)value_at(&g->clock, t);
        work(&g->whole, khz, t, dt);
        for (int i = 0; g->mig && i < MAX_GIS; i++)
            if (g->gi[i].exists) work(&g->gi[i], khz, t, dt);
        for (int f = 0; f < FLOWS; f++) g->flowed[f] += (unsigned __int128)value_at(&g->flow[f], t) * dt;
    }
    if (to > g->upto) g->upto = to;
}
static void forget_unit(Unit *u) {
    u->elapsed = 0;
    memset(u->active, 0, sizeof u->active);
    u->add.n = 0;
    u->generation++;
}
void forget_counters(Gpu *g, int energy_too) {
    forget_unit(&g->whole);
    for (int i = 0; i < MAX_GIS; i++) forget_unit(&g->gi[i]);
    if (energy_too) g->flowed[POWER] = 0;
}

/* ---- the script -------------------------------------------------------------------------------------------- */

static Gpu *find_gpu(const char *key, uint64_t at) {
    for (int i = 0; i < node.gpus; i++) if (!strcmp(node.gpu[i].key, key)) return &node.gpu[i];
    if (node.gpus == MAX_GPUS) bad("too many GPUs", key);
    Gpu *g = &node.gpu[node.gpus];
    unsigned n = (unsigned)node.gpus++;
    snprintf(g->key, sizeof g->key, "%s", key);
    snprintf(g->uuid, sizeof g->uuid, "GPU-fa4e0000-0000-0000-0000-%012u", n);
    snprintf(g->name, sizeof g->name, "NVIDIA H100 80GB HBM3");
    snprintf(g->serial, sizeof g->serial, "16500000%02u", n);
    snprintf(g->pci, sizeof g->pci, "%08X:%02X:00.0", 0, 0x10 + n);
    g->major = 9;
    g->whole.sms = 132;
    g->whole.exists = 1;
    g->whole.memory_used = 1ull << 30;
    g->memory_total = 80ull << 30;
    g->cores = -1;
    g->max_clock = 1980;
    g->gpm = g->cycles = g->persistence = g->proc_samples = 1;
    g->util = -1;
    g->ring_ms = 20;
    g->ring_len = 120;
    g->stride = 24;
    g->upto = at;
    set_steps(&g->clock, "1980", 1e3, at);
    set_steps(&g->flow[POWER], "70000", 1, at);
    for (int p = 0; p < PIPES; p++) g->k[p] = 1;
    return g;
}

/* "pid[:sm%[:bytes]],…" */
static void set_procs(Proc *procs, int *count, int most, const char *text) {
    for (*count = 0; *text; ++*count) {
        char *end;
        if (*count == most) bad("too many processes", text);
        Proc *p = &procs[*count];
        *p = (Proc){.pid = (unsigned)strtoul(text, &end, 10)};
        if (*end == ':') p->sm = (unsigned)strtoul(end + 1, &end, 10);
        if (*end == ':') p->memory = strtoull(end + 1, &end, 10);
        text = *end == ',' ? end + 1 : end;
        if (*end && *end != ',') bad("expected pid[:sm[:bytes]],...", text);
    }
}

static int set_unit(Unit *u, const char *key, const char *text, uint64_t at) {
    for (int p = 0; p < PIPES; p++)
        if (!strcmp(key, PIPE_NAMES[p])) { set_steps(&u->pipe[p], text, 1e6, at); return 1; }
    if (!strncmp(key, "err.", 4)) set(&u->err, key + 4, text, 0);
    else if (!strncmp(key, "value.", 6)) set(&u->value, key + 6, text, 0);
    else if (!strncmp(key, "add.", 4)) set(&u->add, key + 4, text, 1);
    else if (!strcmp(key, "sms")) u->sms = atoi(text);
    else if (!strcmp(key, "procs")) set_procs(u->proc, &u->procs, MAX_PROCS, text);
    else if (!strcmp(key, "gone")) set_procs(u->gone, &u->goners, MAX_GONE, text);
    else if (!strcmp(key, "memory_used")) u->memory_used = strtoull(text, NULL, 10);
    else if (!strcmp(key, "ci")) u->ci = atoi(text);
    else if (!strcmp(key, "start")) u->start = (unsigned)atoi(text);
    else if (!strcmp(key, "size")) u->size = (unsigned)atoi(text);
    else return 0;
    return 1;
}

static void text_of(char *to, size_t room, const char *text) {
    snprintf(to, room, "%s", text);
    for (; *to; to++) if (*to == '_') *to = ' '; /* a script's words are parted by spaces */
}

static void set_gpu(Gpu *g, const char *key, const char *text, uint64_t at) {
    static const struct { const char *name; size_t at; } INTS[] = {
#define I(f) {#f, offsetof(Gpu, f)}
        I(cores), I(max_clock), I(mig), I(gpm), I(cycles), I(ring_ms), I(ring_len), I(persistence), I(virt),
        I(proc_samples), I(util), I(stride),
    };
    for (size_t i = 0; i < sizeof INTS / sizeof *INTS; i++)
        if (!strcmp(key, INTS[i].name)) { *(int *)((char *)g + INTS[i].at) = atoi(text); return; }
    for (int f = 0; f < FLOWS; f++)
        if (!strcmp(key, FLOW_NAMES[f])) { set_steps(&g->flow[f], text, 1, at); return; }
    if (!strncmp(key, "k.", 2)) {
        for (int p = 0; p < PIPES; p++) if (!strcmp(key + 2, PIPE_NAMES[p])) { g->k[p] = strtod(text, NULL); return; }
        bad("no such pipe", key);
    }
    if (!strncmp(key, "fail.", 5)) set(&g->fail, key + 5, text, 0);
    else if (!strncmp(key, "hang.", 5)) set(&g->hang, key + 5, text, 0);
    else if (!strcmp(key, "clock")) {
        memmove(g->clock_was + 1, g->clock_was, 3 * sizeof(Steps));
        g->clock_was[0] = g->clock;
        set_steps(&g->clock, text, 1e3, at);
    }
    else if (!strcmp(key, "scale")) g->average = !strcmp(text, "average");
    else if (!strcmp(key, "state")) g->state = !strcmp(text, "lost") ? 15 : !strcmp(text, "reset") ? 16 : 0;
    else if (!strcmp(key, "reset")) forget_counters(g, 0);
    else if (!strcmp(key, "uuid")) snprintf(g->uuid, sizeof g->uuid, "%s", text);
    else if (!strcmp(key, "name")) text_of(g->name, sizeof g->name, text);
    else if (!strcmp(key, "serial")) snprintf(g->serial, sizeof g->serial, "%s", text);
    else if (!strcmp(key, "pci")) snprintf(g->pci, sizeof g->pci, "%s", text);
    else if (!strcmp(key, "cc")) sscanf(text, "%d.%d", &g->major, &g->minor);
    else if (!strcmp(key, "memory_total")) g->memory_total = strtoull(text, NULL, 10);
    else if (!strcmp(key, "reasons")) g->reasons = strtoull(text, NULL, 0);
    else if (!set_unit(&g->whole, key, text, at)) bad("a GPU has no such setting", key);
}

static void set_node(const char *key, const char *text, uint64_t at) {
    if (!strcmp(key, "driver")) snprintf(node.driver, sizeof node.driver, "%s", text);
    else if (!strcmp(key, "nvml")) snprintf(node.nvml, sizeof node.nvml, "%s", text);
    else if (!strcmp(key, "init")) node.init = atoi(text);
    else if (!strcmp(key, "cc")) node.cc = atoi(text);
    else if (!strcmp(key, "strict")) node.strict = atoi(text);
    else if (!strcmp(key, "gpm_max")) node.gpm_max = (unsigned)atoi(text);
    else if (!strcmp(key, "reload")) {
        for (int i = 0; i < node.gpus; i++) { advance(&node.gpu[i], at); forget_counters(&node.gpu[i], 1); }
    } else if (!strcmp(key, "order")) {
        char copy[4096], *rest = copy, *name;
        snprintf(copy, sizeof copy, "%s", text);
        node.ordered = 0;
        while ((name = strsep(&rest, ",")))
            if (*name) node.order[node.ordered++] = (int)(find_gpu(name, at) - node.gpu);
        if (!node.ordered) node.ordered = -1; /* "order=": no GPU at all */
    } else bad("the node has no such setting", key);
}

static void apply(char *text, uint64_t at) {
    char *rest = text, *subject = strsep(&rest, " "), *word;
    Gpu *g = NULL;
    Unit *gi = NULL;
    if (!strcmp(subject, "gpu") || !strcmp(subject, "gi")) {
        if (!(word = strsep(&rest, " "))) bad("expected a GPU", subject);
        g = find_gpu(word, at);
        advance(g, at);
        if (!strcmp(subject, "gi")) {
            word = strsep(&rest, " ");
            int id = word ? atoi(word) : -1;
            if (id < 0 || id >= MAX_GIS) bad("expected a GPU instance from 0 to 15", word ? word : "");
            gi = &g->gi[id];
            g->mig = 1;
            if (!gi->exists) {
                unsigned before = gi->generation;
                memset(gi, 0, sizeof *gi);
                *gi = (Unit){.exists = 1, .sms = 16, .ci = 1, .size = 1, .generation = before + 1};
            }
        }
    } else if (strcmp(subject, "node")) bad("expected node, gpu or gi", subject);
    while ((word = strsep(&rest, " "))) {
        if (!*word) continue;
        char *value = strchr(word, '=');
        if (value) *value++ = 0; else value = "1";
        if (gi && !strcmp(word, "remove")) gi->exists = 0;
        else if (gi) { if (!set_unit(gi, word, value, at)) bad("a GPU instance has no such setting", word); }
        else if (g) set_gpu(g, word, value, at);
        else set_node(word, value, at);
    }
}

static int by_time(const void *a, const void *b) {
    const Line *x = a, *y = b;
    return x->at != y->at ? (x->at < y->at ? -1 : 1) : (x->order > y->order) - (x->order < y->order);
}

static void load(void) {
    struct stat about;
    uint64_t size = shared ? shared[1] : !stat(script_path, &about) ? (uint64_t)about.st_size : 0;
    if (size <= script_read) return;
    FILE *f = fopen(script_path, "re");
    if (!f) bad("cannot open the script", script_path);
    fseek(f, (long)script_read, SEEK_SET);
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while (script_read < size && (length = getline(&line, &room, f)) > 0) {
        if (line[length - 1] != '\n') break; /* not written to its end yet */
        script_read += (uint64_t)length;
        line[length - 1] = 0;
        char *text = line, *end;
        uint64_t at = 0;
        if (*text == '@') { at = strtoull(text + 1, &end, 10); text = end; }
        text += strspn(text, " ");
        if (!*text || *text == '#') continue;
        if (pendings == pending_room) pending = realloc(pending, sizeof *pending * (size_t)(pending_room += 64));
        pending[pendings++] = (Line){at, lines_seen++, strdup(text)};
    }
    free(line);
    fclose(f);
    qsort(pending, (size_t)pendings, sizeof *pending, by_time);
}

void catch_up(void) {
    load();
    uint64_t now = now_ns();
    long done = 0;
    for (; done < pendings && pending[done].at <= now; done++) {
        apply(pending[done].text, pending[done].at);
        free(pending[done].text);
    }
    if (done) memmove(pending, pending + done, sizeof *pending * (size_t)(pendings -= done));
}
