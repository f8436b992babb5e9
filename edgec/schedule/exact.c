// SPDX-License-Identifier: Apache-2.0
/* Branch and bound for placement, run on the host. Method: Moffitt, MiniMalloc (ASPLOS 2023); what it does and why is
 * told in exact_search.py, which is the same algorithm, node for node. The caller owns all memory. */
#include <stdint.h>

enum { LIMIT = -1, NONE = 0, FOUND = 1 };

struct search {
    int32_t groups, sections;
    int64_t capacity, roof, node_limit, nodes; /* roof: capacity, rounded up as sizes are */
    const int64_t *modulus, *residue, *height;
    const int32_t *rank, *first, *last, *order;
    const int32_t *part_begin, *part_first, *part_last;
    const int64_t *part_low, *part_high;
    const int32_t *near_begin, *near;
    const int64_t *near_distance;
    int64_t *lowest, *offset, *section_low, *section_left, *weight;
    int32_t *placed, *barred;
    int32_t *lists; /* 4 n (n + 2) */
    int64_t *values; /* 3 n (n + 2) */
};

int32_t edgec_place_size(void);
int32_t edgec_place(struct search *s);

/* What was placed last on this path, and what that tells of those to come. */
struct path {
    int32_t group; /* -1: none */
    int64_t base;  /* nothing lies lower from here on */
};

static int64_t lift(const struct search *s, int32_t g, int64_t offset) {
    int64_t rest = (s->residue[g] - offset) % s->modulus[g];
    return offset + (rest < 0 ? rest + s->modulus[g] : rest);
}

static int is_shape(const struct search *s, int32_t g) { return s->part_begin[g + 1] - s->part_begin[g] > 1; }

/* The lowest offset that the canonical order leaves to g; below s->lowest[g] + 1 only if that is where it would rest. */
static int64_t reachable(const struct search *s, int32_t g, struct path path) {
    int64_t at = s->lowest[g];
    if (at < path.base) at = lift(s, g, path.base);
    if (path.group >= 0 && at == path.base && s->rank[g] < s->rank[path.group]) at = lift(s, g, path.base + 1);
    return at;
}

/* False if some section cannot hold what is left to place in it. */
static int promising(struct search *s, const int32_t *list, int32_t count, struct path path) {
    int64_t *low = s->section_low, *left = s->section_left;
    int32_t begin = s->first[list[0]], end = begin;
    for (int32_t i = 0; i < count; i++) end = s->last[list[i]] > end ? s->last[list[i]] : end;
    for (int32_t t = begin; t < end; t++) {
        low[t] = INT64_MAX;
        left[t] = 0;
    }
    for (int32_t i = 0; i < count; i++) {
        int32_t g = list[i];
        int64_t at = reachable(s, g, path);
        if (at + s->height[g] > s->capacity) {
            s->weight[g]++;
            return 0;
        }
        for (int32_t p = s->part_begin[g]; p < s->part_begin[g + 1]; p++) {
            int64_t bottom = at + s->part_low[p], size = s->part_high[p] - s->part_low[p];
            for (int32_t t = s->part_first[p]; t < s->part_last[p]; t++) {
                low[t] = low[t] < bottom ? low[t] : bottom;
                left[t] += size;
            }
        }
    }
    for (int32_t t = begin; t < end; t++) {
        if (left[t] == 0 || low[t] + left[t] <= s->roof) continue;
        for (int32_t i = 0; i < count; i++) {
            if (s->first[list[i]] <= t && t < s->last[list[i]]) s->weight[list[i]]++;
        }
        return 0;
    }
    return 1;
}

/* End of the component that starts at list[begin]: nothing behind it is live together with anything in it. */
static int32_t component_end(const struct search *s, const int32_t *list, int32_t begin, int32_t count) {
    int32_t end = s->last[list[begin]], i = begin + 1;
    for (; i < count && s->first[list[i]] < end; i++) end = s->last[list[i]] > end ? s->last[list[i]] : end;
    return i;
}

