/* The head of a language model, forward and backward: from hidden states to log-probs and entropies of targets, a piece
 * of the vocabulary at a time. What becomes of a product is done to it while it is in the cache.
 *
 * Row-major float32. Forward, threads take pieces; backward, of each piece rows of hidden states, then tokens. A number
 * is a sum in one order, and which those are depends on the sizes of the head alone, never on the threads or the targets.
 */
#include "matrix.h"

#ifdef _OPENMP
extern int omp_get_thread_num(void);
#else
#define omp_get_thread_num() 0
#endif

#define PIECE 576   /* tokens of a piece: whole tiles in both directions */
#define CUT 144     /* rows of a tile's strip that a thread does at once, at most */
#define CACHED 90000 /* floats of hidden states that stay in a core's cache */
#define BLOCK 256   /* targets that a weight's gradient is summed up over at once */
#define NEVER -1e30f

struct head {
    const float *weight, *bias; /* [tokens, width]; bias may be NULL */
    const long *spare;          /* rows that are no token */
    long spares, tokens, width;
    float scale, cap; /* of a product x the logit is scale x, or, where cap is not 0, scale tanh(cap x) */
};

struct part {
    long first, tokens, room; /* room: tokens up to a whole panel */
};

struct targets {
    const float *hidden; /* [count, width] */
    const long *of;
    long count;
};

/* What a piece says of each target [count]. */
struct said {
    float *peak, *total, *weighted, *chosen;
};

static long smaller(long a, long b) { return a < b ? a : b; }
static long piece_size(const struct head *h) { return smaller(whole(h->tokens, PANEL), PIECE); }
long head_pieces(const struct head *h) { return (h->tokens + PIECE - 1) / PIECE; }

static struct part piece(const struct head *h, long i)
{
    long first = i * PIECE, tokens = smaller(h->tokens - first, PIECE);
    return (struct part){first, tokens, whole(tokens, PANEL)};
}

static struct said said_of(float *sums, long count, long i)
{
    float *at = sums + 4 * count * i;
    return (struct said){at, at + count, at + 2 * count, at + 3 * count};
}

/* Rows from cut(..., i) on are a thread's to do at once, of `parts` as many for each of them. */
static long parts_of(long count, long most, long threads) { return threads * ((count + threads * most - 1) / (threads * most)); }

static long cut(long count, long parts, long i) { return smaller((count + HIGH - 1) / HIGH * i / parts * HIGH, count); }

static long rows_at_once(const struct head *h)
{
    long rows = CACHED / h->width / HIGH * HIGH;
    return rows > CUT ? CUT : rows < 2 * HIGH ? 2 * HIGH : rows;
}

/* Products of a piece with one row to logits, in place. */
static void finish(const struct head *h, const struct part *p, float *x)
{
    const float *bias = h->bias ? h->bias + p->first : NULL;
    if (bias)
        for (long j = 0; j < p->tokens; j++) x[j] += bias[j];
    if (h->cap != 0)
        for (long j = 0; j < p->room; j++) x[j] = h->scale - 2.0f * h->scale / (exponential(2.0f * x[j] * h->cap) + 1.0f);
    else if (h->scale != 1)
        for (long j = 0; j < p->room; j++) x[j] *= h->scale;
    for (long j = p->tokens; j < p->room; j++) x[j] = NEVER;
    for (long s = 0; s < h->spares; s++)
        if (h->spare[s] >= p->first && h->spare[s] < p->first + p->tokens) x[h->spare[s] - p->first] = NEVER;
}

/* Logits of some rows, `stride` apart. */
static void logits(const struct head *h, const struct part *p, const float *panel, const float *hidden, float *to, long stride,
                   long rows)
{
    times(hidden, h->width, panel, to, stride, rows, p->room, h->width);
    for (long i = 0; i < rows; i++) finish(h, p, to + i * stride);
}

/* -- forward --------------------------------------------------------------------------------------------------------- */

static void sum_row(const float *x, long count, float peak, float *total, float *weighted)
{
    float sum = 0, product = 0;
    for (long j = 0; j < count; j++) {
        float lower = x[j] - peak;
        lower = lower < -87.0f ? -87.0f : lower;
        float power = exponential(lower);
        sum += power;
        product += power * lower;
    }
    *total = sum, *weighted = product;
}

static void say(const struct part *p, const float *x, long stride, const struct targets *t, const struct said *to, long first,
                long rows)
{
    for (long i = first; i < first + rows; i++, x += stride) {
        long target = t->of[i] - p->first;
        to->peak[i] = largest(x, p->room);
        sum_row(x, p->room, to->peak[i], to->total + i, to->weighted + i);
        if (target >= 0 && target < p->tokens) to->chosen[i] = x[target];
    }
}

