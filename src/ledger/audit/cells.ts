/** Live cells against what the journal adds up to. */
import type { Micros, Millis } from '../../units.ts'
import type { Books } from '../books.ts'
import type { Grant } from '../grants.ts'
import { cu, type Tell } from './findings.ts'
import {
  ACCOUNT_HOLDER,
  type GrantTrace,
  holderOf,
  type Journal,
  remainingOf,
  type WindowTrace,
} from './journal.ts'
import type {
  LiveAccount,
  LiveCells,
  LiveCounters,
  LiveGrantCell,
  LiveOverride,
  LivePart,
  LiveRequest,
} from './live.ts'
import { usedRange } from './windows.ts'

/** What open holds have taken: for each holder its windows' instances and its concurrency guards' ends. */
interface HeldSums {
  /** By holder, then by key and start. */
  readonly windows: Map<string, Map<string, Micros>>
  /** By holder, then by guard. */
  readonly ends: Map<string, Map<string, Millis[]>>
  count: number
  earliestAt: Millis | null
}
const instanceKey = (key: string, startAt: Millis): string => `${key} ${startAt}`

function ofHolder<V>(sums: Map<string, Map<string, V>>, holder: string): Map<string, V> {
  let own = sums.get(holder)
  if (own === undefined) {
    own = new Map()
    sums.set(holder, own)
  }
  return own
}

export function compareCells(journal: Journal, cells: LiveCells, tell: Tell): void {
  const { account } = cells
  compareHead(journal, account, tell)
  compareTerms(journal, account, tell)
  compareBooks(journal, account, tell)
  compareGrants(journal, account, tell)
  const held = compareHolds(journal, cells.holds, account.lastAt, tell)
  compareHoldCounts(account, held, tell)
  compareCounters(journal, account, account.counters, null, ACCOUNT_HOLDER, held, tell)
  compareOverrides(journal, account, account.overrides, ACCOUNT_HOLDER, tell)
  compareSubjects(journal, cells, held, tell)
  if (cells.grants !== undefined) compareGrantCells(journal, cells.grants, tell)
}

/** Runs one comparison; a cell that has not even its fields is told and passed over. */
export function guarded(tell: Tell, what: string, compare: () => void): void {
  try {
    compare()
  } catch (error) {
    tell('format', `${what} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function compareHead(journal: Journal, { head }: LiveAccount, tell: Tell): void {
  const { head: last } = journal
  if (head.seq > last.seq) {
    const gone = head.seq - last.seq
    tell(
      'missing',
      `entries ${last.seq + 1} to ${head.seq} are missing: the cell knows ${gone} more than the journal has`,
      {
        seq: head.seq,
      },
    )
  } else if (head.seq < last.seq) {
    tell(
      'chain',
      `the journal goes on to entry ${last.seq}, and the account's cell knows none after ${head.seq}`,
      {
        seq: last.seq,
      },
    )
  } else if (head.hash !== last.hash) {
    tell('chain', "the last entry has another hash than the account's cell knows", { seq: last.seq })
  }
}

function compareTerms({ terms }: Journal, account: LiveAccount, tell: Tell): void {
  for (const field of ['plan', 'status', 'zone'] as const) {
    if (terms[field] !== undefined && terms[field] !== account[field])
      tell('account', `its ${field} is ${account[field]} in the cell and ${terms[field]} by its entries`)
  }
}

function compareBooks({ books }: Journal, account: LiveAccount, tell: Tell): void {
  let sum = 0n
  for (const name of Object.keys(books) as (keyof Books)[]) {
    const says = account.books[name]
    sum += BigInt(says)
    if (says !== books[name])
      tell(
        'balance',
        `${name} stands at ${cu(says)} in the cell, and its transfers add up to ${cu(books[name])}`,
        {
          amount: says - books[name],
        },
      )
  }
  for (const { remaining } of account.grants) sum += BigInt(remaining)
  if (sum !== 0n)
    tell('balance', `the ledger accounts of its cell sum to ${cu(Number(sum))} and not to zero`, {
      amount: Number(sum),
    })
}

