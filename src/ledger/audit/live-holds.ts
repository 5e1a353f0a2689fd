/** Live holds against the decisions that granted them, and what they hold against the places it is held in. */
import type { Micros, Millis } from '../../units.ts'
import { cu, guarded, instant, type Tell } from './findings.ts'
import { ACCOUNT_HOLDER, holderOf, type Journal } from './journal.ts'
import type { LiveAccount, LiveCounters, LivePart, LiveRequest } from './live.ts'

/** What open holds have taken: for each holder its windows' instances and its concurrency guards' ends. */
export interface HeldSums {
  /** By holder, then by key and start. */
  readonly windows: Map<string, Map<string, Micros>>
  /** By holder, then by guard. */
  readonly ends: Map<string, Map<string, Millis[]>>
  count: number
  earliestAt: Millis | null
}

export const instanceKey = (key: string, startAt: Millis): string => `${key} ${startAt}`

function ofHolder<V>(sums: Map<string, Map<string, V>>, holder: string): Map<string, V> {
  let own = sums.get(holder)
  if (own === undefined) {
    own = new Map()
    sums.set(holder, own)
  }
  return own
}

/** Every hold of the journal has its open request, with the same parts, and the other way round. */
export function openHolds(journal: Journal, tell: Tell) {
  const sums: HeldSums = { windows: new Map(), ends: new Map(), count: 0, earliestAt: null }
  const seen = new Set<string>()
  return {
    read(request: LiveRequest): void {
      seen.add(request.id)
      sums.count += 1
      guarded(tell, `the cell of request ${request.id}`, () => {
        compareHold(journal, request, tell)
        sumHold(sums, request, tell)
      })
    },
    end(): HeldSums {
      for (const id of journal.open) {
        if (seen.has(id)) continue
        const hold = journal.requests.get(id)?.hold
        const amount = hold?.granted ?? 0
        tell('hold', `${cu(amount)} are held for the request by its entries, and it is not open`, {
          request: id,
          amount,
        })
      }
      return sums
    },
  }
}

function compareHold(journal: Journal, cell: LiveRequest, tell: Tell): void {
  const request = cell.id
  const story = journal.requests.get(request)
  const amount = cell.hold?.granted ?? 0
  if (cell.hold === undefined)
    return tell('hold', 'the request is open in its cell and has no hold', { request })
  if (story === undefined || story.hold === null) {
    const why =
      story === undefined ? 'no decision granted it' : `its story ended: ${story.closed ?? 'no hold'}`
    return tell('hold', `${cu(amount)} are held in its cell, and by its entries ${why}`, { request, amount })
  }
  const { hold } = story
  const seq = cell.seqs.decision
  if (seq !== (story.decision ?? undefined))
    tell('hold', `the cell names entry ${seq ?? 'none'} as its decision, and it is ${story.decision}`, {
      request,
    })
  if (cell.expiresAt !== hold.expiresAt)
    tell(
      'hold',
      `the hold ends at ${instant(cell.expiresAt ?? 0)} in the cell, and its last decision says ${instant(hold.expiresAt ?? 0)}`,
      {
        request,
        amount,
      },
    )
  if (amount !== hold.granted)
    tell('hold', `${cu(amount)} are held in its cell, and its last decision granted ${cu(hold.granted)}`, {
      request,
      amount: amount - hold.granted,
    })
  compareBySource(cell.hold.parts, hold.from, (source, says, right) =>
    tell('hold', `${cu(says)} are held from ${source} in its cell, and its decision took ${cu(right)}`, {
      request,
      amount: says - right,
    }),
  )
}

export function compareBySource(
  parts: readonly LivePart[],
  split: Iterable<readonly [source: string, amount: Micros]>,
  differ: (source: string, says: Micros, right: Micros) => void,
): void {
  const says = new Map<string, Micros>()
  for (const { source, amount } of parts) says.set(source, (says.get(source) ?? 0) + amount)
  const right = new Map<string, Micros>()
  for (const [source, amount] of split) right.set(source, (right.get(source) ?? 0) + amount)
  for (const source of new Set([...says.keys(), ...right.keys()])) {
    const [one, other] = [says.get(source) ?? 0, right.get(source) ?? 0]
    if (one !== other) differ(source, one, other)
  }
}

function sumHold(sums: HeldSums, request: LiveRequest, tell: Tell): void {
  const { hold, expiresAt, subject } = request
  if (hold === undefined || expiresAt === null) return
  sums.earliestAt = sums.earliestAt === null ? expiresAt : Math.min(sums.earliestAt, expiresAt)
  const place = (by: string | undefined): string => {
    if (by === undefined) return ACCOUNT_HOLDER
    const value = subject[by]
    if (value === undefined)
      tell('hold', `the hold counts by ${by}, and the subject has none`, { request: request.id })
    return holderOf(by, value ?? '')
  }
  const count = (holder: string, key: string, startAt: Millis, amount: Micros): void => {
    const own = ofHolder(sums.windows, holder)
    const at = instanceKey(key, startAt)
    own.set(at, (own.get(at) ?? 0) + amount)
  }
  for (const part of hold.parts)
    for (const [key, startAt] of part.windows ?? []) count(place(part.by), key, startAt, part.amount)
  for (const guard of hold.guards) {
    if (guard.kind === 'budget') count(place(guard.by), guard.name, guard.at, guard.amount)
    if (guard.kind !== 'concurrency') continue
    const own = ofHolder(sums.ends, place(guard.by))
    const ends = own.get(guard.name)
    if (ends === undefined) own.set(guard.name, [expiresAt])
    else ends.push(expiresAt)
  }
}

export function compareHoldCounts({ openHolds, dueAt }: LiveAccount, sums: HeldSums, tell: Tell): void {
  if (openHolds !== sums.count)
    tell('hold', `the account's cell counts ${openHolds} open holds, and there are ${sums.count}`)
  if (sums.earliestAt !== null && (dueAt === null || dueAt > sums.earliestAt))
    tell(
      'hold',
      `a hold ends at ${instant(sums.earliestAt)}, and the account's cell looks for none before ${dueAt === null ? 'the next one' : instant(dueAt)}`,
    )
}

export function compareConcurrency(
  counters: LiveCounters,
  holder: string,
  whose: string,
  sums: HeldSums,
  tell: Tell,
): void {
  const ends = sums.ends.get(holder)
  for (const name of new Set([...Object.keys(counters.concurrency), ...(ends?.keys() ?? [])])) {
    const says = counters.concurrency[name] ?? []
    const right = (ends?.get(name) ?? []).toSorted((a, b) => a - b)
    if (says.join() !== right.join())
      tell(
        'hold',
        `guard ${name}${whose} counts ${says.length} open holds (${says.map(instant).join(', ')}), and there are ${right.length} (${right.map(instant).join(', ')})`,
      )
  }
}