/* What all pieces say together of target `i`. */
static void conclude(const struct head *h, const struct targets *t, float *sums, long i, float *logprobs, float *entropy,
                     float *logsums)
{
    long count = head_pieces(h);
    float peak = NEVER * 2, total = 0, weighted = 0;
    for (long j = 0; j < count; j++) {
        float here = said_of(sums, t->count, j).peak[i];
        peak = here > peak ? here : peak;
    }
    for (long j = 0; j < count; j++) {
        struct said said = said_of(sums, t->count, j);
        float lower = said.peak[i] - peak, scale;
        lower = lower < -87.0f ? -87.0f : lower;
        scale = exponential(lower);
        total += scale * said.total[i];
        weighted += scale * (said.weighted[i] + lower * said.total[i]);
    }
    float logsum = logf(total);
    int is_token = t->of[i] >= 0 && t->of[i] < h->tokens;
    logprobs[i] = is_token ? said_of(sums, t->count, t->of[i] / PIECE).chosen[i] - peak - logsum : NAN;
    entropy[i] = logsum - weighted / total;
    logsums[i] = peak + logsum;
}

/* Floats of a piece's logits that are kept, and of what the passes work in. */
long head_kept(const struct head *h, long count) { return count * piece_size(h); }

long head_forward_room(const struct head *h, long count, long threads)
{
    return 4 * count * head_pieces(h) + threads * piece_size(h) * (h->width + CUT) + LANES;
}

/* `kept`: room for the logits of the first `keeps` pieces. */
void head_forward(const struct head *h, const struct targets *t, float *kept, long keeps, float *room, float *logprobs,
                  float *entropy, float *logsums, long threads)
{
    long count = head_pieces(h), size = piece_size(h), most = rows_at_once(h);
    long shares = count < 4 * threads ? threads : 1; /* of the targets, where there are few pieces */
    float *rooms = room + whole(4 * t->count * count, LANES);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long task = 0; task < count * shares; task++) {
        float *panel = rooms + omp_get_thread_num() * size * (h->width + CUT);
        long i = task / shares, end = cut(t->count, shares, task % shares + 1);
        struct part p = piece(h, i);
        struct said said = said_of(room, t->count, i);
        lay_turned(panel, h->weight + p.first * h->width, p.tokens, h->width);
        for (long first = cut(t->count, shares, task % shares); first < end; first += most) {
            long rows = smaller(end - first, most);
            float *to = i < keeps ? kept + (i * t->count + first) * size : panel + size * h->width;
            logits(h, &p, panel, t->hidden + first * h->width, to, size, rows);
            say(&p, to, size, t, &said, first, rows);
        }
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < t->count; i++) conclude(h, t, room, i, logprobs, entropy, logsums);
}

/* -- backward -------------------------------------------------------------------------------------------------------- */

/* What came out of the forward pass, and the gradients of it [count]; of_entropy may be NULL. */
struct given {
    const float *logsums, *entropy, *of_logprobs, *of_entropy, *kept;
    long keeps;
};

/* Where gradients go; each may be NULL. That of the weight is added, or put. */
struct wanted {
    float *hidden, *weight, *bias;
    long adds;
};

/* The gradient of the products of target `i` with a piece, from its logits; they may be the same. */
static void slope(const struct head *h, const struct part *p, const struct targets *t, const struct given *g, long i,
                  const float *x, float *to)
{
    float logsum = g->logsums[i], one = g->of_logprobs[i], scale = h->cap != 0 ? h->scale * h->cap : h->scale;
    long target = t->of[i] - p->first;
    int is_here = target >= 0 && target < p->tokens;
    float logit = is_here ? x[target] : 0;
    if (h->cap != 0) {
        float other = g->of_entropy ? g->of_entropy[i] : 0, least = g->of_entropy ? logsum - g->entropy[i] : 0;
        for (long j = 0; j < p->room; j++) {
            float bent = x[j] < -1e29f ? 0 : x[j] / h->scale;
            to[j] = exponential(x[j] - logsum) * (-one - other * (x[j] - least)) * scale * (1 - bent * bent);
        }
        logit /= h->scale;
        scale *= 1 - logit * logit;
    } else if (g->of_entropy) {
        float other = -scale * g->of_entropy[i], least = logsum - g->entropy[i];
        for (long j = 0; j < p->room; j++)
            to[j] = exponential(x[j] - logsum) * (other * (x[j] - least) - scale * one);
    } else
        for (long j = 0; j < p->room; j++) to[j] = exponential(x[j] - logsum) * (-scale * one);
    if (is_here) to[target] += scale * one;
    for (long s = 0; s < h->spares; s++)
        if (h->spare[s] >= p->first && h->spare[s] < p->first + p->tokens) to[h->spare[s] - p->first] = 0;
}