/* Those that may be next, in the order in which they are tried: by offset, then rank. Returns how many. */
static int32_t candidates(
    struct search *s, const int32_t *list, int32_t count, struct path path, int shapes, int32_t *found, int64_t *at
) {
    int64_t lowest_top = INT64_MAX;
    int32_t n = 0;
    for (int32_t i = 0; i < count && !shapes; i++) {
        int64_t top = reachable(s, list[i], path) + s->height[list[i]];
        lowest_top = top < lowest_top ? top : lowest_top;
    }
    for (int32_t e = 0; shapes && path.group >= 0 && e < s->near_begin[path.group + 1] - s->near_begin[path.group]; e++)
        s->barred[s->near[s->near_begin[path.group] + e]] = 1;
    for (int32_t i = 0; i < count; i++) {
        int32_t g = list[i];
        int64_t here = s->lowest[g];
        if (shapes) {
            if (path.group >= 0 && !s->barred[g]) {
                int64_t before = s->offset[path.group];
                if (here < before || (here == before && s->rank[g] < s->rank[path.group])) continue;
            }
        } else if (here >= lowest_top || here != reachable(s, g, path)) {
            continue;
        }
        int32_t k = n++;
        for (; k > 0 && (at[k - 1] > here || (at[k - 1] == here && s->rank[found[k - 1]] > s->rank[g])); k--) {
            at[k] = at[k - 1];
            found[k] = found[k - 1];
        }
        at[k] = here;
        found[k] = g;
    }
    for (int32_t e = 0; shapes && path.group >= 0 && e < s->near_begin[path.group + 1] - s->near_begin[path.group]; e++)
        s->barred[s->near[s->near_begin[path.group] + e]] = 0;
    return n;
}

/* Lifts what is near g, at `offset`, and still to place; writes who and from where, and if g is in anybody's way.
 * False if one leaves the memory. */
static int raise_near(
    struct search *s, int32_t g, int64_t offset, struct path path, int32_t *who, int64_t *from, int32_t *changed,
    int *in_the_way
) {
    for (int32_t e = s->near_begin[g]; e < s->near_begin[g + 1]; e++) {
        int32_t h = s->near[e];
        int64_t need = offset + s->near_distance[e];
        if (s->placed[h] || need <= s->lowest[h]) continue;
        *in_the_way |= need > reachable(s, h, path);
        who[*changed] = h;
        from[(*changed)++] = s->lowest[h];
        s->lowest[h] = lift(s, h, need);
        if (s->lowest[h] + s->height[h] > s->capacity) {
            s->weight[h]++;
            s->weight[g]++;
            return 0;
        }
    }
    return 1;
}

static int solve(
    struct search *s, const int32_t *list, int32_t count, struct path path, int32_t *lists, int64_t *values
) {
    int shapes = 0;
    for (int32_t i = 0; i < count; i++) shapes |= is_shape(s, list[i]);
    int32_t *found = lists;
    int64_t *at = values;
    int32_t n = candidates(s, list, count, path, shapes, found, at);
    for (int32_t c = 0; c < n; c++) {
        int32_t g = found[c], changed = 0, *who = lists + n;
        int in_the_way = 0;
        int64_t *from = values + n;
        if (++s->nodes > s->node_limit) return LIMIT;
        s->placed[g] = 1;
        s->offset[g] = at[c];
        int result = raise_near(s, g, at[c], path, who, from, &changed, &in_the_way);
        if (result == FOUND) {
            int32_t *child = who + changed, rest = 0;
            for (int32_t i = 0; i < count; i++) {
                if (list[i] != g) child[rest++] = list[i];
            }
            /* The monotone rule holds among rectangles only; below a raised part something may still go. */
            for (int pass = 0; pass < 2; pass++) {
                for (int32_t b = 0, e; b < rest && result == FOUND; b = e) {
                    e = component_end(s, child, b, rest);
                    int rectangles = 1;
                    for (int32_t i = b; i < e && shapes; i++) rectangles &= !is_shape(s, child[i]);
                    struct path next = {shapes && rectangles ? -1 : g, shapes ? -1 : at[c]};
                    result = pass == 0 ? promising(s, child + b, e - b, next)
                                       : solve(s, child + b, e - b, next, child + rest, from + changed);
                }
            }
        }
        while (changed > 0) {
            changed--;
            s->lowest[who[changed]] = from[changed];
        }
        s->placed[g] = 0;
        if (result != NONE || !in_the_way) return result;
    }
    return NONE;
}

int32_t edgec_place_size(void) { return (int32_t)sizeof(struct search); }

/* 1: placed, see s->offset. 0: it cannot be done in this way. -1: the node limit was reached. */
int32_t edgec_place(struct search *s) {
    struct path none = {-1, -1};
    int result = FOUND;
    s->nodes = 0;
    for (int32_t g = 0; g < s->groups; g++) {
        s->lowest[g] = lift(s, g, 0);
        s->placed[g] = 0;
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t b = 0, e; b < s->groups && result == FOUND; b = e) {
            e = component_end(s, s->order, b, s->groups);
            result = pass == 0 ? promising(s, s->order + b, e - b, none)
                               : solve(s, s->order + b, e - b, none, s->lists, s->values);
        }
    }
    return result;
}