function compareGrants(journal: Journal, account: LiveAccount, tell: Tell): void {
  const live = new Map<string, Grant>()
  for (const grant of account.grants) {
    if (live.has(grant.id))
      tell('grant', `grant ${grant.id} stands in the cell twice`, { amount: grant.remaining })
    live.set(grant.id, grant)
  }
  for (const [id, trace] of journal.grants) {
    const grant = live.get(id)
    live.delete(id)
    const remaining = remainingOf(trace)
    compareSums(id, trace, remaining, grant?.remaining ?? 0, grant?.held ?? 0, tell)
    if (grant !== undefined) {
      compareGrantTerms(id, trace, grant, 'its cell', tell)
      compareEnd(journal, trace, grant, account.lastAt, tell)
    }
  }
  for (const { id, remaining } of live.values())
    tell('grant', `grant ${id} has ${cu(remaining)} left in the cell, and was never issued`, {
      amount: remaining,
    })
}

function compareSums(
  id: string,
  trace: GrantTrace,
  right: Micros,
  says: Micros,
  held: Micros,
  tell: Tell,
): void {
  const { seq } = trace
  if (says !== right)
    tell('grant', `grant ${id} has ${cu(says)} left in the cell, and its transfers leave ${cu(right)}`, {
      seq,
      amount: says - right,
    })
  if (held !== trace.held)
    tell(
      'hold',
      `${cu(held)} of grant ${id} are held in the cell, and open requests hold ${cu(trace.held)}`,
      {
        seq,
        amount: held - trace.held,
      },
    )
}

function compareGrantTerms(id: string, trace: GrantTrace, grant: Grant, where: string, tell: Tell): void {
  const terms: readonly [string, unknown, unknown][] = [
    ['amount', grant.amount, trace.amount],
    ['kind', grant.kind, trace.kind],
    ['priority', grant.priority, trace.priority],
    ['start', grant.startsAt, trace.startsAt],
    ['end', grant.expiresAt, trace.expiresAt],
    ['features', (grant.features ?? []).join(', '), (trace.features ?? []).join(', ')],
  ]
  for (const [term, says, right] of terms) {
    if (says === right) continue
    const told = term === 'amount' ? [cu(says as number), cu(right as number)] : [String(says), String(right)]
    tell('grant', `the ${term} of grant ${id} is ${told[0]} in ${where}, and it was issued with ${told[1]}`, {
      seq: trace.seq,
      amount: trace.amount,
    })
  }
}

function compareEnd(journal: Journal, trace: GrantTrace, grant: Grant, lastAt: Millis, tell: Tell): void {
  const over = grant.expiresAt !== null && grant.expiresAt <= lastAt
  const ended = grant.ended !== undefined
  const right = trace.revokedSeq !== null || over
  // A clock that was set back leaves grants ended that by the new time have not come to their end.
  if (ended === right || (journal.repaired && ended)) return
  tell(
    'grant',
    `grant ${grant.id} ${ended ? `is ${grant.ended} in the cell` : 'still pays'}, and by its entries ${right ? 'it has ended' : 'it has not'}`,
    { seq: trace.seq, amount: grant.remaining },
  )
}

/** Every hold of the journal has its open request, with the same parts, and the other way round. */
function compareHolds(journal: Journal, holds: Iterable<LiveRequest>, lastAt: Millis, tell: Tell): HeldSums {
  const sums: HeldSums = { windows: new Map(), ends: new Map(), count: 0, earliestAt: null }
  const seen = new Set<string>()
  for (const request of holds) {
    seen.add(request.id)
    sums.count += 1
    guarded(tell, `the cell of request ${request.id}`, () => {
      compareHold(journal, request, tell)
      sumHold(sums, request, tell)
    })
  }
  for (const id of journal.open) {
    if (seen.has(id)) continue
    const hold = journal.requests.get(id)?.hold
    const amount = hold?.granted ?? 0
    tell('hold', `${cu(amount)} are held for it by its entries at ${lastAt}, and there is no open request`, {
      request: id,
      amount,
    })
  }
  return sums
}

