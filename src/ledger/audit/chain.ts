/** The chain: numbered without gaps, each line holding the hash of the one before, each line what an entry is. */
import type { Millis } from '../../units.ts'
import {
  type ChainHead,
  chainHash,
  type Entry,
  type PrivatePart,
  type Sha256,
  type StoredEntry,
} from '../entries.ts'
import { type About, instant, type Tell } from './findings.ts'
import type { Journal } from './journal.ts'
import { readDoubtful, readDoubtfulPrivate } from './reading.ts'

/** An entry that could be read, with the person it names where that part is there and is the one that was written. */
export interface Link {
  readonly entry: Entry
  readonly person: PrivatePart | null
  readonly recordedAt: Millis
}

export interface Chain {
  /** Checks a line against the one before it; undefined where what it says cannot be used. */
  read(stored: StoredEntry): Link | undefined
  end(): void
  readonly entries: number
}

export interface ChainOptions {
  readonly sha256: Sha256
  readonly head?: ChainHead | undefined
}

export function openChain(journal: Journal, { sha256, head: kept }: ChainOptions, tell: Tell): Chain {
  let entries = 0
  let keptSeen = false
  // A journal that is resumed begins after its head, which may be the very one.
  if (kept !== undefined && kept.seq === journal.head.seq && kept.hash !== journal.head.hash)
    tellRewritten(kept.seq)

  function read(stored: StoredEntry): Link | undefined {
    entries += 1
    const { seq, hash } = stored
    const { head } = journal
    if (
      !Number.isSafeInteger(seq) ||
      seq < 1 ||
      typeof hash !== 'string' ||
      typeof stored.body !== 'string'
    ) {
      tell('format', `a line of the journal has no number, text or hash: ${String(seq)}`)
      return undefined
    }
    if (seq <= head.seq) {
      tell('chain', `the entry stands after entry ${head.seq}: it is there twice, or in the wrong place`, {
        seq,
      })
      return undefined
    }
    const told = readDoubtful(stored.body)
    const about = { seq, ...('value' in told ? aboutOf(told.value) : {}) }
    if (seq > head.seq + 1) {
      const gone =
        seq === head.seq + 2 ? `entry ${head.seq + 1} is` : `entries ${head.seq + 1} to ${seq - 1} are`
      tell('missing', `${gone} missing before entry ${seq}`, { seq })
    } else if (chainHash(head.hash, stored.body, sha256) !== hash) {
      tell(
        'chain',
        'the hash does not follow from the text and the entry before: one of them was changed',
        about,
      )
    }
    journal.head = { seq, hash }
    if (kept?.seq === seq) {
      keptSeen = true
      if (kept.hash !== hash) tellRewritten(seq, about)
    }
    if ('problem' in told) {
      tell('format', told.problem, about)
      return undefined
    }
    return usable(stored, told.value)
  }

  function tellRewritten(seq: number, about: About = { seq }): void {
    tell(
      'head',
      'the hash is not the one that was kept elsewhere: the journal up to here was rewritten',
      about,
    )
  }

  function usable(stored: StoredEntry, entry: Entry): Link | undefined {
    const { seq } = stored
    const about = { seq, request: entry.request }
    if (entry.seq !== seq || entry.kind !== stored.kind) {
      tell(
        'chain',
        `the text is that of entry ${entry.seq}, ${entry.kind}, and it stands as entry ${seq}, ${stored.kind}`,
        about,
      )
      return undefined
    }
    if (entry.previous !== undefined && entry.previous >= seq)
      tell('chain', `the entry points ahead, to entry ${entry.previous}, as the one before it`, about)
    return { entry, person: personOf(stored, entry), recordedAt: recorded(entry) }
  }

  /** Entries are written in order of time, but after a repair of the clock. */
  function recorded(entry: Entry): Millis {
    const at = entry.recorded_at ?? entry.at
    const repair = entry.kind === 'change' && entry.what === 'repair'
    if (at < journal.recordedAt && !repair)
      tell(
        'format',
        `the entry was written at ${instant(at)}, before the entry before it, at ${instant(journal.recordedAt)}`,
        {
          seq: entry.seq,
          request: entry.request,
        },
      )
    journal.recordedAt = at
    return at
  }

  function personOf(stored: StoredEntry, entry: Entry): PrivatePart | null {
    const about = { seq: stored.seq, request: entry.request }
    // Absent is fine: it was erased, or there was none.
    if (stored.private === null || stored.private === undefined) return null
    if (entry.private === undefined || sha256(stored.private) !== entry.private) {
      tell('private', 'the private part is not the one that was written with it', about)
      return null
    }
    const told = readDoubtfulPrivate(stored.private)
    if ('value' in told) return told.value
    tell('private', told.problem, about)
    return null
  }

  function end(): void {
    if (kept === undefined || keptSeen || kept.seq === 0 || kept.seq < journal.first) return
    tell(
      'head',
      `entry ${kept.seq} was kept elsewhere as its head, and the journal ends at ${journal.head.seq}: its end was cut off`,
      {
        seq: kept.seq,
      },
    )
  }

  return {
    read,
    end,
    get entries() {
      return entries
    },
  }
}

/** Whose line it is and what it moves, so that damage to it is told with both. */
function aboutOf(entry: Entry): About {
  const { request } = entry
  if (entry.kind === 'charge') return { request, amount: entry.cost }
  if (entry.kind === 'balance') return { request, amount: entry.amount }
  return entry.kind === 'decision' ? { request, amount: entry.granted } : { request }
}
