/**
 * Tells that no row has a request's id, without a look into the index: nearly every reserve brings an id that is new, and
 * to find that out in a tree of random ids took a tenth of what a reserve costs. A Bloom filter (B. H. Bloom, "Space/time
 * trade-offs in hash coding with allowable errors", CACM 13(7), 1970), its hashes made out of two (A. Kirsch and
 * M. Mitzenmacher, "Less hashing, same performance", 2006): it may take a new id for a known one, and then the index is
 * asked, but never a known one for new.
 */
export interface KnownIds {
  add(account: number, id: string): void
  /** False only where no id like this was ever added. */
  mayKnow(account: number, id: string): boolean
}

/** Ids of a file, read one slice at a time. */
export interface IdSource {
  generations(): readonly number[]
  requestIds(generation: number, afterId: string, afterAccount: number, limit: number): readonly IdRow[]
}
export type IdRow = readonly [id: string, account: number]

/** Read at once, in 0.7 ms; then others have their turn. */
const SLICE = 2_000
const PAUSE_MS = 4

/**
 * Learns the ids of a file, while others work: about 5 s a million. Until it has, every id may be known. Whoever writes to the
 * file meanwhile adds what it writes.
 */
export function learnKnownIds(source: IdSource): KnownIds & { stop(): void } {
  const ids = createKnownIds()
  let whole = false
  let stopped = false

  async function learn(): Promise<void> {
    for (const generation of source.generations()) {
      let last: IdRow = ['', 0]
      for (;;) {
        const slice = source.requestIds(generation, ...last, SLICE)
        for (const [id, account] of slice) ids.add(account, id)
        if (slice.length < SLICE) break
        last = slice.at(-1) as IdRow
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS).unref())
        if (stopped) return
      }
    }
    whole = true
  }
  // A file that cannot be read is told of by whoever needs what stands there.
  learn().catch(() => {})
  return {
    add: ids.add,
    mayKnow: (account, id) => !whole || ids.mayKnow(account, id),
    stop() {
      stopped = true
    },
  }
}

const BITS_PER_ID = 16
const HASHES = 4
const FIRST_CAPACITY = 2 ** 16

interface Part {
  readonly words: Uint32Array
  readonly mask: number
  readonly capacity: number
  count: number
}

/** Grows by parts, each twice as large as the one before, up to 2 bytes an id for `most` ids; full, it knows everything. */
export function createKnownIds(most = 2 ** 23): KnownIds {
  const parts: Part[] = [partOf(Math.min(most, FIRST_CAPACITY))]
  let room = most
  let full = false

  return {
    add(account, id) {
      if (full) return
      let part = parts.at(-1) as Part
      if (part.count === part.capacity) {
        room -= part.capacity
        if (room <= 0) {
          full = true
          parts.length = 0
          return
        }
        part = partOf(Math.min(room, part.capacity * 2))
        parts.push(part)
      }
      part.count++
      const step = stepOf(account, id)
      let hash = hashOf(account, id)
      for (let i = 0; i < HASHES; i++, hash = (hash + step) | 0) {
        const bit = hash & part.mask
        part.words[bit >>> 5] = (part.words[bit >>> 5] as number) | (1 << (bit & 31))
      }
    },
    mayKnow(account, id) {
      if (full) return true
      const first = hashOf(account, id)
      const step = stepOf(account, id)
      for (const part of parts) if (has(part, first, step)) return true
      return false
    },
  }
}

function partOf(capacity: number): Part {
  const bits = 2 ** Math.ceil(Math.log2(capacity * BITS_PER_ID))
  return { words: new Uint32Array(bits / 32), mask: bits - 1, capacity, count: 0 }
}

function has({ words, mask }: Part, first: number, step: number): boolean {
  let hash = first
  for (let i = 0; i < HASHES; i++, hash = (hash + step) | 0) {
    const bit = hash & mask
    if (((words[bit >>> 5] as number) & (1 << (bit & 31))) === 0) return false
  }
  return true
}

const hashOf = (account: number, id: string): number => fnv(0x811c9dc5 ^ account, id)
/** Odd, so that it reaches every bit. */
const stepOf = (account: number, id: string): number => fnv(0x9747b28c ^ account, id) | 1

/** FNV-1a (Fowler, Noll, Vo), its low bits mixed in the end as MurmurHash3 does. */
function fnv(seed: number, text: string): number {
  let hash = seed
  for (let place = 0; place < text.length; place++)
    hash = Math.imul(hash ^ text.charCodeAt(place), 0x01000193)
  hash ^= hash >>> 16
  hash = Math.imul(hash, 0x85ebca6b)
  hash ^= hash >>> 13
  return Math.imul(hash, 0xc2b2ae35) ^ (hash >>> 16)
}