function compareHold(journal: Journal, cell: LiveRequest, tell: Tell): void {
  const request = cell.id
  const story = journal.requests.get(request)
  const amount = cell.hold?.granted ?? 0
  if (cell.hold === undefined) return tell('hold', 'it is open in its cell and has no hold', { request })
  if (story === undefined || story.hold === null) {
    const why =
      story === undefined ? 'no decision granted it' : `its story ended: ${story.closed ?? 'no hold'}`
    return tell('hold', `${cu(amount)} are held in its cell, and by its entries ${why}`, { request, amount })
  }
  const { hold } = story
  const seq = cell.seqs.decision
  if (seq !== (story.decision ?? undefined))
    tell('hold', `its cell names entry ${seq ?? 'none'} as its decision, and it is ${story.decision}`, {
      request,
    })
  if (cell.expiresAt !== hold.expiresAt)
    tell(
      'hold',
      `its hold ends at ${cell.expiresAt} in the cell, and its last decision says ${hold.expiresAt}`,
      {
        request,
        amount,
      },
    )
  compareBySource(cell.hold.parts, hold.from, (source, says, right) =>
    tell('hold', `${cu(says)} are held from ${source} in its cell, and its decision took ${cu(right)}`, {
      request,
      amount: says - right,
    }),
  )
}

function compareBySource(
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
      tell('hold', `its hold counts by ${by}, and its subject has none`, { request: request.id })
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
    own.set(guard.name, [...(own.get(guard.name) ?? []), expiresAt])
  }
}

function compareHoldCounts({ openHolds, dueAt }: LiveAccount, sums: HeldSums, tell: Tell): void {
  if (openHolds !== sums.count)
    tell('hold', `its cell counts ${openHolds} open holds, and there are ${sums.count}`)
  if (sums.earliestAt !== null && (dueAt === null || dueAt > sums.earliestAt))
    tell('hold', `a hold ends at ${sums.earliestAt}, and its cell looks for none before ${dueAt ?? 'ever'}`)
}

function compareSubjects(journal: Journal, cells: LiveCells, held: HeldSums, tell: Tell): void {
  const { account } = cells
  const counts: Record<string, number> = {}
  const seen = new Set<string>()
  for (const subject of cells.subjects) {
    const { dimension, value } = subject
    const holder = holderOf(dimension, value)
    seen.add(holder)
    counts[dimension] = (counts[dimension] ?? 0) + 1
    guarded(tell, `the cell of ${dimension} ${value}`, () => {
      compareCounters(journal, account, subject.counters, dimension, holder, held, tell)
      compareOverrides(journal, account, subject.overrides, holder, tell)
    })
  }
  for (const [holder, own] of journal.windows) {
    if (holder !== ACCOUNT_HOLDER && !seen.has(holder)) compareGone(own, account, {}, ` of ${holder}`, tell)
  }
  for (const dimension of new Set([...Object.keys(counts), ...Object.keys(account.subjectCounts)])) {
    const [says, right] = [account.subjectCounts[dimension] ?? 0, counts[dimension] ?? 0]
    if (says !== right)
      tell('account', `its cell counts ${says} values of ${dimension}, and there are ${right} cells of them`)
  }
}

