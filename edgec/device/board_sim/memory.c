/* SPDX-License-Identifier: Apache-2.0 */
/* Memories of the simulated board as the core waits for them: caches of whole lines, the least recently used line
 * makes room; docs/cycles.md. A store waits in a buffer and not in the core, but its line is filled. */
#include <string.h>

#include "timing.h"

enum { LINES_MAX = 2048, EMPTY = 0xFFFFFFFF };

/* Line numbers, by set, the most recently used first. */
typedef struct {
  uint32_t lines[LINES_MAX];
  uint32_t last_filled[REGIONS_MAX];
} cache;

static cache code, data;
static uint32_t recent; /* index of the region that was last accessed */

void timing_forget_memory(void) {
  memset(&code, 0xFF, sizeof code);
  memset(&data, 0xFF, sizeof data);
}

/* Whether the line was there; it is now. */
static int touch(cache *memory, const timing_cache *shape, uint32_t line) {
  uint32_t *set = memory->lines + line % shape->sets * shape->ways;
  if (set[0] == line) return 1;
  uint32_t way = 1;
  while (way < shape->ways && set[way] != line) way++;
  const int hit = way < shape->ways;
  if (!hit) way = shape->ways - 1u;
  memmove(set + 1, set, way * sizeof *set);
  set[0] = line;
  return hit;
}

static const timing_region *find(const timing_machine *machine, uint32_t address) {
  const timing_region *region = &machine->regions[recent];
  if (recent < machine->region_count && address - region->origin < region->end - region->origin) return region;
  for (uint32_t i = 0; i < machine->region_count; i++) {
    region = &machine->regions[i];
    if (address - region->origin < region->end - region->origin) {
      recent = i;
      return region;
    }
  }
  return 0;
}

static uint32_t fill_stall(const timing_machine *machine, cache *memory, const timing_region *region, uint32_t line) {
  uint32_t *last = &memory->last_filled[region - machine->regions];
  const int follows = line == *last + 1u && *last != EMPTY;
  *last = line;
  return follows ? region->next : region->first;
}

void timing_data(const timing_machine *machine, timing_cost *cost, uint32_t address, uint32_t size, int write) {
  const timing_region *region = find(machine, address);
  if (region == 0) return;
  const int flash = region->flash != 0;
  if (flash && !write) cost->read[region->flash - 1u] += size;
  /* An access that is not aligned is made in parts: three cycles more on the M7, one on the M4. */
  if (!write && (address & (size - 1u) & 3u) != 0) cost->memory += machine->core == CORE_DUAL ? 3u : 1u;
  if (!region->cached || machine->data.ways == 0) {
    if (!write) cost->memory += region->first;
    if (flash && !write) cost->fetched[region->flash - 1u] += size;
    return;
  }
  const uint32_t first = address / machine->data.line, last = (address + size - 1u) / machine->data.line;
  for (uint32_t line = first; line <= last; line++) {
    if (touch(&data, &machine->data, line)) continue;
    const uint32_t stall = fill_stall(machine, &data, region, line);
    if (!write) cost->memory += stall;
    if (flash) cost->fetched[region->flash - 1u] += machine->data.line;
  }
}

void timing_fetch(const timing_machine *machine, timing_cost *cost, uint32_t address, uint32_t size, uint32_t cycles) {
  const timing_region *region = find(machine, address);
  if (region == 0 || (region->first == 0 && region->next == 0)) return;
  const uint32_t line_bytes = machine->code.ways != 0 ? machine->code.line : 4u;
  const uint32_t first = address / line_bytes, last = (address + size - 1u) / line_bytes;
  for (uint32_t line = first; line <= last; line++) {
    if (machine->code.ways != 0 && touch(&code, &machine->code, line)) continue;
    const int ahead = machine->prefetch && line == code.last_filled[region - machine->regions] + 1u;
    uint32_t stall = fill_stall(machine, &code, region, line);
    if (ahead) { /* it was on its way while the line before was executed */
      const uint32_t hidden = cycles * line_bytes / size;
      stall = stall > hidden ? stall - hidden : 0;
    }
    cost->memory += stall;
  }
}
