/* Rows of tokens dealt out by families: rows that see tokens of one another. Sums of one meet those of no other. */
#include <stdlib.h>
#include <string.h>

struct row {
    long own, own_count, prefix, prefix_count; /* first tokens, and how many */
};

static int same_prefix(const struct row *one, const struct row *other)
{
    return one->prefix == other->prefix && one->prefix_count == other->prefix_count;
}

/* Parts of the rows, whole families each: part i is rows[starts[i]..starts[i + 1]). In it stand those without a prefix,
 * then those of one family after the other: so what is side by side does not depend on how many parts there are. */
struct parts {
    struct row *rows;
    long *starts, count;
};

static long first_of(const long *above, long row)
{
    while (above[row] != row) row = above[row];
    return row;
}

static void join(long *above, long one, long two)
{
    one = first_of(above, one), two = first_of(above, two);
    above[one > two ? one : two] = one > two ? two : one;
}

/* `above` of each row: itself in the first row of a family, one before it in the others. */
static void find_families(const struct row *rows, long count, long *above)
{
    for (long r = 0; r < count; r++) above[r] = r;
    for (long r = 0; r < count; r++) {
        long begin = rows[r].prefix, end = begin + rows[r].prefix_count;
        if (r && begin < end && same_prefix(rows + r, rows + r - 1))
            join(above, r, r - 1);
        else if (begin < end)
            for (long seen = 0; seen < count; seen++)
                if (rows[seen].own < end && begin < rows[seen].own + rows[seen].own_count) join(above, r, seen);
    }
}

/* At most about `wanted` parts, of about as many tokens. To be freed: `rows` and `starts`. */
static struct parts deal_rows(const struct row *rows, long count, long wanted)
{
    struct parts p = {malloc(sizeof(struct row) * (count + 1)), calloc(7 * count + 8, sizeof(long)), 0};
    if (!p.rows || !p.starts) abort();
    long *above = p.starts + count + 2, *family = above + count, *tokens = family + count, *part = tokens + count + 1;
    long *places = part + count + 1, families = 0, all = 0, before = 0;
    find_families(rows, count, above);
    for (long r = 0; r < count; all += rows[r++].own_count) { /* a family's first row has its number before the others */
        long first = first_of(above, r);
        family[r] = first == r ? families++ : family[first];
        tokens[family[r]] += rows[r].own_count;
    }
    for (long f = 0; f < families; before += tokens[f++]) {
        p.count += !p.count || before * wanted >= all * p.count;
        part[f] = p.count - 1;
    }
#define PLACE(r) (part[family[r]] + (rows[r].prefix_count ? family[r] + 1 : head[part[family[r]]]))
    long *head = above; /* the first family of each part; of no use are the rows above one another any more */
    for (long f = families - 1; f >= 0; f--) head[part[f]] = f;
    for (long r = 0; r < count; r++) places[PLACE(r) + 1]++, p.starts[part[family[r]] + 1]++;
    for (long i = 1; i <= p.count + families; i++) places[i] += places[i - 1];
    for (long i = 1; i <= p.count; i++) p.starts[i] += p.starts[i - 1];
    for (long r = 0; r < count; r++) p.rows[places[PLACE(r)]++] = rows[r];
#undef PLACE
    return p;
}