/** The windows and concurrency guards of one cell: what was used, what is held, and that none is gone too early. */
function compareCounters(
  journal: Journal,
  account: LiveAccount,
  counters: LiveCounters,
  by: string | null,
  holder: string,
  sums: HeldSums,
  tell: Tell,
): void {
  const whose = holder === ACCOUNT_HOLDER ? '' : ` of ${holder}`
  for (const [key, window] of Object.entries(counters.windows)) {
    const [least, most] = usedRange(journal, by, holder, key, window.startAt)
    if (window.used < least || window.used > most) {
      const right = window.used < least ? least : most
      tell(
        'window',
        `window ${key}${whose} has used ${cu(window.used)}, and its charges add up to ${cu(right)}`,
        {
          amount: window.used - right,
        },
      )
    }
    const held = sums.windows.get(holder)?.get(instanceKey(key, window.startAt)) ?? 0
    if (window.held !== held)
      tell(
        'hold',
        `${cu(window.held)} are held in window ${key}${whose}, and open requests hold ${cu(held)} there`,
        {
          amount: window.held - held,
        },
      )
    compareToldEnd(journal, account, key, window, holder, whose, tell)
  }
  compareGone(journal.windows.get(holder), account, counters.windows, whose, tell)
  compareConcurrency(counters, holder, whose, sums, tell)
}

function compareToldEnd(
  journal: Journal,
  account: LiveAccount,
  key: string,
  window: { readonly startAt: Millis; readonly endAt: Millis },
  holder: string,
  whose: string,
  tell: Tell,
): void {
  const told = journal.windows.get(holder)?.get(key)?.told
  if (told == null || told.endAt <= account.lastAt) return
  if (window.endAt !== told.endAt || window.startAt > told.seenAt)
    tell(
      'window',
      `window ${key}${whose} runs from ${window.startAt} to ${window.endAt} in the cell, and a decision at ${told.seenAt} saw one that ends at ${told.endAt}`,
    )
}

/** Windows that a decision saw and that have not ended stand in the cell still. */
function compareGone(
  traces: ReadonlyMap<string, WindowTrace> | undefined,
  account: LiveAccount,
  live: LiveCounters['windows'],
  whose: string,
  tell: Tell,
): void {
  for (const [key, { told, instances }] of traces ?? []) {
    if (told === null || told.endAt <= account.lastAt || live[key] !== undefined) continue
    const last = instances.at(-1)
    const amount = last === undefined ? 0 : last.plus - last.minus
    tell(
      'window',
      `window ${key}${whose} has used ${cu(amount)} and stands until ${told.endAt}, and the cell has it no more`,
      {
        amount: -amount,
      },
    )
  }
}

function compareConcurrency(
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
        `guard ${name}${whose} counts ${says.length} open holds (${says.join(', ')}), and there are ${right.length} (${right.join(', ')})`,
      )
  }
}

function compareOverrides(
  journal: Journal,
  { lastAt }: LiveAccount,
  overrides: Readonly<Record<string, LiveOverride>>,
  holder: string,
  tell: Tell,
): void {
  const inForce = (untilAt: Millis | null): boolean => untilAt === null || untilAt > lastAt
  const told = journal.overrides.get(holder) ?? new Map<string, readonly [Micros | null, Millis | null]>()
  const whose = holder === ACCOUNT_HOLDER ? '' : ` of ${holder}`
  for (const name of new Set([...told.keys(), ...Object.keys(overrides)])) {
    const [limit, untilAt] = told.get(name) ?? [null, null]
    const right = limit !== null && inForce(untilAt) ? limit : undefined
    const live = overrides[name]
    const says = live !== undefined && inForce(live.untilAt) ? live.limit : undefined
    if (says === right && (says === undefined || live?.untilAt === untilAt)) continue
    if (right === undefined && holder !== ACCOUNT_HOLDER && erased(journal, holder)) continue
    tell(
      'account',
      `the limit ${name}${whose} is overridden with ${sayLimit(says)} in the cell, and with ${sayLimit(right)} by its entries`,
      {
        ...(says === undefined || right === undefined ? {} : { amount: says - right }),
      },
    )
  }
}