/* What the backward pass works in: hidden states in panels, a piece's weights in panels and turned, a piece's slopes. */
struct space {
    float *hidden, *turned, *laid, *slopes;
    long stride; /* of slopes: rows that are a power of two apart would meet in the cache */
};

static struct space divide(const struct head *h, long count, const struct wanted *w, float *at, long *all)
{
    long size = piece_size(h), stride = size + LANES;
    long sizes[] = {w->weight ? panels(h->width, count) : 0, size * h->width, w->hidden ? panels(h->width, size) : 0,
                    count * stride};
    struct space s = {.stride = stride};
    float **places[] = {&s.hidden, &s.turned, &s.laid, &s.slopes};
    *all = 0;
    for (int i = 0; i < 4; *all += whole(sizes[i++], LANES)) *places[i] = at + *all;
    return s;
}

long head_backward_room(const struct head *h, long count, const struct wanted *w)
{
    long all;
    divide(h, count, w, NULL, &all);
    return all;
}

/* Slopes of some targets, and what the gradient of their hidden states gets from the piece. */
static void rows_back(const struct head *h, const struct part *p, const struct targets *t, const struct given *g,
                      const struct wanted *w, const struct space *s, long piece, long first, long rows)
{
    float *slopes = s->slopes + first * s->stride;
    long width = h->width, size = piece_size(h);
    int is_kept = piece < g->keeps;
    const float *x = is_kept ? g->kept + (piece * t->count + first) * size : slopes;
    if (!is_kept) logits(h, p, s->turned, t->hidden + first * width, slopes, s->stride, rows);
    for (long i = 0; i < rows; i++, x += is_kept ? size : s->stride) slope(h, p, t, g, first + i, x, slopes + i * s->stride);
    if (w->hidden) add_times(slopes, s->stride, s->laid, w->hidden + first * width, width, rows, width, p->tokens);
}

/* The gradients of some tokens' weights and biases. */
static void tokens_back(const struct head *h, const struct part *p, long count, const struct wanted *w, const struct space *s,
                        long first, long tokens)
{
    if (w->bias) {
        float *to = w->bias + p->first + first;
        memset(to, 0, sizeof(float) * tokens);
        for (long i = 0; i < count; i++)
            for (long j = 0; j < tokens; j++) to[j] += s->slopes[i * s->stride + first + j];
    }
    if (!w->weight) return;
    float *to = w->weight + (p->first + first) * h->width;
    if (!w->adds) memset(to, 0, sizeof(float) * tokens * h->width);
    for (long i = 0; i < count; i += BLOCK)
        for (long j = 0; j < h->width; j += PANEL)
            strip(s->slopes + i * s->stride + first, s->stride, s->hidden + j * count + i * PANEL, to + j, h->width, tokens,
                  h->width - j, smaller(count - i, BLOCK), 1, 1, 0, 0);
}

static void lay_piece(const struct head *h, const struct part *p, const struct wanted *w, const struct space *s, int is_kept)
{
    long width = h->width, turned = is_kept ? 0 : p->room / PANEL, laid = w->hidden ? whole(width, PANEL) / PANEL : 0;
    const float *from = h->weight + p->first * width;
#pragma omp for schedule(static)
    for (long i = 0; i < turned + laid; i++) {
        long at = (i < turned ? i : i - turned) * PANEL;
        if (i < turned)
            lay_turned(s->turned + at * width, from + at * width, smaller(p->tokens - at, PANEL), width);
        else
            lay(s->laid + at * p->tokens, from + at, width, smaller(width - at, PANEL), p->tokens);
    }
}

void head_backward(const struct head *h, const struct targets *t, const struct given *g, const struct wanted *w, float *room,
                   long threads)
{
    long count = t->count, width = h->width, most = rows_at_once(h), all;
    struct space s = divide(h, count, w, room, &all);
    long shares = parts_of(count, most, threads);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long j = 0; j < width; j += PANEL)
            if (w->weight) lay(s.hidden + j * count, t->hidden + j, width, smaller(width - j, PANEL), count);
        for (long i = 0; i < head_pieces(h); i++) {
            struct part p = piece(h, i);
            long others = parts_of(p.tokens, most, threads);
            lay_piece(h, &p, w, &s, i < g->keeps); /* all wait here, so that nobody reads the slopes before it any more */
#pragma omp for schedule(dynamic)
            for (long j = 0; j < shares; j++) {
                long first = cut(count, shares, j);
                rows_back(h, &p, t, g, w, &s, i, first, cut(count, shares, j + 1) - first);
            }
#pragma omp for schedule(dynamic) nowait
            for (long j = 0; j < others; j++) {
                long first = cut(p.tokens, others, j);
                tokens_back(h, &p, count, w, &s, first, cut(p.tokens, others, j + 1) - first);
            }
        }
    }
}