const erased = (journal: Journal, holder: string): boolean =>
  journal.erasedOverrides.has(holder.slice(0, holder.indexOf('=')))
const sayLimit = (limit: Micros | undefined): string => (limit === undefined ? 'nothing' : cu(limit))

/** Cells that recognise a grant's id for good: every grant has one, and it says what was issued. */
function compareGrantCells(journal: Journal, cells: Iterable<LiveGrantCell>, tell: Tell): void {
  const seen = new Set<string>()
  for (const cell of cells) {
    seen.add(cell.id)
    // Issued after the last entry that was read.
    if (cell.seq > journal.head.seq) continue
    guarded(tell, `the cell of grant ${cell.id}`, () => compareGrantCell(journal, cell, tell))
  }
  for (const [id, { seq, amount }] of journal.grants) {
    if (!seen.has(id))
      tell('missing', `the cell of grant ${id} over ${cu(amount)} is missing`, { seq, amount })
  }
}

function compareGrantCell(journal: Journal, cell: LiveGrantCell, tell: Tell): void {
  const trace = journal.grants.get(cell.id)
  const { amount } = cell.grant
  if (trace === undefined)
    return tell('grant', `grant ${cell.id} over ${cu(amount)} was never issued`, { amount })
  const { seq } = trace
  if (cell.seq !== seq)
    tell('grant', `the cell of grant ${cell.id} says that entry ${cell.seq} issued it, and it was ${seq}`, {
      seq,
      amount,
    })
  compareGrantTerms(cell.id, trace, cell.grant, 'the cell of its id', tell)
  if (cell.repaid !== trace.repaidAtOnce)
    tell(
      'grant',
      `grant ${cell.id} repaid ${cu(cell.repaid)} as it was issued by its cell, and ${cu(trace.repaidAtOnce)} by its transfers`,
      {
        seq,
        amount: cell.repaid - trace.repaidAtOnce,
      },
    )
  if ((cell.revokedSeq ?? null) !== trace.revokedSeq)
    tell(
      'grant',
      `grant ${cell.id} was revoked by entry ${cell.revokedSeq ?? 'none'} by its cell, and by ${trace.revokedSeq ?? 'none'} by the journal`,
      {
        seq,
        amount,
      },
    )
}

/** One request's own cell, open or closed. One that has moved on since the last entry that was read is passed over. */
export function compareRequest(journal: Journal, cell: LiveRequest, tell: Tell): void {
  const request = cell.id
  const last = cell.seqs.last ?? 0
  if (last > journal.head.seq || last < journal.first) return
  const story = journal.requests.get(request)
  if (story === undefined)
    return tell('missing', `no entry of the journal tells of it, and its cell is ${cell.state}`, { request })
  if ((cell.state === 'open') !== (story.hold !== null))
    tell(
      'hold',
      `it is ${cell.state} in its cell, and by its entries ${story.hold === null ? story.closed : 'open'}`,
      {
        request,
        amount: story.hold?.granted ?? 0,
      },
    )
  if (last !== story.last)
    tell('missing', `its cell says that its story ends with entry ${last}, and it ends with ${story.last}`, {
      request,
    })
  const [says, right] = [cell.charge, story.charge]
  if (says === undefined && right === null) return
  const differ = (what: string, one: Micros, other: Micros): void =>
    tell('charge', `${what} ${cu(one)} in its cell, and ${cu(other)} by its entries`, {
      request,
      amount: one - other,
    })
  if ((says?.cost ?? 0) !== (right?.standing ?? 0))
    differ('what stands charged is', says?.cost ?? 0, right?.standing ?? 0)
  if ((says?.refunded ?? 0) !== (right?.refunded ?? 0))
    differ('what was refunded is', says?.refunded ?? 0, right?.refunded ?? 0)
  compareBySource(says?.parts ?? [], Object.entries(right?.cover ?? {}), (source, one, other) =>
    differ(`${source} covers`, one, other),
  )
}
